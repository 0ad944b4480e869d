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
        self._pipe: _Pipe | None = None
        self._whole: bytes | None = None

    def open(self) -> BinaryIO:
        """Opens the blob at its start; what was opened before is closed."""
        if self._blob.size <= SMALL_BYTES:
            if self._whole is None:
                self._whole = read_small(self._source, self._blob, self._stop)
            return io.BytesIO(self._whole)
        self.close()
        self._pipe = _Pipe(self._source, self._blob, self._stop)
        return cast(BinaryIO, self._pipe)

    def close(self) -> None:
        """Ends the reading; its thread has ended when this returns."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


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


class _Pipe(Verifying):
    """Both ends: the sink that the thread fills, and the file that is read.

    The last piece is held back until the digest is known to be right: a reader never gets the whole of a blob
    that is wrong.
    """

    def __init__(self, source: Pours, blob: Descriptor, stop: Stop) -> None:
        super().__init__(blob)
        self._pieces: deque[bytes] = deque()
        self._rest = b""
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
                source.pour(self.blob, self, stop=self._halt, progress=silent)
                self.finish()
        except BaseException as caught:  # noqa: BLE001 - carried to the reader, and raised there
            error = caught
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def write(self, data: bytes) -> None:
        """Takes the next piece, and waits for room."""
        self.take(data)
        self._put(self._last)
        self._last = data

    def finish(self) -> None:
        """Lets the last piece go."""
        self.check()
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

    def read(self, count: int = -1) -> bytes:
        """Gives the next bytes, at most `count`; none at the end.

        Raises:
            What went wrong with reading the source; DigestMismatch, SizeMismatch.
        """
        with self._changed:
            while not self._rest and not self._pieces and not self._over:
                self._changed.wait()
            if not self._rest and self._pieces:
                self._rest = self._pieces.popleft()
                self._changed.notify_all()
            elif not self._rest and self._error is not None:
                raise self._error
        if count < 0 or count >= len(self._rest):
            piece, self._rest = self._rest, b""
        else:
            piece, self._rest = self._rest[:count], self._rest[count:]
        return piece

    def close(self) -> None:
        """Ends the thread."""
        self._halt.set()
        self._link.close()
        self._thread.join()
        self._pieces.clear()
        self._rest = self._last = b""

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
