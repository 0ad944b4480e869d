"""`GrowingSource`: a blob while it is made, as an upload reads it; its digest is said with the last request.

`Registry.push_growing` makes it. The parts are as long as what is there when one begins, so a registry that
is slow gets fewer and longer ones, and no more than a piece is ever in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from img.errors import StoreError
from img.oci.descriptor import Descriptor
from img.progress import Progress, Transfer
from img.registry.stop import Stop
from img.registry.upload import PIECE_BYTES, unreadable

_EVERY_SECONDS = 0.1
"""How often it is said how far a blob came."""

PART_BYTES = 8 << 20
"""The shortest part, but for the last one. A blob that is not longer is not sent in parts at all."""

MOST_BYTES = 64 << 20
"""The longest part: proxies have limits for one request."""


class Growing(Protocol):
    """A blob that is being made. Safe for several threads."""

    diff_id: str

    @property
    def tar(self) -> tuple[int, int, int]:
        """How many bytes of the blob there are, of its tar in those, and of the whole tar (0: unknown)."""

    def wait(self, offset: int, count: int) -> int | None:
        """Waits for `count` bytes from `offset` on, or the end; gives how many there are.

        Returns:
            0 at the end; None where the blob came to nothing.
        """

    def read(self, offset: int, count: int) -> bytes:
        """Reads what is there, without waiting."""

    def result(self) -> Descriptor:
        """Waits until it is whole, and says what it is."""


class GrowingSource:
    """Reads what is there, and tells how far it came. See `session.Source`."""

    def __init__(self, growing: Growing, progress: Progress, stop: Stop, name: str) -> None:
        """Reads nothing yet. `name`: the image's, for events."""
        self._growing = growing
        self._name = name
        self._progress = progress
        self._stop = stop
        self._reached = 0
        self._told = 0.0

    def ready(self, offset: int, least: int, most: int) -> int:
        """Waits for a part. Nothing is ready any more of a blob that came to nothing: `digest` raises why."""
        return min(most, self._growing.wait(offset, least) or 0)

    def pieces(self, offset: int, count: int) -> Iterator[bytes]:
        """Reads a part.

        Raises:
            StoreError: the file cannot be read. Stopped: the work was stopped.
        """
        end = offset + count
        while offset < end:
            self._stop.check()
            try:
                piece = self._growing.read(offset, min(PIECE_BYTES, end - offset))
            except OSError as error:
                raise unreadable(error) from error
            if not piece:
                raise StoreError("a blob that is to be pushed became shorter")
            yield piece
            offset += len(piece)
            now = time.monotonic()
            if now - self._told >= _EVERY_SECONDS:
                self._told = now
                self._say(offset)
        self._reached = max(self._reached, end)

    def digest(self) -> str:
        """Waits until the blob is whole.

        Raises:
            StoreError: another number of bytes was read. Whatever `Growing.result` raises.
        """
        made = self._growing.result()
        if made.size != self._reached:
            raise StoreError(f"{self._reached} bytes of a blob were sent that has {made.size}")
        return made.digest

    def finished(self) -> None:
        """Says that all of it is there."""
        self._say(self._reached, kind="sent", total=self._reached)

    def drop(self) -> None:
        """Says that nothing comes of it: whoever shows it need not any more."""
        self._reached = 0
        self._say(0, kind="dropped")

    def _say(self, done: int, *, kind: str = "", total: int = 0) -> None:
        made, held, whole = self._growing.tar
        self._progress(
            Transfer(
                action="push",
                digest=self._growing.diff_id,
                done_bytes=done,
                total_bytes=total,
                name=self._name,
                kind=kind,
                tar_done_bytes=held * done // made if made and whole else 0,
                tar_total_bytes=whole,
            )
        )


__all__ = ["MOST_BYTES", "PART_BYTES", "Growing", "GrowingSource"]
