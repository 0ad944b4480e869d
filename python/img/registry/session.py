"""`Session`: one blob's way into a repository: mounted, in parts that are resumed, or whole.

`Registry.push_blob` and `push_growing` make one for each blob and use it from one thread. What the registry
says of where an upload stands decides where it goes on: after a part that broke it is asked, and one that
forgot the upload gets a new one. Nothing that it says is believed beyond what was sent, and the digest that
closes an upload decides about the whole. Every wait is bounded: failures count until the registry has more of
the blob than it ever had.
Source: OCI distribution-spec v1.1, "Pushing a blob in chunks", "Pushing a blob monolithically", "Mounting a
blob from another repository".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

from img import regex
from img.errors import NotFound, RegistryError
from img.oci.reference import Reference
from img.registry.challenge import scopes_for
from img.registry.endpoint import shown
from img.registry.part_lengths import LEAST_BYTES, PartLengths
from img.registry.retry import Retriable
from img.registry.stop import Stop, Stopped
from img.registry.stored import check_stored
from img.registry.wire import Wire
from img.web.stretch import Stretch

if TYPE_CHECKING:
    from img.registry.transport import Reply

_STANDS = regex.compile(r"(?:bytes[= ])?0-(\d{1,18})")
_TAKEN = (200, 201, 202, 204)
_REFUSING = frozenset({400, 404, 405, 409, 411, 413, 415, 416, 422, 501})
"""Statuses that say of a part, or of an upload's end, that it is not to be had like this."""
_WANTING_PARTS = frozenset({405, 411, 413, 415, 501})
"""Statuses that say of a whole blob in one request that it is not to be had like this."""
_MOST_ODD = 2
"""Contradictions at one part that are put down to chance."""
_SPOILT = frozenset({"DIGEST_INVALID", "SIZE_INVALID", "BLOB_UPLOAD_INVALID"})


class Source(Protocol):
    """A blob that leaves, whole already or still being made. Any part may be read again."""

    def ready(self, offset: int, least: int, most: int) -> int:
        """Waits for `least` bytes from `offset` on, or the end; gives how many to send, 0 at the end."""

    def pieces(self, offset: int, count: int) -> Iterator[bytes | Stretch]:
        """Reads bytes that are there, in pieces, or names those of a file.

        Raises:
            StoreError: they cannot be read. Stopped: the work was stopped.
        """

    def digest(self) -> str:
        """What the blob is, once all of it was ready."""


class Part:
    """Some bytes of a source as a request's body, with a length, that can be sent again."""

    def __init__(self, source: Source, offset: int, count: int) -> None:
        self._source = source
        self._offset = offset
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes | Stretch]:
        return self._source.pieces(self._offset, self._count)


class PartsRefused(Exception):
    """The registry does not take a blob in parts, or not these ones; whole it may still be taken.

    Attributes:
        error: What it said.
    """

    def __init__(self, error: RegistryError) -> None:
        super().__init__(str(error))
        self.error = error


class Session:
    """One blob on its way to one repository. Used by one thread."""

    def __init__(self, wire: Wire, ref: Reference, *, what: str, stop: Stop) -> None:
        """Asks nothing yet.

        Args:
            what: The blob's name, for errors.
        """
        self._wire = wire
        self._ref = ref
        self._what = what
        self._stop = stop
        self._scopes = scopes_for(ref.repository, "pull", "push")
        self._location = ""  # of the upload that is open
        self._shortest = 0  # part that the registry takes
        self._offset = 0  # where the upload stands
        self._sent = 0  # where it can stand at most
        self._sure = True  # whether it stands there
        self._asked = False  # whether the registry was asked for that, and nothing was sent since
        self._odd = 0  # how often it has contradicted itself since it had more than ever
        self._reached = 0  # the most that any upload of this blob has ever come to
        self._closing = False  # whether the registry may have the blob by now

    # ---- without sending it -------------------------------------------------------------------

    def mount(self, digest: str, repository: str = "") -> bool:
        """Asks for a blob that the registry has elsewhere.

        Where it would rather have the bytes, an upload is open afterwards. A registry that refuses the
        question is no failure of the push.

        Args:
            repository: Where it may be; by default wherever the registry finds it.
        Raises:
            RegistryError: it does not answer. Stopped.
        """
        self.cancel()
        if repository:
            repository = self._wire.beside(self._ref, repository)
        query = {"mount": digest, **({"from": repository} if repository else {})}
        scopes = self._scopes | scopes_for(repository, "pull") if repository else self._scopes

        def attempt() -> bool:
            url = f"blobs/uploads/?{urlencode(query)}"
            with self._wire.exchange(
                "POST", self._ref, url, what=self._what, ok=(201, 202), scopes=scopes, body=b""
            ) as reply:
                if reply.status == 201:
                    self._check(reply, digest)
                    return True
                self._opened(reply)
                return False

        try:
            return self._wire.run(attempt, self._stop)
        except RegistryError as error:
            if not error.status:
                raise
            return False

    def check(self) -> None:
        """Asks whether blobs are taken here at all, by an upload that is given back at once.

        Raises:
            RegistryError: they are not. Stopped.
        """
        self._wire.run(self._open, self._stop)
        self.cancel()

    def cancel(self) -> None:
        """Gives an open upload back. Registries sweep old ones themselves, so a failure is no matter."""
        location, self._location = self._location, ""
        if location:
            try:
                ok = (200, 202, 204, 404, 405)
                self._exchange("DELETE", location, ok=ok).close()
            except (RegistryError, Retriable):
                pass

    def send(self, source: Source, size: int, *, part_bytes: int) -> bool:
        """Sends a blob: in one request where it is short, else in parts; the other way if need be.

        Returns:
            False where the registry turned out to take no parts.
        Raises:
            As `in_parts` and `whole`, but for `PartsRefused`.
        """
        if size > part_bytes:
            try:
                self.in_parts(source, part_bytes, part_bytes)
            except PartsRefused:
                self.whole(source, size)
                return False
            return True
        try:
            self.whole(source, size)
        except RegistryError as error:
            # A proxy on the way may have a limit for one request; others want parts, of which one will do.
            part = max(LEAST_BYTES, size // 2) if error.status == 413 else size
            if error.status not in _WANTING_PARTS or (error.status == 413 and size <= part):
                raise
            try:
                self.in_parts(source, part, part)
            except PartsRefused:
                raise error from None
        return True

    # ---- in parts -----------------------------------------------------------------------------

    def in_parts(self, source: Source, least: int, most: int) -> None:
        """Sends a blob in parts, each of which may break without costing the others.

        Args:
            least, most: How long parts are, where the registry takes them so; the last one may be shorter.
        Raises:
            PartsRefused: the registry does not take it so; the upload is given back.
            DigestMismatch: it stored something else.
            RegistryError: it takes it no further. Stopped. Whatever `source` raises.
        """
        try:
            self._in_parts(source, least, most)
        except (Stopped, KeyboardInterrupt):
            raise  # a registry that hangs must not be waited for now
        except BaseException as error:
            if not isinstance(error, RegistryError) or error.status:
                self.cancel()
            raise

    def _in_parts(self, source: Source, least: int, most: int) -> None:
        backoff, lengths = self._wire.backoff(self._stop), PartLengths(least, most)
        renewing = min(LEAST_BYTES, least)
        while True:
            self._stop.check()
            before = self._reached
            try:
                return self._go_on(source, lengths)
            except Retriable as fault:
                self._sure = False
                lengths.shorten()
                if self._reached - before >= renewing:
                    backoff.renew()
                backoff.wait(fault)

    def _go_on(self, source: Source, lengths: PartLengths) -> None:
        if self._closing and self._there(source.digest()):
            return None
        self._closing = False
        while True:
            if self._location and not self._sure:
                self._ask()
            if not self._location:
                self._open()
            self._stop.check()
            least, most = lengths.between(self._shortest)
            count = source.ready(self._offset, least, most)
            if not count:
                return self._close(source.digest())
            self._send(Part(source, self._offset, count), lengths)

    def _send(self, part: Part, lengths: PartLengths) -> None:
        offset, end = self._offset, self._offset + len(part)
        asked, self._asked, self._sent = self._asked, False, max(self._sent, end)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{end - 1}"}
        try:
            with self._exchange("PATCH", self._location, ok=_TAKEN, headers=headers, body=part) as reply:
                self._moved(reply)
                stands = _stands(reply)
        except RegistryError as error:
            self._sure = False
            if error.status == 413 and lengths.limit(len(part), self._shortest):
                return
            if self._reached and error.status in (404, 416):
                if error.status == 404 or asked:  # it forgot the upload, or contradicts itself
                    self._location = ""
                self._doubt(error)
                raise Retriable(error, cause=error) from error
            if error.status in _REFUSING:
                raise PartsRefused(error) from error
            raise
        if stands not in (None, end):
            text = f"{self._ref.registry} says that it has {stands} bytes of an upload, and not {end}"
            odd = RegistryError(text, method="PATCH", url=shown(reply.url), status=reply.status)
            self._doubt(odd)
            raise Retriable(odd)
        self._offset = end
        if end > self._reached:
            self._reached, self._odd = end, 0
        lengths.lengthen()

    def _doubt(self, error: RegistryError) -> None:
        """Notes that the registry contradicts itself or breaks, as some do that never got a second part.

        Raises:
            PartsRefused: it did so before, at the same part.
        """
        self._odd += 1
        if self._odd > _MOST_ODD:
            raise PartsRefused(error)

    def _ask(self) -> None:
        """Learns where the upload stands; one that the registry knows nothing right of is left."""
        try:
            with self._exchange("GET", self._location, ok=_TAKEN) as reply:
                stands = _stands(reply)
                self._moved(reply)
        except RegistryError as error:
            if error.status in (401, 403):
                raise
            if self._odd:  # it contradicts itself, and does not say where it stands
                raise PartsRefused(error) from error
            stands = None
        if stands is None or stands > self._sent:
            self.cancel()
            return
        self._offset, self._sure, self._asked = stands, True, True
        self._reached = max(self._reached, stands)

    def _close(self, digest: str) -> None:
        self._closing = True
        try:
            with self._exchange("PUT", _closed_by(self._location, digest), ok=_TAKEN, body=b"") as reply:
                self._check(reply, digest)
        except NotFound as gone:
            self._location = ""
            raise Retriable(gone, cause=gone) from gone
        except Retriable as fault:
            if fault.error.status == 500:  # its own fault, and not one of whatever stands before it
                self._doubt(fault.error)
            raise
        except RegistryError as error:
            if error.status in _REFUSING:
                raise PartsRefused(error) from error
            raise
        self._location = ""

    # ---- whole --------------------------------------------------------------------------------

    def whole(self, source: Source, size: int) -> None:
        """Sends a blob in one request; after a failure in the middle, again to a fresh upload.

        Raises:
            DigestMismatch: the registry stored something else.
            RegistryError: it does not take it. Stopped. Whatever `source` raises.
        """
        digest = source.digest()
        headers = {"Content-Type": "application/octet-stream"}
        spoilt = 0

        def attempt() -> None:
            nonlocal spoilt
            if self._closing and self._there(digest):
                return
            self._closing = False
            if not self._location:
                self._open()
            url, self._location = _closed_by(self._location, digest), ""
            self._closing = True
            body = Part(source, 0, size) if size else b""
            try:
                with self._exchange("PUT", url, ok=_TAKEN, headers=headers, body=body) as reply:
                    self._check(reply, digest)
            except NotFound as gone:  # the registry forgot the upload, as one does that was started anew
                raise Retriable(gone, cause=gone) from gone
            except RegistryError as error:
                spoilt += bool(_SPOILT.intersection(error.codes))
                if spoilt != 1:
                    raise
                raise Retriable(error, cause=error) from error  # bytes that changed on the way, once

        self._wire.run(attempt, self._stop)

    # ---- inside -------------------------------------------------------------------------------

    def _open(self) -> None:
        with self._exchange("POST", "blobs/uploads/", ok=(202,), body=b"") as reply:
            self._opened(reply)

    def _opened(self, reply: Reply) -> None:
        location = reply.headers.get("Location", "")
        if not location:
            raise RegistryError(
                f"{self._ref.registry} opens an upload without saying where",
                method="POST",
                url=shown(reply.url),
                status=reply.status,
            )
        self._location = self._wire.resolve(reply.url, location, "POST")
        least = reply.headers.get("OCI-Chunk-Min-Length", "")
        self._shortest = int(least) if least.isdecimal() and len(least) < 12 else 0
        self._offset = self._sent = 0
        self._sure, self._asked = True, False

    def _moved(self, reply: Reply) -> None:
        location = reply.headers.get("Location", "")
        if location:
            self._location = self._wire.resolve(reply.url, location, "PATCH")

    def _check(self, reply: Reply, digest: str) -> None:
        check_stored(reply, self._ref.registry, "blob", digest)

    def _there(self, digest: str) -> bool:
        """Tells whether the registry has the blob, after an upload whose end was not heard of."""
        with self._exchange("HEAD", f"blobs/{digest}", ok=(200, 404)) as reply:
            return reply.status == 200

    def _exchange(
        self,
        method: str,
        url: str,
        *,
        ok: tuple[int, ...],
        headers: dict[str, str] | None = None,
        body: Part | bytes | None = None,
    ) -> Reply:
        return self._wire.exchange(
            method, self._ref, url, what=self._what, ok=ok, scopes=self._scopes, headers=headers, body=body
        )


def _stands(reply: Reply) -> int | None:
    """How many bytes an upload has, as an answer says; None where it says nothing.

    `0-0` is what an upload that is empty has: an upload of one byte is not worth a part.
    """
    match = _STANDS.fullmatch(reply.headers.get("Range", "").strip())
    if not match:
        return None
    last = int(match[1])
    return last + 1 if last else 0


def _closed_by(location: str, digest: str) -> str:
    return location + ("&" if "?" in location else "?") + urlencode({"digest": digest})


__all__ = ["Part", "PartsRefused", "Session", "Source"]
