"""`Claims`: who of several builds carries out a step, or fetches a layer, that all of them need.

`claims/<key>` is held by a flock for as long as one build, in this process or another, runs the step of that
cache key, or fetches the blob of that digest; the others wait and then find its record, or the blob. A claim
dies with its process. Its file goes when the claim is given up; one that a killed process left is taken over,
or swept by a collection. Whoever holds a step never waits for another step, though it may wait for blobs;
whoever holds blobs waits for blobs of higher digests alone: nobody waits in a circle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from img import _core
from img.store.work import same_file, try_lock

_TRY_SECONDS = 0.05
"""A thread that waits in flock(2) could not be told that nobody needs what it waits for."""


class Claim:
    """A key that is ours until `close`, or the end of the process.

    Attributes:
        waited: Another had it before.
    """

    def __init__(self, path: Path, lock: int, *, waited: bool) -> None:
        """Takes over a locked descriptor; `Claims.hold` is the way to one."""
        self.waited = waited
        self._path = path
        self._lock = lock

    def close(self) -> None:
        """Gives it up; safe to call twice."""
        if self._lock >= 0:
            # Removed while it is locked: who waits for this file sees that it is gone, and makes a new one.
            self._path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Claims:
    """The claims of one store. Any number of threads and processes may ask."""

    def __init__(self, root: Path) -> None:
        """Uses `root`, which exists."""
        self.root = root

    def hold(self, key: str, *, waiting: Callable[[], None]) -> Claim:
        """Claims a key.

        Args:
            key: Hexadecimal.
            waiting: Called once where another has it, whose end is then waited for.
        Raises:
            KeyboardInterrupt: `_core.stop_everything` ended the wait.
        """
        path = self.root / key
        waited = False
        while True:
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                if not try_lock(lock):
                    if not waited:
                        waiting()
                    waited = True
                    _core.wait_for_lock(lock)
                if same_file(path, lock):
                    return Claim(path, lock, waited=waited)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # its holder gave it up, and took the file away, while we waited

    @contextmanager
    def together(
        self, keys: Iterable[str], *, waiting: Callable[[], None], check: Callable[[], object]
    ) -> Iterator[bool]:
        """Claims several blobs for as long as the block lasts; tells whether another had one of them.

        Args:
            keys: Hexadecimal digests.
            waiting: Called once where one has to be waited for.
            check: Called now and then meanwhile; raises where nobody waits any more.
        """
        waited = False
        with ExitStack() as held:
            for key in sorted(set(keys)):
                while (claim := self._try(key)) is None:
                    if not waited:
                        waiting()
                    waited = True
                    check()
                    time.sleep(_TRY_SECONDS)
                held.enter_context(claim)
            yield waited

    def _try(self, key: str) -> Claim | None:
        """Claims a key, unless another has it."""
        path = self.root / key
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if try_lock(lock) and same_file(path, lock):
            return Claim(path, lock, waited=False)
        os.close(lock)
        return None

    def sweep(self) -> None:
        """Removes the files that killed processes left."""
        for path in self.root.iterdir():
            try:
                lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                if try_lock(lock):
                    path.unlink(missing_ok=True)
            finally:
                os.close(lock)
