"""`WorkArea`: folders of work in progress, each held by a lock that dies with its process.

`work/<token>/` belongs to whoever holds the flock on `work/<token>.lock`. A folder whose lock can
be taken has no owner any more, and is swept. A lease is a work folder too: its lock file's mtime
says since when its process has been using the store (`store.gc` spares what was used since then).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from img import _core
from img.store.tokens import token


class WorkFolder:
    """One folder, ours until `close` (or the end of the process)."""

    def __init__(self, path: Path, lock: int) -> None:
        """Takes over a locked descriptor; `WorkArea.begin` is the way to one."""
        self.path = path
        self._lock = lock

    def folder(self, name: str) -> Path:
        """Makes an empty folder inside."""
        path = self.path / name
        path.mkdir()
        return path

    def take(self, garbage: Path) -> None:
        """Moves a folder in, to go with this one: when the image is done, and not while it is waited for."""
        garbage.rename(self.path / f"garbage-{token(6)}")

    def close(self) -> None:
        """Removes the folder and gives up the lock; safe to call twice."""
        if self._lock < 0:
            return
        _core.remove_tree(str(self.path))
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WorkArea:
    """All work folders of one store."""

    def __init__(self, root: Path) -> None:
        """Uses `root`, which exists."""
        self.root = root

    def begin(self) -> WorkFolder:
        """Makes a new folder of our own."""
        while True:
            path = self.root / token(8)
            name = path.with_suffix(".lock")
            lock = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if same_file(name, lock):
                path.mkdir()
                return WorkFolder(path, lock)
            os.close(lock)  # a sweep took the file for a dead one's before it was locked

    def oldest_lease(self) -> float:
        """Since when the longest-running live process has been using the store; now, if none."""
        oldest = time.time()
        for lock, alive in self._locks():
            if alive:
                try:
                    oldest = min(oldest, lock.stat().st_mtime)
                except FileNotFoundError:
                    continue
        return oldest

    def live(self) -> list[Path]:
        """The folders of processes that are at work now."""
        return [lock.with_suffix("") for lock, alive in self._locks() if alive]

    def held(self, name: str) -> bool:
        """Tells whether the process that made a folder of this name still has it."""
        try:
            descriptor = os.open(self.root / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not look_at_lock(descriptor)
        finally:
            os.close(descriptor)

    def sweep(self) -> int:
        """Removes what dead processes left. Gives bytes of disk that came back."""
        freed = 0
        for lock, alive in self._locks():
            if not alive:
                freed += _core.remove_tree(str(lock.with_suffix("")))
                lock.unlink(missing_ok=True)
        for entry in os.scandir(self.root):
            # A folder is made after its lock, so one without a lock has lost its owner.
            lock = self.root / f"{entry.name.partition('.')[0]}.lock"
            if not entry.name.endswith(".lock") and not lock.exists():
                freed += _core.remove_tree(entry.path)
        return freed

    def _locks(self) -> Iterator[tuple[Path, bool]]:
        """Walks over the lock files and tells which have a living owner.

        A lock without one is held by us while it is looked at, so that nobody begins on it. Several may
        look at once, and sweep at once: what one has removed the other misses nowhere.
        """
        for entry in os.scandir(self.root):
            if not entry.name.endswith(".lock"):
                continue
            try:
                descriptor = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                yield Path(entry.path), not look_at_lock(descriptor)
            finally:
                os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Takes the flock of an open file, unless another has it."""
    return _flock(descriptor, fcntl.LOCK_EX)


def look_at_lock(descriptor: int) -> bool:
    """Takes the flock of an open file unless it has an owner; others who look do not count as one."""
    return _flock(descriptor, fcntl.LOCK_SH)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def same_file(path: Path, descriptor: int) -> bool:
    """Tells whether a name still stands for an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
