"""`FileSource`: a blob that is whole already, as an upload reads it, with progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from img.errors import SizeMismatch, StoreError
from img.oci.descriptor import Descriptor
from img.progress import Meter
from img.registry.stop import Stop

PIECE_BYTES = 256 << 10
"""What is handed to the network at once. It must be gone within one time-out, on a slow line as well."""


class FileSource:
    """Opens the blob anew for each part, and again where a part is sent again. See `session.Source`."""

    def __init__(
        self, open_blob: Callable[[], BinaryIO], descriptor: Descriptor, meter: Meter, stop: Stop
    ) -> None:
        self._open = open_blob
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._meter = meter
        self._stop = stop

    def ready(self, offset: int, least: int, most: int) -> int:
        """All that is left, and at most `most`."""
        return min(most, self._size - offset)

    def pieces(self, offset: int, count: int) -> Iterator[bytes]:
        """Reads a part.

        Raises:
            StoreError: the file cannot be read.
            SizeMismatch: it is longer or shorter than the descriptor says.
            Stopped: the work was stopped.
        """
        end = offset + count
        with _reading(self._open, offset) as file:
            while offset < end:
                self._stop.check()
                piece = _read(file, min(PIECE_BYTES, end - offset))
                if not piece:
                    raise SizeMismatch(self._size, offset)
                offset += len(piece)
                if offset == self._size and (more := len(_read(file, PIECE_BYTES))):
                    raise SizeMismatch(self._size, self._size + more)
                yield piece
                self._meter.at(offset)

    def digest(self) -> str:
        """The blob's digest."""
        return self._digest


def _reading(open_blob: Callable[[], BinaryIO], offset: int) -> BinaryIO:
    try:
        file = open_blob()
        if offset:
            file.seek(offset)
    except OSError as error:
        raise unreadable(error) from error
    return file


def _read(file: BinaryIO, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> StoreError:
    """The disk's failure, told apart from the network's, which the HTTP library also calls OSError."""
    name = f" ({error.filename})" if error.filename else ""
    return StoreError(f"cannot read a blob that is to be pushed: {error.strerror}{name}")
