"""`Stop`: tells work in several threads to end, and wakes what sleeps or waits for the network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Work ended because its `Stop` was set; nothing went wrong with it."""


class Stop:
    """A flag that is set once. Safe from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._actions: dict[object, Callable[[], None]] = {}

    @property
    def is_set(self) -> bool:
        """Whether work should end."""
        return self._event.is_set()

    def set(self) -> None:
        """Asks the work to end. Returns at once; calling it again does nothing."""
        with self._lock:
            self._event.set()
            actions, self._actions = list(self._actions.values()), {}
        for action in actions:
            action()

    def check(self) -> None:
        """Does nothing until the flag is set.

        Raises:
            Stopped: it is.
        """
        if self._event.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Waits, or ends early.

        Raises:
            Stopped: the flag was set meanwhile.
        """
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def calling(self, action: Callable[[], None]) -> Iterator[None]:
        """Calls `action` if the flag is set (or is already) while the block runs."""
        key = object()
        with self._lock:
            late = self._event.is_set()
            if not late:
                self._actions[key] = action
        if late:
            action()
        try:
            yield
        finally:
            with self._lock:
                self._actions.pop(key, None)
