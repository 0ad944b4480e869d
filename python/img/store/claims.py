"""`Claims`: who of several builds carries out a step, or fetches a layer, that all of them need.

`claims/<key>` is held by a flock for as long as one build, in this process or another, runs the step of that
cache key, or fetches the blob of that digest; the others wait and then find its record, or the blob. A claim
dies with its process. Its file goes when the claim is given up; one that a killed process left is taken over,
or swept by a collection. Whoever holds a step never waits for another step, though it may wait for blobs;
whoever holds blobs waits for blobs of higher digests alone: nobody waits in a circle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from img import _core
from img.store.work import same_file, try_lock

_CHECK_SECONDS = 0.05
"""How often whoever waits is asked whether the wait is still wanted."""


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

    def hold(
        self, key: str, *, waiting: Callable[[], None], check: Callable[[], object] = lambda: None
    ) -> Claim:
        """Claims a key.

        Args:
            key: Hexadecimal.
            waiting: Called once where another has it, whose end is then waited for.
            check: Called now and then meanwhile; raises where nobody waits any more.
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
                    while not _core.wait_for_lock(lock, at_most_seconds=_CHECK_SECONDS):
                        check()
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
            check: As for `hold`.
        """
        waited = False

        def wait() -> None:
            nonlocal waited
            if not waited:
                waiting()
            waited = True

        with ExitStack() as held:
            for key in sorted(set(keys)):
                held.enter_context(self.hold(key, waiting=wait, check=check))
            yield waited

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
