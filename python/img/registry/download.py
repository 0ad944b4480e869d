"""`Download`: brings one blob into a `Sink`, over as many connections as it takes.

A broken connection is resumed with Range from where the sink stands; where a registry knows no ranges,
what is there already is read over. Whatever the pieces came from, the sink's digest decides about the whole.
Source: distribution-spec v1.1, "Pulling blobs"; RFC 9110, section 14.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from img import regex
from img.errors import SizeMismatch
from img.oci.descriptor import Descriptor
from img.progress import Meter
from img.registry.retry import Backoff, Retriable
from img.registry.stop import Stop
from img.web.abandon import abandonable

if TYPE_CHECKING:
    from img.registry.transport import Reply

PIECE_BYTES = 1 << 20
_LEAST_PIECE_BYTES = 16 << 10
_FAST_SECONDS, _SLOW_SECONDS = 0.05, 0.2
_CONTENT_RANGE = regex.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Sink(Protocol):
    """Takes one blob's bytes, in order, from one thread, and verifies them."""

    @property
    def offset(self) -> int:
        """Bytes taken so far."""

    def write(self, data: bytes) -> None:
        """Takes the next bytes. May raise what it finds wrong with them."""

    def finish(self) -> object:
        """Ends the blob; raises where digest or size are wrong. Only then does the blob exist."""

    def abort(self) -> None:
        """Gives the blob up; nothing is left. May be called twice."""


Ask = Callable[[dict[str, str]], "Reply"]
"""Asks for the blob with further headers; the answer's status is 200, 206 or 416."""


class Download:
    """One blob on its way. `run` may be called once."""

    def __init__(self, descriptor: Descriptor, sink: Sink, ask: Ask, meter: Meter, stop: Stop) -> None:
        self._size = descriptor.size
        self._sink = sink
        self._ask = ask
        self._meter = meter
        self._stop = stop
        self._ranges = True
        self._piece = 64 << 10

    def run(self, backoff: Backoff) -> None:
        """Fills the sink with the blob's bytes, and does not finish it.

        Raises:
            SizeMismatch: the registry has a blob of another size.
            RegistryError: no attempt brought it further.
            Stopped: the work was stopped.
            Whatever `sink.write` raises.
        """
        renewing = max(1, min(PIECE_BYTES, self._size // 20))
        first = True
        while first or self._sink.offset < self._size:
            self._stop.check()
            first, before = False, self._sink.offset
            try:
                self._attempt()
            except Retriable as fault:
                # An attempt that moved on is no failure; one that only drips counts, so that this ends.
                if self._sink.offset - before >= renewing:
                    backoff.renew()
                backoff.wait(fault)
        self._meter.finished("fetched")

    def _attempt(self) -> None:
        offset = self._sink.offset
        ranged = self._ranges and offset > 0
        headers = {"Range": f"bytes={offset}-{self._size - 1}"} if ranged else {}
        with abandonable(self._stop.calling):
            reply = self._ask(headers)
        with reply, self._stop.calling(reply.shutdown):
            if ranged and not self._resumes(reply, offset):
                self._ranges = False
                if reply.status != 200:
                    return  # asked again, without Range
            whole = reply.status == 200
            expected = self._size if whole else self._size - offset
            if reply.length is not None and reply.length != expected:
                raise SizeMismatch(self._size, reply.length + (0 if whole else offset))
            if whole:
                self._skip(reply, offset)
            self._pour(reply)

    def _resumes(self, reply: Reply, offset: int) -> bool:
        """Tells whether an answer is the part that was asked for."""
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        if reply.status != 206 or not match:
            return False
        start, end, total = match.groups()
        return (int(start), int(end)) == (offset, self._size - 1) and total in ("*", str(self._size))

    def _skip(self, reply: Reply, count: int) -> None:
        """Reads over what the sink has already."""
        while count:
            self._stop.check()
            piece = reply.read(min(PIECE_BYTES, count))
            if not piece:
                raise reply.ended_early()
            count -= len(piece)

    def _pour(self, reply: Reply) -> None:
        """Moves the body into the sink; one byte too many is found without being taken."""
        from time import monotonic

        sink = self._sink
        while (left := self._size - sink.offset) > 0:
            started = monotonic()
            piece = reply.read(min(self._piece, left))
            self._stop.check()
            if not piece:
                raise reply.ended_early()
            sink.write(piece)
            self._meter.at(sink.offset)
            self._adapt(monotonic() - started)
        if reply.read(1):
            raise SizeMismatch(self._size, self._size + 1)

    def _adapt(self, seconds: float) -> None:
        """Large pieces where the network is fast, small ones where progress would stutter."""
        if seconds < _FAST_SECONDS:
            self._piece = min(self._piece * 2, PIECE_BYTES)
        elif seconds > _SLOW_SECONDS:
            self._piece = max(self._piece // 2, _LEAST_PIECE_BYTES)
