"""`CacheMounts`: the folders of RUN --mount=type=cache, each held by a lock that dies with its process.

A cache is named by a key; `cache-mounts/<key>.<number>/` is one copy of it: `data/`, what it is
called in `about.json`, perhaps what is known of its chunks in `chunks.json`, and `lock`. Whoever uses a
copy holds the flock of its `lock` file, shared or alone, whose time says when it was used last. A copy
appears and leaves by one rename.
Source: Dockerfile reference, "RUN --mount=type=cache".
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from img import _core
from img.errors import StoreError
from img.store.cache_copy import CacheRow, Chunks, about_of, read_chunks
from img.store.work import WorkFolder, same_file

Sharing = Literal["shared", "private", "locked"]


class CacheLease:
    """A copy of a cache that is ours to use until `close`, or the end of the process."""

    def __init__(self, path: Path, lock: int, *, used: bool = True) -> None:
        """Takes over a locked descriptor; `CacheMounts.lease` and `hold` are the ways to one."""
        self.path = path
        self._lock = lock
        self._used = used

    @property
    def data(self) -> Path:
        """The folder that is mounted."""
        return self.path / "data"

    @property
    def shape(self) -> str:
        """What tells the cache from others of its id."""
        return about_of(self.path).get("shape", "")

    def chunks(self) -> Chunks:
        """What was known of its chunks when it travelled last; empty where nothing is."""
        return read_chunks(self.path)

    def close(self) -> None:
        """Gives it up and notes the time of its use; safe to call twice."""
        if self._lock >= 0:
            if self._used:
                os.utime(self._lock)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> CacheLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CacheMounts:
    """All cache folders of one store. Any number of threads and processes may use one."""

    def __init__(self, root: Path) -> None:
        """Uses `root`, which exists, on the file system of the store's work folders."""
        self.root = root
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def lease(
        self,
        key: str,
        sharing: Sharing,
        *,
        id: str,
        work: Path,
        fill: Callable[[Path], None],
        waiting: Callable[[], None],
        shape: str = "",
        refill: Callable[[Path], bool] | None = None,
    ) -> CacheLease:
        """Gives a copy of a cache, made where there is none.

        Args:
            key: Hexadecimal; all that the folder's beginning depends on (`CacheShape.key`).
            sharing: `shared` and `locked` take the first copy, with others or alone, and wait for who
                has it otherwise; `private` takes a free copy, or makes one more, and never waits.
            id: What people call it.
            work: Folder of this process in which a new copy is made, and appears here when it is whole.
            fill: Makes the new copy's contents, in the folder that it is given.
            waiting: Called once where the cache is in other hands and has to be waited for.
            shape: What tells it from others of its id, for people.
            refill: Makes contents for a copy that is empty and that nobody holds; False where there are
                none to be had.
        """
        for number in itertools.count():
            path = self.root / f"{key}.{number}"
            busy = False
            while not busy:
                if path.exists():
                    if refill is not None and _is_empty(path / "data"):
                        self._refill(path, work, refill)
                        refill = None
                    lease = self._open(path, sharing, waiting)
                    busy = lease is None and sharing == "private" and path.exists()
                else:
                    lease = self._make(path, sharing, {"id": id, "shape": shape}, work, fill)
                if lease is not None:
                    return lease
        raise AssertionError("numbers do not end")

    def any(self) -> bool:
        """Tells whether there is one at all; it needs no namespace."""
        return next(self.root.iterdir(), None) is not None

    def all(self) -> list[CacheRow]:
        """Every copy, by the name of its folder."""
        rows = []
        for path, lock in self._locks():
            if lock is None:
                continue
            rows.append(
                CacheRow(
                    id=about_of(path).get("id", path.name),
                    path=path,
                    used=os.fstat(lock).st_mtime,
                    busy=not _try(lock, shared=False),
                    shape=about_of(path).get("shape", ""),
                )
            )
        return rows

    def hold(self, path: Path, waiting: Callable[[], None]) -> CacheLease | None:
        """Gives a copy to read: nobody has it alone meanwhile. None where it left.

        Args:
            waiting: Called once where somebody has it alone and has to be waited for.
        """
        while path.exists():
            lease = self._open(path, "shared", waiting, used=False)
            if lease is not None:
                return lease
        return None

    def put(
        self, key: str, *, id: str, shape: str, work: WorkFolder, fill: Callable[[Path], None],
        name: str = "",
    ) -> Path:  # fmt: skip
        """Makes a copy anew, in place of the one that is there; gives its folder.

        Args:
            name: The copy that is replaced; by default the first one.
            work: The new copy is made in it, and the old one left to it.
            fill: Makes the contents, in the folder that it is given.
        Raises:
            StoreError: somebody is using it. It is as it was.
        """
        path = self.root / (name or f"{key}.0")
        while True:
            old = self._alone(path)
            try:
                lease = self._make_new(path, {"id": id, "shape": shape}, work.path, fill, old, work)
            finally:
                if old is not None:
                    os.close(old)
            if lease is not None:
                lease.close()
                return path

    def remove(self, rows: list[CacheRow], trash: WorkFolder) -> None:
        """Moves copies into `trash`: all of them or, where one is in use, none.

        Raises:
            StoreError: somebody is using one.
        """
        held: list[tuple[Path, int | None]] = []
        try:
            for row in rows:
                held.append((row.path, self._alone(row.path)))
            for path, lock in held:
                if lock is not None:
                    path.rename(trash.path / f"cache-{path.name}")
        finally:
            for _, lock in held:
                if lock is not None:
                    os.close(lock)

    def prune(self, *, unused_since: float, trash: WorkFolder) -> int:
        """Moves copies that nobody holds, and nobody used since a time, into `trash`; counts them."""
        count = 0
        for path, lock in self._locks():
            free = lock is None or (_try(lock, shared=False) and os.fstat(lock).st_mtime < unused_since)
            if free:
                path.rename(trash.path / f"cache-{path.name}")
                count += 1
        return count

    def _alone(self, path: Path) -> int | None:
        """The lock of a copy, held alone; None where there is no such copy.

        Raises:
            StoreError: somebody is using it.
        """
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if _try(lock, shared=False):
            return lock
        os.close(lock)
        raise StoreError(
            f"the cache mount {about_of(path).get('id', path.name)} is in use by a build",
            hint="try again when that build has ended",
        )

    def _refill(self, path: Path, work: Path, refill: Callable[[Path], bool]) -> None:
        """Gives contents to a copy that has none, if nobody holds it: all of them at once."""
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        new = work / f"refill-{path.name}-{os.urandom(4).hex()}"
        try:
            if not (_try(lock, shared=False) and same_file(path / "lock", lock) and _is_empty(path / "data")):
                return
            (new / "data").mkdir(parents=True)
            if refill(new / "data"):
                # A folder that is renamed onto an empty one takes its place in one step.
                (new / "data").rename(path / "data")
                if (new / "chunks.json").exists():
                    (new / "chunks.json").rename(path / "chunks.json")
        finally:
            os.close(lock)
            _core.remove_tree(str(new))

    def _open(
        self, path: Path, sharing: Sharing, waiting: Callable[[], None], *, used: bool = True
    ) -> CacheLease | None:
        """Locks a copy that is there; None where it left meanwhile, or is another's and not waited for."""
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            shared = sharing == "shared"
            held = _try(lock, shared=shared)
            if not held and sharing != "private":
                waiting()
                _core.wait_for_lock(lock, shared=shared)
                held = True
            if held and same_file(path / "lock", lock):
                if used:
                    os.utime(lock)
                lease = CacheLease(path, lock, used=used)
                lock = -1
                return lease
            return None
        finally:
            if lock >= 0:
                os.close(lock)

    def _make(
        self, path: Path, sharing: Sharing, about: dict[str, str], work: Path, fill: Callable[[Path], None]
    ) -> CacheLease | None:
        """Makes a copy, locked before anybody can see it; None where another was first."""
        with self._lock:
            making = self._making.setdefault(path.name, threading.Lock())
        # What a copy begins as may be long in coming: two steps of a build do not both fetch it.
        with making:
            if path.exists():
                return None
            return self._make_new(path, about, work, fill, sharing=sharing)

    def _make_new(
        self,
        path: Path,
        about: dict[str, str],
        work: Path,
        fill: Callable[[Path], None],
        old: int | None = None,
        trash: WorkFolder | None = None,
        *,
        sharing: Sharing = "locked",
    ) -> CacheLease | None:
        """Makes a copy beside its place, moves an `old` one that is held out of it, and then this one in."""
        new = work / f"cache-{path.name}-{os.urandom(4).hex()}"
        (new / "data").mkdir(parents=True)
        lock = os.open(new / "lock", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            (new / "about.json").write_text(json.dumps({"v": 1, **about}), encoding="utf-8")
            fill(new / "data")
            _try(lock, shared=sharing == "shared")
            if old is not None and trash is not None and same_file(path / "lock", old):
                path.rename(trash.path / f"old-{new.name}")
            new.rename(path)
            lease = CacheLease(path, lock)
            lock = -1
            return lease
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not path.exists():
                raise
            return None
        finally:
            if lock >= 0:
                os.close(lock)
                _core.remove_tree(str(new))

    def _locks(self) -> Iterator[tuple[Path, int | None]]:
        """The copies, each with its lock file open; None where it has none, which no crash leaves."""
        for path in sorted(self.root.iterdir()):
            try:
                lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                yield path, None
                continue
            try:
                yield path, lock
            finally:
                os.close(lock)


def _try(lock: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return False
        raise
    return True


def _is_empty(folder: Path) -> bool:
    """Tells whether nothing is in a folder; one that left holds something."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
