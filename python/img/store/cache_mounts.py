"""`CacheMounts`: the folders of RUN --mount=type=cache, each held by a lock that dies with its process.

A cache is named by a key; `cache-mounts/<key>.<number>/` is one copy of it: `data/`, what it is
called in `about.json`, and `lock`. Whoever uses a copy holds the flock of its `lock` file, shared
or alone, whose time says when it was used last. A copy appears and leaves by one rename.
Source: Dockerfile reference, "RUN --mount=type=cache".
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from img import _core
from img.store.work import WorkFolder
from img.values import dataclass

Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRow:
    """One copy of a cache, for people. `used` is in seconds since 1970; `busy`: somebody holds it."""

    id: str
    path: Path
    used: float
    busy: bool


class CacheLease:
    """A copy of a cache that is ours to use until `close`, or the end of the process."""

    def __init__(self, path: Path, lock: int) -> None:
        """Takes over a locked descriptor; `CacheMounts.lease` is the way to one."""
        self.path = path
        self._lock = lock

    @property
    def data(self) -> Path:
        """The folder that is mounted."""
        return self.path / "data"

    def close(self) -> None:
        """Gives it up and notes the time; safe to call twice."""
        if self._lock >= 0:
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

    def lease(
        self,
        key: str,
        sharing: Sharing,
        *,
        id: str,
        work: Path,
        fill: Callable[[Path], None],
        waiting: Callable[[], None],
    ) -> CacheLease:
        """Gives a copy of a cache, made where there is none.

        Args:
            key: Hexadecimal; all that the folder's beginning depends on.
            sharing: `shared` and `locked` take the first copy, with others or alone, and wait for who
                has it otherwise; `private` takes a free copy, or makes one more, and never waits.
            id: What people call it.
            work: Folder of this process in which a new copy is made, and appears here when it is whole.
            fill: Makes the new copy's contents, in the folder that it is given.
            waiting: Called once where the cache is in other hands and has to be waited for.
        """
        for number in itertools.count():
            path = self.root / f"{key}.{number}"
            busy = False
            while not busy:
                if path.exists():
                    lease = self._open(path, sharing, waiting)
                    busy = lease is None and sharing == "private" and path.exists()
                else:
                    lease = self._make(path, sharing, id, work, fill)
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
                    id=_called(path),
                    path=path,
                    used=os.fstat(lock).st_mtime,
                    busy=not _try(lock, shared=False),
                )
            )
        return rows

    def prune(self, *, unused_since: float, trash: WorkFolder) -> int:
        """Moves copies that nobody holds, and nobody used since a time, into `trash`; counts them."""
        count = 0
        for path, lock in self._locks():
            free = lock is None or (_try(lock, shared=False) and os.fstat(lock).st_mtime < unused_since)
            if free:
                path.rename(trash.path / f"cache-{path.name}")
                count += 1
        return count

    def _open(self, path: Path, sharing: Sharing, waiting: Callable[[], None]) -> CacheLease | None:
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
            if held and _is(path / "lock", lock):
                os.utime(lock)
                lease = CacheLease(path, lock)
                lock = -1
                return lease
            return None
        finally:
            if lock >= 0:
                os.close(lock)

    def _make(
        self, path: Path, sharing: Sharing, id: str, work: Path, fill: Callable[[Path], None]
    ) -> CacheLease | None:
        """Makes a copy, locked before anybody can see it; None where another was first."""
        new = work / f"cache-{path.name}-{os.urandom(4).hex()}"
        (new / "data").mkdir(parents=True)
        lock = os.open(new / "lock", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            (new / "about.json").write_text(json.dumps({"v": 1, "id": id}), encoding="utf-8")
            fill(new / "data")
            _try(lock, shared=sharing == "shared")
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


def _is(path: Path, descriptor: int) -> bool:
    """Tells whether a name still stands for an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _called(path: Path) -> str:
    """What a copy is called; its folder's name where that cannot be read."""
    try:
        return str(json.loads((path / "about.json").read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError):
        return path.name
