"""`BlobStore`: content-addressed blobs in an OCI image layout.

A blob appears under its digest by rename, whole and verified, or not at all; it never changes
afterwards. Source: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from img import _core
from img.errors import BlobNotFound, DiskFull, InvalidDocument
from img.oci import Descriptor, sha256
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.oci.manifest import dump
from img.store.doubts import Doubts
from img.store.tokens import token

_SMALL_BYTES = 4 << 20
"""Manifests and configs are no larger."""
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""What `oci-layout` says."""


class BlobStore:
    """The blobs below one image layout; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Opens the layout at `root`, creating an empty valid one where there is none."""
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._doubts: Doubts | None = None
        if not (root / "index.json").exists():
            self._blobs.mkdir(parents=True, exist_ok=True)
            write_atomic(root / "oci-layout", LAYOUT)
            with self.index_lock():
                # Another process may have created it, and named an image in it, since we looked.
                if not (root / "index.json").exists():
                    write_atomic(root / "index.json", dump({"schemaVersion": 2, "manifests": []}))

    def distrust(self, doubts: Doubts) -> None:
        """Has blobs that are in doubt looked at before they are used."""
        self._doubts = doubts

    def look_at_small(self) -> bool:
        """Looks at all blobs in doubt that may be documents of images; tells whether one was lost."""
        if self._doubts is None:
            return False
        lost = False
        for digest in self._doubts.blobs():
            path = self.path(digest)
            there = path.exists()
            if not there or path.stat().st_size <= _SMALL_BYTES:
                self._look(digest)
                lost = lost or (there and not path.exists())
        return lost

    def _look(self, digest: str) -> None:
        if self._doubts is not None:
            self._doubts.blob(digest, self.path(digest))

    def renew_layout(self) -> None:
        """Writes the layout's own file again."""
        write_atomic(self.root / "oci-layout", LAYOUT)

    @contextmanager
    def index_lock(self) -> Iterator[None]:
        """Holds the lock under which `index.json` is written; every process takes it."""
        lock = os.open(self.root / ".index.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def path(self, digest: str) -> Path:
        """Where a blob stands, or would stand."""
        return self._blobs / digest.partition(":")[2]

    def has(self, digest: str) -> bool:
        """Tells whether a blob is here; a blob that is asked for counts as used now.

        Its use is its access time; its time of modification stays that at which it was written.
        """
        self._look(digest)
        path = self.path(digest)
        try:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            return False
        return True

    def read(self, digest: str) -> bytes:
        """Reads a small blob (a manifest or a config) whole.

        Raises:
            BlobNotFound: it is not here.
            InvalidDocument: it is larger than any of those; nothing was read.
        """
        self._look(digest)
        try:
            with self.path(digest).open("rb") as file:
                if os.fstat(file.fileno()).st_size > MAX_DOCUMENT_BYTES:
                    raise InvalidDocument(digest, f"longer than {MAX_DOCUMENT_BYTES} bytes")
                return file.read()
        except FileNotFoundError:
            raise BlobNotFound(digest) from None

    def open(self, digest: str) -> BinaryIO:
        """Opens a blob for reading.

        Raises:
            BlobNotFound: it is not here.
        """
        self._look(digest)
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise BlobNotFound(digest) from None

    def put(self, data: bytes) -> str:
        """Stores bytes in memory and gives their digest; storing them again changes nothing."""
        digest = sha256(data)
        if not self.has(digest):
            write_atomic(self.path(digest), data)
        return digest

    def sink(
        self, descriptor: Descriptor, *, extract_to: Path | None = None, diff_id: str | None = None
    ) -> _core.BlobSink:
        """Opens a verifying sink that publishes the blob, and extracts it on the way if asked."""
        return _core.BlobSink(
            str(self.path(descriptor.digest)),
            digest=descriptor.digest,
            size=descriptor.size,
            extract_to=str(extract_to) if extract_to else None,
            diff_id=diff_id,
        )

    def remove(self, digest: str) -> int:
        """Removes a blob and gives the bytes of disk that came back."""
        path = self.path(digest)
        try:
            freed = path.stat().st_blocks * 512
            path.unlink()
        except FileNotFoundError:
            return 0
        return freed

    def all(self) -> Iterator[tuple[str, os.stat_result]]:
        """Walks over all blobs: digest and stat. Temporary files of live writers are left out."""
        for entry in os.scandir(self._blobs):
            if len(entry.name) == 64:
                try:
                    yield f"sha256:{entry.name}", entry.stat()
                except FileNotFoundError:
                    continue

    def leftovers(self) -> Iterator[Path]:
        """Walks over files that are no blobs: what writers left, dead or alive."""
        for entry in os.scandir(self._blobs):
            if len(entry.name) != 64:
                yield Path(entry.path)


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a small file so that a reader sees the old one or the new one, never half of it.

    Raises:
        DiskFull: there is no space; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{token(4)}")
    try:
        temporary.write_bytes(data)
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(path)) from error
        raise
