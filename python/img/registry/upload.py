"""`FileSource`: a blob that is whole already, as an upload reads it, with progress.

Of one that is a file of its own, an upload only learns where its bytes are: see `img.web.stretch`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from img.errors import SizeMismatch, StoreError
from img.oci.descriptor import Descriptor
from img.progress import Meter
from img.registry.stop import Stop
from img.web.stretch import Stretch

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

    def pieces(self, offset: int, count: int) -> Iterator[bytes | Stretch]:
        """Reads a part, or names the bytes of a file that lies on the disk: they need not be read here.

        Raises:
            StoreError: the file cannot be read.
            SizeMismatch: it is longer or shorter than the descriptor says.
            Stopped: the work was stopped.
        """
        end = offset + count
        with _reading(self._open, offset) as file:
            piece_of = self._stretch if _on_disk(file) else self._piece
            while offset < end:
                self._stop.check()
                piece = piece_of(file, offset, min(PIECE_BYTES, end - offset))
                offset += len(piece)
                yield piece
                self._meter.at(offset)

    def _piece(self, file: BinaryIO, offset: int, count: int) -> bytes:
        piece = _read(file, count)
        if not piece:
            raise SizeMismatch(self._size, offset)
        end = offset + len(piece)
        if end == self._size and (more := len(_read(file, PIECE_BYTES))):
            raise SizeMismatch(self._size, end + more)
        return piece

    def _stretch(self, file: BinaryIO, offset: int, count: int) -> Stretch:
        size = os.fstat(file.fileno()).st_size
        if size != self._size:
            raise SizeMismatch(self._size, size)

        def read(at: int, most: int) -> bytes:
            try:
                piece = os.pread(file.fileno(), most, at)
            except OSError as error:
                raise unreadable(error) from error
            if not piece:
                raise SizeMismatch(self._size, at)
            return piece

        return Stretch(file=file.fileno(), offset=offset, count=count, read=read)

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


def _on_disk(file: BinaryIO) -> bool:
    """Tells whether it is a file whose bytes the kernel can send, and no stand-in for one."""
    return isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO)


def _read(file: BinaryIO, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> StoreError:
    """The disk's failure, told apart from the network's, which the HTTP library also calls OSError."""
    name = f" ({error.filename})" if error.filename else ""
    return StoreError(f"cannot read a blob that is to be pushed: {error.strerror}{name}")
