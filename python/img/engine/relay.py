"""`Relay`: a `Progress` that a build's record can listen to beside whoever is shown the events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from img.progress import Event, Progress


class Relay:
    """A `Progress` that passes every event on, and while a build is recorded to its record, too."""

    def __init__(self, show: Progress) -> None:
        """Passes on to `show` alone."""
        self._show = show
        self._record: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Passes one event on; to the record first, so that what people see has been written down."""
        if self._record is not None:
            self._record(event)
        self._show(event)

    @contextmanager
    def recorded_by(self, record: Progress) -> Iterator[None]:
        """Has a record take all events meanwhile."""
        self._record = record
        try:
            yield
        finally:
            self._record = None
