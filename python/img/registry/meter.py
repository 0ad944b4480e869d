"""`Meter`: turns the bytes of one transfer into `Transfer` events, some ten a second."""

from __future__ import annotations

import time

from img.progress import Progress, Transfer

_EVERY_SECONDS = 0.1


class Meter:
    """Counts one blob's bytes. Used by one thread at a time."""

    def __init__(
        self, progress: Progress, action: str, digest: str, total_bytes: int, name: str = ""
    ) -> None:
        self._progress = progress
        self._action = action
        self._digest = digest
        self._total = total_bytes
        self._name = name
        self._last = 0.0

    def at(self, done_bytes: int) -> None:
        """Says where the transfer stands, unless it was said just before."""
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS and done_bytes < self._total:
            self._last = now
            self._say(done_bytes)

    def finished(self, kind: str) -> None:
        """Says that all bytes are there, and how they came to be (`Transfer.kind`)."""
        self._say(self._total, kind)

    def _say(self, done_bytes: int, kind: str = "") -> None:
        self._progress(
            Transfer(
                action=self._action,
                digest=self._digest,
                done_bytes=done_bytes,
                total_bytes=self._total,
                name=self._name,
                kind=kind,
            )
        )
