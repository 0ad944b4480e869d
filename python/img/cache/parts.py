"""`Parts`: a blob cut into what one request of an upload carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from img.errors import SizeMismatch, StoreError
from img.oci import Descriptor

PART_BYTES = 8 << 20
"""What one request carries; more where a blob would have too many parts."""
_MOST_PARTS = 9000
"""S3 takes 10,000, Azure 50,000."""


class Parts:
    """The parts of a blob, read one after the other by one thread."""

    def __init__(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Opens the blob; `close` it.

        Raises:
            StoreError: it cannot be opened.
        """
        self._blob = blob
        self._part = part_bytes(blob.size)
        self._read = 0
        try:
            self._file = open_blob()
        except OSError as error:
            raise _unreadable(error) from error

    def next(self) -> bytes:
        """The next part; empty at the end.

        Raises:
            StoreError: the file cannot be read.
            SizeMismatch: it is longer or shorter than the descriptor says.
        """
        pieces: list[bytes] = []
        left = self._part
        try:
            while left and (piece := self._file.read(left)):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            raise _unreadable(error) from error
        data = b"".join(pieces)
        self._read += len(data)
        if self._read > self._blob.size or (left and self._read != self._blob.size):
            raise SizeMismatch(self._blob.size, self._read)
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def part_bytes(size: int) -> int:
    """How long every part but the last is, for a blob of a size."""
    return max(PART_BYTES, -(-size // _MOST_PARTS))


def in_one_part(size: int) -> bool:
    """Tells whether a blob of this size has one part."""
    return size <= PART_BYTES


def _unreadable(error: OSError) -> StoreError:
    name = f" ({error.filename})" if error.filename else ""
    return StoreError(f"cannot read a blob that is to be shared: {error.strerror}{name}")
