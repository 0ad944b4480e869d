"""A shared cache in a folder: an OCI image layout, whose index names one manifest for each tag.

Several builds may write the folder at once. `reset=true` leaves only what this build wrote.
Source: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from img.cache.backend import Reach, Sink
from img.cache.index import MAX_INDEX_BYTES, MEDIA_TYPE
from img.cache.manifest import document_of, manifest_of
from img.cache.spec import CacheSpec
from img.errors import CacheError, DiskFull, InvalidDocument, UsageError
from img.oci import Descriptor, Index, Manifest, parse
from img.oci.descriptor import MAX_DOCUMENT_BYTES, OCI_INDEX, is_digest, sha256
from img.oci.manifest import dump
from img.store.blobs import write_atomic

_PIECE_BYTES = 1 << 20
_TAG = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def open_backend(spec: CacheSpec, reach: Reach) -> LocalCache:
    """Makes the backend; touches no disk.

    Raises:
        UsageError: `digest` is none.
    """
    digest = spec.attributes.get("digest", "")
    if digest and not is_digest(digest):
        hint = "write sha256: and 64 hexadecimal digits"
        raise UsageError(f"--cache-from {spec}: {digest!r} is no digest", hint=hint)
    folder = spec.attributes["dest" if spec.use == "to" else "src"]
    return LocalCache(
        spec,
        Path(folder),
        tag=spec.attributes.get("tag") or "latest",
        digest=digest,
        reset=spec.attributes.get("reset") == "true",
    )


class LocalCache:
    """One tag of one layout. Safe for several threads, and several processes."""

    def __init__(
        self, spec: CacheSpec, folder: Path, *, tag: str = "latest", digest: str = "", reset: bool = False
    ) -> None:
        """Touches no disk.

        Args:
            digest: Of the manifest that is read, whatever its tag; empty for the tag's.
            reset: `write` removes everything that its document does not name.
        """
        self._spec = spec
        self._folder = folder
        self._tag = tag
        self._digest = digest
        self._reset = reset
        self._stop = threading.Event()

    # ---- documents ---------------------------------------------------------------------------

    def read(self) -> bytes | None:
        """Reads the document of the tag, or of the manifest that `digest` names."""
        with self._faults():
            entry = self._entry()
            if entry is None:
                return None
            raw = self._bytes(entry, MAX_DOCUMENT_BYTES)
            document = parse(raw, entry.media_type, where=entry.digest)
            if not isinstance(document, Manifest):
                raise InvalidDocument(entry.digest, "it is an index, and no cache")
            return document_of(document, lambda blob: self._bytes(blob, MAX_INDEX_BYTES))

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        """Replaces the document of the tag; the other tags stay as they are, unless with `reset`."""
        with self._faults():
            config = Descriptor(media_type=MEDIA_TYPE, digest=sha256(document), size=len(document))
            manifest, small = manifest_of(config, blobs)
            for data in (document, manifest.raw, *small):
                self._put(sha256(data), data)
            with self._lock():
                entry = {**manifest.descriptor.to_json(), "annotations": {_TAG: self._tag}}
                kept = [] if self._reset else self._others()
                write_atomic(self._folder / "oci-layout", _LAYOUT)
                index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, entry]}
                write_atomic(self._folder / "index.json", dump(index))
                if self._reset:
                    named = (manifest.config, manifest.descriptor, *manifest.layers)
                    self._remove_others({blob.digest for blob in named})

    def _index(self) -> Index | None:
        try:
            raw = _read(self._folder / "index.json", MAX_DOCUMENT_BYTES)
        except FileNotFoundError:
            return None
        index = parse(raw, OCI_INDEX, where="index.json")
        if not isinstance(index, Index):
            raise InvalidDocument("index.json", "it is not an index")
        return index

    def _entry(self) -> Descriptor | None:
        index = self._index()
        if self._digest:
            path = self._path(self._digest)
            if not path.is_file():
                return None
            known = {entry.digest: entry for entry in index.manifests} if index else {}
            unlisted = Descriptor(media_type="", digest=self._digest, size=path.stat().st_size)
            return known.get(self._digest, unlisted)
        entries = index.manifests if index else ()
        return next((e for e in entries if e.annotations.get(_TAG) == self._tag), None)

    def _others(self) -> list[dict[str, object]]:
        """What the index names beside this tag."""
        index = self._index()
        entries = index.manifests if index else ()
        return [entry.to_json() for entry in entries if entry.annotations.get(_TAG) != self._tag]

    def _remove_others(self, kept: set[str]) -> None:
        for path in self._blobs.iterdir():
            if f"sha256:{path.name}" not in kept and path.is_file():
                path.unlink(missing_ok=True)

    # ---- blobs -------------------------------------------------------------------------------

    def has(self, blob: Descriptor) -> bool:
        """Tells whether a whole blob is there."""
        with self._faults():
            try:
                found = self._path(blob.digest).stat()
            except FileNotFoundError:
                return False
            return stat.S_ISREG(found.st_mode) and found.st_size == blob.size

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Copies a blob into the layout, beside its place and then in it."""
        if self.has(blob):
            return
        with self._faults():
            self._blobs.mkdir(parents=True, exist_ok=True)
            partial = self._blobs / f".{blob.hex[:16]}.{secrets.token_hex(4)}"
            try:
                with open_blob() as source, partial.open("xb") as target:
                    while piece := source.read(_PIECE_BYTES):
                        self._check()
                        target.write(piece)
                partial.rename(self._path(blob.digest))
            finally:
                partial.unlink(missing_ok=True)

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        """Reads a blob into a sink."""
        with self._faults():
            file = self._open(blob.digest)
        with file:
            while True:
                with self._faults():
                    self._check()
                    piece = file.read(_PIECE_BYTES)
                if not piece:
                    return
                sink.write(piece)

    def stop(self) -> None:
        """Ends copies soon."""
        self._stop.set()

    def close(self) -> None:
        """There is nothing to let go of."""

    @property
    def _blobs(self) -> Path:
        return self._folder / "blobs" / "sha256"

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.partition(":")[2]

    def _open(self, digest: str) -> BinaryIO:
        path = self._path(digest)
        if not path.is_file():  # nor a pipe, whose opening would wait
            raise CacheError(str(self._spec), f"the blob {digest} is missing")
        return path.open("rb")

    def _put(self, digest: str, data: bytes) -> None:
        self._blobs.mkdir(parents=True, exist_ok=True)
        if not self._path(digest).is_file():
            write_atomic(self._path(digest), data)

    def _bytes(self, blob: Descriptor, limit: int) -> bytes:
        """A small blob, verified."""
        self._open(blob.digest).close()
        raw = _read(self._path(blob.digest), limit)
        if sha256(raw) != blob.digest:
            raise InvalidDocument(blob.digest, "the blob has other bytes than its name says")
        return raw

    def _check(self) -> None:
        if self._stop.is_set():
            raise CacheError(str(self._spec), "it was stopped")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time changes the index."""
        lock = os.open(self._folder / ".index.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What the disk and its documents may have, as errors of this cache."""
        try:
            yield
        except OSError as error:
            hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            place = error.filename or self._folder
            raise CacheError(str(self._spec), f"{place}: {error.strerror}", hint) from error
        except (InvalidDocument, DiskFull) as error:
            raise CacheError(str(self._spec), str(error)) from error


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise InvalidDocument(path.name, f"longer than {limit} bytes")
    return raw
