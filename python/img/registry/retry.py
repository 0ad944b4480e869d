"""`Backoff`: which failures are tried again, how often, and after how long.

`Retriable` carries the error that is raised when patience ends. Waits grow by doubling, are jittered so
that many builders do not knock in step, and end early when the work is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from img.amounts import human_time
from img.errors import RegistryError
from img.progress import Note, Progress
from img.registry.options import Options
from img.registry.stop import Stop
from img.web.abandon import abandonable

T = TypeVar("T")

MAX_WAIT_SECONDS = 60.0
"""A registry that asks for a longer wait is not waited for."""


class Retriable(Exception):
    """A failure that may pass.

    Attributes:
        error: What to raise if it does not.
        cause: What `error` is raised from, or None.
        after_seconds: The wait that the registry asked for, or None.
        garbled: There was a connection, but no HTTP answer, as from an address that speaks TLS.
    """

    def __init__(
        self,
        error: RegistryError,
        *,
        cause: BaseException | None = None,
        after_seconds: float | None = None,
        garbled: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.cause = cause
        self.after_seconds = after_seconds
        self.garbled = garbled


class Backoff:
    """Counts the failures of one piece of work and waits between its attempts."""

    def __init__(self, options: Options, stop: Stop, progress: Progress) -> None:
        self._options = options
        self._stop = stop
        self._progress = progress
        self._failures = 0

    def renew(self) -> None:
        """Forgets the failures so far: the work has moved on."""
        self._failures = 0

    def wait(self, fault: Retriable) -> None:
        """Waits before the next attempt.

        Raises:
            RegistryError: no attempt is left, or the registry asks for more patience than there is.
            Stopped: the work was stopped.
        """
        self._failures += 1
        asked = fault.after_seconds
        if self._failures >= self._options.attempts or (asked is not None and asked > MAX_WAIT_SECONDS):
            raise fault.error from fault.cause
        seconds = self._jittered() if asked is None else asked
        text = f"trying again in {human_time(seconds)}: {fault.error}"
        self._progress(Note(level="debug", text=text))
        self._stop.sleep(seconds)

    def run(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it returns, waiting after each `Retriable`.

        Raises:
            RegistryError: as `wait`.
            Stopped: as `wait`.
        """
        while True:
            self._stop.check()
            try:
                with abandonable(self._stop.calling):
                    return attempt()
            except Retriable as fault:
                self.wait(fault)

    def _jittered(self) -> float:
        import random

        longest: float = min(MAX_WAIT_SECONDS, self._options.backoff_seconds * 2 ** (self._failures - 1))
        return longest * random.uniform(0.5, 1.0)


def retry_after(value: str | None) -> float | None:
    """Reads a Retry-After header: seconds, or a date. None where it says nothing that can be read.

    Source: RFC 9110, section 10.2.3.
    """
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:12])
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
