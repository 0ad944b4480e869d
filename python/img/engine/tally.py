"""`Tally`: counts the blobs of one push: how many moved, how many had not to, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from img.oci import Reference
from img.progress import Transferred

_NAMES = 3


class Tally:
    """Counts. Safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has moved yet."""
        self._clock = clock
        self._lock = threading.Lock()
        self._active = 0
        self._since = 0.0
        self._seconds = 0.0
        self._counts: dict[str, int] = {}
        self._bytes = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Something is under way while the block runs. What overlaps counts once."""
        with self._lock:
            if not self._active:
                self._since = self._clock()
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                if not self._active:
                    self._seconds += self._clock() - self._since

    def add(self, kind: str, size: int) -> None:
        """Counts a blob; `kind` as `Transfer` has it."""
        with self._lock:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._bytes += size if kind == "sent" else 0

    def sum(self, names: Sequence[Reference]) -> Transferred:
        """What there was, for the images of these names."""
        told = dict.fromkeys(name.familiar for name in names)
        with self._lock:
            return Transferred(
                action="push",
                name=", ".join(told) if len(told) <= _NAMES else f"{len(told)} images",
                moved=self._counts.get("sent", 0),
                moved_bytes=self._bytes,
                mounted=self._counts.get("mounted", 0),
                present=self._counts.get("present", 0),
                seconds=self._seconds,
            )
