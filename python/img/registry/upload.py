"""`FileBody`: a blob's bytes as a request body that can be sent again, with progress.

It has a length and gives large pieces, so that the HTTP library sends them as they are, unchunked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from img.errors import SizeMismatch, StoreError
from img.registry.meter import Meter
from img.registry.stop import Stop

PIECE_BYTES = 1 << 20


class FileBody:
    """Opens the blob anew for each time it is sent."""

    def __init__(self, open_blob: Callable[[], BinaryIO], size: int, meter: Meter, stop: Stop) -> None:
        self._open = open_blob
        self._size = size
        self._meter = meter
        self._stop = stop

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Gives the pieces.

        Raises:
            StoreError: the file cannot be read.
            SizeMismatch: the file is longer or shorter than the descriptor says.
            Stopped: the work was stopped.
        """
        sent = 0
        with _reading(self._open) as file:
            while piece := _read(file):
                self._stop.check()
                if sent + len(piece) > self._size:
                    raise SizeMismatch(self._size, sent + len(piece))
                yield piece
                sent += len(piece)
                self._meter.at(sent)
        if sent != self._size:
            raise SizeMismatch(self._size, sent)


def _reading(open_blob: Callable[[], BinaryIO]) -> BinaryIO:
    try:
        return open_blob()
    except OSError as error:
        raise _unreadable(error) from error


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(PIECE_BYTES)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> StoreError:
    """The disk's failure, told apart from the network's, which the HTTP library also calls OSError."""
    name = f" ({error.filename})" if error.filename else ""
    return StoreError(f"cannot read a blob that is to be pushed: {error.strerror}{name}")
