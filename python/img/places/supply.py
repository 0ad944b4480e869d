"""`Supply`: a blob of one place as the file that another place reads, verified before its end is handed out.

What is read comes from a thread of its own, which is at most some pieces ahead: memory does not grow with the
blob, and whoever is slower sets the pace. Small blobs are read whole. A blob may be opened again: a registry
that broke off an upload wants it once more, and what the source had given is then asked for again.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO, Protocol, cast

from img.errors import DigestMismatch, InvalidDocument, SizeMismatch
from img.oci import Descriptor
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.progress import Progress, silent
from img.registry import Sink, Stop

PIECES_AHEAD = 4
"""Pieces of at most 1 MiB (`registry.download.PIECE_BYTES`) that wait to be read."""

SMALL_BYTES = 256 << 10
"""What is no longer is read into memory, without a thread."""


class Pours(Protocol):
    """What a supply needs of a source: `place.Source`."""

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None: ...


class Verifying:
    """The part of a sink that hashes and counts. Used by one thread."""

    def __init__(self, blob: Descriptor) -> None:
        self.blob = blob
        self.offset = 0
        self._hash = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Counts the next bytes.

        Raises:
            SizeMismatch: there are too many.
        """
        self.offset += len(data)
        if self.offset > self.blob.size:
            raise SizeMismatch(self.blob.size, self.offset)
        self._hash.update(data)

    def check(self) -> None:
        """Ends it.

        Raises:
            SizeMismatch, DigestMismatch: it was not what the descriptor says.
        """
        if self.offset != self.blob.size:
            raise SizeMismatch(self.blob.size, self.offset)
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != self.blob.digest:
            raise DigestMismatch("blob", self.blob.digest, actual)


class Supply:
    """One blob that is sent somewhere. Used by one thread; `close` it, whatever happens."""

    def __init__(self, source: Pours, blob: Descriptor, stop: Stop) -> None:
        self._source = source
        self._blob = blob
        self._stop = stop
        self._verified = Verifying(blob)
        self._pipe: _Pipe | None = None
        self._whole: bytes | None = None

    def open(self) -> BinaryIO:
        """Opens the blob at its start. It may be sought in before it is read, as uploads in parts do."""
        if self._blob.size <= SMALL_BYTES:
            if self._whole is None:
                self._whole = read_small(self._source, self._blob, self._stop)
            return io.BytesIO(self._whole)
        return cast(BinaryIO, _Opened(self._at))

    def _at(self, offset: int) -> _Pipe:
        """The pipe that gives what is from `offset` on: the one there is, where it stands there."""
        if self._pipe is not None and self._pipe.position != offset:
            self.close()
        if self._pipe is None:
            self._pipe = _Pipe(self._source, self._verified, offset, self._stop)
        return self._pipe

    def close(self) -> None:
        """Ends the reading; its thread has ended when this returns."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class _Opened:
    """A blob as a file: from where it was sought to on."""

    def __init__(self, pipe_at: Callable[[int], _Pipe]) -> None:
        self._pipe_at = pipe_at
        self._offset = 0

    def seek(self, offset: int) -> int:
        self._offset = offset
        return offset

    def read(self, count: int) -> bytes:
        piece = self._pipe_at(self._offset).read(count)
        self._offset += len(piece)
        return piece

    def close(self) -> None:
        """The pipe stays: what follows may be wanted next."""

    def __enter__(self) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Memory(Verifying):
    """A sink for a small blob."""

    def __init__(self, blob: Descriptor) -> None:
        super().__init__(blob)
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.take(data)
        self._pieces.append(data)

    def finish(self) -> bytes:
        self.check()
        return b"".join(self._pieces)

    def abort(self) -> None:
        self._pieces.clear()


def read_small(source: Pours, blob: Descriptor, stop: Stop) -> bytes:
    """Reads a small blob, verified.

    Raises:
        InvalidDocument: it is longer than any document.
    """
    if blob.size > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(f"blob {blob.digest}", f"longer than {MAX_DOCUMENT_BYTES} bytes")
    sink = _Memory(blob)
    source.pour(blob, sink, stop=stop, progress=silent)
    return sink.finish()


class _Pipe:
    """Both ends: the sink that the thread fills, and what is read from.

    The last piece is held back until the digest is known to be right: a reader never gets the whole of a blob
    that is wrong.
    """

    def __init__(self, source: Pours, verified: Verifying, offset: int, stop: Stop) -> None:
        self.offset = offset
        self.position = offset
        self._verified = verified
        self._pieces: deque[bytes] = deque()
        self._piece, self._read = b"", 0
        self._last = b""
        self._over = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._halt = Stop()
        self._link = ExitStack()
        self._link.enter_context(stop.calling(self._halt.set))
        self._thread = threading.Thread(target=self._feed, args=(source,), daemon=True)
        self._thread.start()

    # ---- the thread's end ----------------------------------------------------------------------

    def _feed(self, source: Pours) -> None:
        error: BaseException | None = None
        try:
            with self._halt.calling(self._wake):
                source.pour(self._verified.blob, self, stop=self._halt, progress=silent)
                self.finish()
        except BaseException as caught:  # noqa: BLE001 - carried to the reader, and raised there
            error = caught
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def write(self, data: bytes) -> None:
        """Takes the next piece, and waits for room. What was hashed before is not hashed again."""
        known = self._verified.offset - self.offset
        self.offset += len(data)
        if known < len(data):
            self._verified.take(data[known:] if known > 0 else data)
        self._put(self._last)
        self._last = data

    def finish(self) -> None:
        """Lets the last piece go."""
        self._verified.check()
        self._put(self._last)

    def abort(self) -> None:
        """Drops what waits."""
        self._pieces.clear()

    def _put(self, piece: bytes) -> None:
        with self._changed:
            while len(self._pieces) >= PIECES_AHEAD and not self._halt.is_set:
                self._changed.wait()
            self._halt.check()
            if piece:
                self._pieces.append(piece)
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # ---- the reader's end ----------------------------------------------------------------------

    def read(self, count: int) -> bytes:
        """Gives the next bytes, at most `count`; none at the end.

        Raises:
            What went wrong with reading the source; DigestMismatch, SizeMismatch.
        """
        if self._read == len(self._piece):
            self._piece, self._read = self._next(), 0
        piece = self._piece[self._read : self._read + count]
        self._read += len(piece)
        self.position += len(piece)
        return piece

    def _next(self) -> bytes:
        with self._changed:
            while not self._pieces and not self._over:
                self._changed.wait()
            if self._pieces:
                self._changed.notify_all()
                return self._pieces.popleft()
            if self._error is not None:
                raise self._error
            return b""

    def close(self) -> None:
        """Ends the thread."""
        self._halt.set()
        self._link.close()
        self._thread.join()
        self._pieces.clear()
        self._piece = self._last = b""
        self._read = 0
