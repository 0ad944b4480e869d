"""`RemoteArea`: what was fetched from the network, kept between builds: `remote/<kind>/<key>/`.

An entry belongs to whoever holds the flock on `<key>.lock` beside it, for as long as it reads or
changes it. That file's mtime says when the entry was last used: a collection frees what was not used
lately. What an entry holds, and whether it is whole, is its kind's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from img import _core
from img.oci.hashing import sha256
from img.store.work import same_file, try_lock

KINDS = ("http", "git")
_TRY_SECONDS = 0.05
"""A thread that waits in flock(2) could not be told that its build is over."""


class RemoteArea:
    """All entries of one store. Safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        """Uses `root`, which exists."""
        self.root = root

    @contextmanager
    def entry(self, kind: str, name: str, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
        """Holds an entry while the block runs, and counts it as used; gives its folder.

        Args:
            kind: One of `KINDS`.
            name: What it is of, such as a URL; on disk only its digest is seen.
            check: Called now and then while another holds the entry; raises where nobody waits any more.
        """
        home = self.root / kind
        home.mkdir(exist_ok=True)
        folder = home / sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]
        lock = _hold(folder.with_suffix(".lock"), check)
        try:
            folder.mkdir(exist_ok=True)
            os.utime(lock)
            yield folder
        finally:
            os.close(lock)

    def drop(self, *, unused_since: float) -> int:
        """Removes entries that nobody has used since a time. Gives bytes of disk that came back."""
        return self._drop_all(lambda used: used < unused_since)

    def drop_since(self, used_since: float) -> int:
        """Removes entries that somebody has used since a time, and nobody holds. Gives bytes as `drop`."""
        return self._drop_all(lambda used: used >= used_since)

    def _drop_all(self, unwanted: Callable[[float], bool]) -> int:
        locks = [lock for kind in KINDS for lock in (self.root / kind).glob("*.lock")]
        return sum(_drop(lock, unwanted) for lock in locks)


def _hold(path: Path, check: Callable[[], object]) -> int:
    """Takes an entry's lock; one that a collection removed meanwhile is made again."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not try_lock(lock):
                check()
                time.sleep(_TRY_SECONDS)
            if same_file(path, lock):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # it was removed while we waited


def _drop(path: Path, unwanted: Callable[[float], bool]) -> int:
    """Removes an entry whose last use is such a time, unless somebody is at it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        if not try_lock(lock) or not unwanted(os.fstat(lock).st_mtime):
            return 0
        freed = _core.remove_tree(str(path.with_suffix("")))
        path.unlink(missing_ok=True)
        return freed
    finally:
        os.close(lock)
