"""`GrowingUpload`: sends a blob while it is made, in parts; its digest is said with the last request.

`Registry.push_growing` calls it. The parts are as long as what is there when one begins, so a registry that
is slow gets fewer and longer ones, and no more than a piece is ever in memory. Nothing here is tried again:
whoever calls sends the whole blob once it is there, with all patience.
Source: OCI distribution-spec v1.1, "Pushing a blob in chunks".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlencode

from img.errors import DigestMismatch, RegistryError, StoreError
from img.oci.descriptor import Descriptor, is_digest
from img.oci.reference import Reference
from img.progress import Progress, Transfer
from img.registry.challenge import Scopes
from img.registry.endpoint import shown
from img.registry.stop import Stop
from img.registry.upload import PIECE_BYTES
from img.registry.wire import Wire
from img.values import dataclass

PART_BYTES = 8 << 20
"""The shortest part, but for the last one. A blob that is not longer is not sent in parts at all."""

MOST_BYTES = 64 << 20
"""The longest part: proxies have limits for one request."""

_END = re.compile(r"-(\d{1,18})\s*$")


class Growing(Protocol):
    """A blob that is being made. Safe for several threads."""

    diff_id: str

    def wait(self, offset: int, count: int) -> int | None:
        """Waits for `count` bytes from `offset` on, or the end; gives how many there are.

        Returns:
            0 at the end; None where the blob came to nothing.
        """

    def read(self, offset: int, count: int) -> bytes:
        """Reads what is there, without waiting."""

    def result(self) -> Descriptor:
        """Waits until it is whole, and says what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingUpload:
    """Where one blob goes, and who is told."""

    wire: Wire
    ref: Reference
    scopes: Scopes
    stop: Stop
    progress: Progress

    def open(self, url: str) -> tuple[str, int]:
        """Opens an upload; gives its address, and the shortest part that the registry takes.

        Raises:
            RegistryError, Retriable: it cannot be opened.
        """
        with self.wire.exchange(
            "POST", self.ref, url, what=self._what, ok=(202,), scopes=self.scopes, body=b""
        ) as reply:
            location = self.wire.resolve(reply.url, reply.headers.get("Location", ""), "POST")
            least = reply.headers.get("OCI-Chunk-Min-Length", "")
        return location, int(least) if least.isdecimal() and len(least) < 12 else 0

    def send(self, source: Growing, location: str, least: int) -> None:
        """Sends it to an upload that is open.

        Args:
            location: Address of the upload.
            least: The shortest part that the registry takes.
        Raises:
            RegistryError, Retriable: it does not take it so. Stopped. What `source.result` raises.
        """
        offset = 0
        while True:
            self.stop.check()
            there = source.wait(offset, max(PART_BYTES, least))
            if not there:
                break  # its end; or it failed, as its result says
            count = min(there, max(MOST_BYTES, least))
            location = self._part(source, location, offset, count)
            offset += count
        made = source.result()
        if made.size != offset:
            raise StoreError(f"{offset} bytes of a blob were sent that has {made.size}")
        self._close(location, made.digest)
        self._say(source, offset, offset, kind="sent")

    def _part(self, source: Growing, location: str, offset: int, count: int) -> str:
        """Sends bytes that are there; gives the address for the next ones."""
        end = offset + count - 1
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{end}"}
        body = _Part(self, source, offset, count)
        with self.wire.exchange(
            "PATCH",
            self.ref,
            location,
            what=self._what,
            ok=(201, 202, 204),
            scopes=self.scopes,
            headers=headers,
            body=body,
        ) as reply:
            stands = _END.search(reply.headers.get("Range", ""))
            if stands and int(stands[1]) != end:
                raise RegistryError(
                    f"{self.ref.registry} has {stands[1]} as the last byte of an upload, and not {end}",
                    method="PATCH",
                    url=shown(reply.url),
                )
            return self.wire.resolve(reply.url, reply.headers.get("Location", "") or location, "PATCH")

    def _close(self, location: str, digest: str) -> None:
        url = location + ("&" if "?" in location else "?") + urlencode({"digest": digest})
        with self.wire.exchange(
            "PUT", self.ref, url, what=self._what, ok=(201, 204), scopes=self.scopes, body=b""
        ) as reply:
            stored = reply.headers.get("Docker-Content-Digest", "")
        if is_digest(stored) and stored != digest:
            raise DigestMismatch("blob", digest, stored)

    @property
    def _what(self) -> str:
        return f"upload to {self.ref.familiar_name}"

    def drop(self, source: Growing) -> None:
        """Says that nothing comes of it."""
        self._say(source, 0, 0, kind="dropped")

    def _say(self, source: Growing, done: int, total: int, *, kind: str = "") -> None:
        name = self.ref.familiar
        self.progress(
            Transfer(
                action="push",
                digest=source.diff_id,
                done_bytes=done,
                total_bytes=total,
                name=name,
                kind=kind,
            )
        )


class _Part:
    """Some bytes of a blob as a request body that can be sent again."""

    def __init__(self, upload: GrowingUpload, source: Growing, offset: int, count: int) -> None:
        self._upload = upload
        self._source = source
        self._offset = offset
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        """Gives the pieces.

        Raises:
            StoreError: the file cannot be read. Stopped: the work was stopped.
        """
        sent = 0
        while sent < self._count:
            self._upload.stop.check()
            wanted = min(PIECE_BYTES, self._count - sent)
            try:
                piece = self._source.read(self._offset + sent, wanted)
            except OSError as error:  # the disk's, which the HTTP library would take for the network's
                raise StoreError(f"cannot read a blob that is to be pushed: {error.strerror}") from error
            if not piece:
                raise StoreError("a blob that is to be pushed became shorter")
            yield piece
            sent += len(piece)
        self._upload._say(self._source, self._offset + sent, 0)


__all__ = ["MOST_BYTES", "PART_BYTES", "Growing", "GrowingUpload"]
