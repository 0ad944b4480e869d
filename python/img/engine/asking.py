"""`Questions`: asks, while a build begins, whether registries will take what it is to leave there.

`Engine` makes one for a build that pushes, or writes a cache to a registry. Nothing waits for the answers:
`Build` looks for a refusal as it goes on, and `Pusher` asks nothing again that was asked here. Who cannot say
it beforehand says it when the blobs come, as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from img.engine.background import Background
from img.errors import ImgError, RegistryError
from img.oci import Reference
from img.progress import Note, Progress
from img.registry.faults import PASSING
from img.registry.stop import Stop, Stopped
from img.values import dataclass

if TYPE_CHECKING:
    from img.registry import Registry

AT_ONCE = 4
"""Registries that are asked at once."""

STOP_SECONDS = 2.0
"""How long a question that was given up is waited for, so that it gives its upload back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheQuestion:
    """Whether a shared cache may be written.

    Attributes:
        repository: Where it is, as `Reference.name` has it.
        ask: Raises where it may not.
    """

    repository: str
    ask: Callable[[Stop], None]


class Questions:
    """What is asked beside one build. Safe for several threads; use it in a `with` block."""

    def __init__(self, registry: Callable[[], Registry], progress: Progress) -> None:
        """Asks nothing yet."""
        self._registry = registry
        self._progress = progress
        self._background = Background(AT_ONCE)
        self._stop = Stop()
        self._lock = threading.Lock()
        self._answered: dict[str, threading.Event] = {}
        self._refusal: ImgError | None = None
        self._refused: Callable[[], None] = _nothing

    def begin(
        self, names: Sequence[Reference], caches: Sequence[CacheQuestion], refused: Callable[[], None]
    ) -> None:
        """Asks each repository once, in threads of their own, which give way to the build.

        Args:
            names: Of images that are to be pushed.
            caches: One that shares its repository with such a name is not asked for.
            refused: Called at the first refusal, from such a thread.
        """
        self._refused = refused
        for name in names:
            self._add(name.name, partial(self._check_push, name))
        for cache in caches:
            self._add(cache.repository, partial(cache.ask, self._stop))

    def _check_push(self, name: Reference) -> None:
        self._registry().check_push(name, stop=self._stop)

    def _add(self, repository: str, ask: Callable[[], None]) -> None:
        if repository not in self._answered:
            answered = self._answered[repository] = threading.Event()
            self._background.add(partial(self._ask, repository, ask, answered))

    def _ask(self, repository: str, ask: Callable[[], None], answered: threading.Event) -> None:
        """Thread: one question."""
        try:
            ask()
        except (ImgError, OSError) as error:
            if isinstance(error, ImgError) and not may_pass(error):
                self._take(error)
            else:
                text = f"{repository} does not say what it takes: {error}"
                self._progress(Note(level="debug", text=text))
        except (Stopped, KeyboardInterrupt):
            pass  # the build is over, or has met an error of its own
        finally:
            answered.set()

    def _take(self, error: ImgError) -> None:
        with self._lock:
            if self._refusal is not None or self._stop.is_set:
                return
            self._refusal = error
        self._refused()

    # ---- what others look at -----------------------------------------------------------------

    def check(self) -> None:
        """Goes on unless somebody has refused by now.

        Raises:
            Unauthorized, RegistryError: no push is allowed, or the registry cannot be reached.
            CacheError: the same of a cache.
        """
        if self._refusal is not None:
            raise self._refusal

    def settled(self, name: Reference, stop: Stop) -> bool:
        """Waits for the answer about a name's repository; False where it was not asked for.

        Raises:
            Stopped: `stop` was set. As `check`.
        """
        answered = self._answered.get(name.name)
        if answered is None:
            return False
        while not answered.wait(0.1):
            self.check()
            stop.check()
        self.check()
        return True

    # ---- its end -----------------------------------------------------------------------------

    def __enter__(self) -> Questions:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is still asked, and waits for that a moment."""
        self._background.stop()
        self._stop.set()
        self._background.drain(STOP_SECONDS)


def may_pass(error: BaseException | None) -> bool:
    """Tells an answer that may be another one by the time at which there is something to push."""
    return isinstance(error, RegistryError) and error.status in PASSING


def _nothing() -> None:
    """Nobody is to be told."""


__all__ = ["CacheQuestion", "Questions", "may_pass"]
