"""A shared cache in a registry: one OCI manifest under a tag, in a repository of its own or an image's.

An image that was pushed with an inline cache can be read as well, and an index of such images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, cast

from img.cache.backend import Reach, Sink
from img.cache.index import MEDIA_TYPE, CacheIndex
from img.cache.manifest import document_of, manifest_of
from img.cache.spec import CacheSpec
from img.errors import (
    CacheError,
    DigestMismatch,
    ImgError,
    InvalidDocument,
    InvalidReference,
    NotFound,
    RegistryError,
    SizeMismatch,
    UsageError,
)
from img.oci import Descriptor, Manifest, Reference
from img.oci.descriptor import sha256

if TYPE_CHECKING:
    from img.registry import Registry, Stop
    from img.registry import Sink as RegistrySink

_MAX_MANIFESTS = 16


def open_backend(spec: CacheSpec, reach: Reach) -> RegistryCache:
    """Makes the backend; speaks to nothing yet.

    Raises:
        UsageError: `ref` is no reference, or names a digest to be written.
    """
    flag = f"--cache-{spec.use} {spec}"
    try:
        reference = Reference.parse(spec.attributes["ref"])
    except InvalidReference as error:
        raise UsageError(f"{flag}: {error}", hint=error.hint) from error
    if spec.use == "to" and reference.digest:
        raise UsageError(f"{flag} names a digest, which nothing can be written to", hint="use name:tag")
    return RegistryCache(spec, reference, reach)


class RegistryCache:
    """One reference in a registry. Safe for several threads."""

    def __init__(self, spec: CacheSpec, reference: Reference, reach: Reach) -> None:
        """Speaks to nothing yet."""
        from img.registry import Stop

        self._spec = spec
        self._reference = reference
        self._reach = reach
        self._stop: Stop = Stop()

    @property
    def _registry(self) -> Registry:
        return self._reach.registry()

    def read(self) -> bytes | None:
        """Reads the document under the reference, or those of an image that has an inline cache."""
        with self._faults(DigestMismatch, SizeMismatch):
            try:
                document = self._registry.manifest(self._reference)
            except NotFound:
                return None
            if isinstance(document, Manifest):
                return document_of(document, self._small)
            found = (self._inline(entry) for entry in document.manifests[:_MAX_MANIFESTS])
            parts = [part for part in found if part is not None]
            if not parts:
                raise InvalidDocument(self._reference.familiar, "it holds no cache that this img reads")
            return CacheIndex.joined(parts).to_bytes()

    def _inline(self, entry: Descriptor) -> CacheIndex | None:
        """What one image of an index holds; attestations and the like hold nothing."""
        manifest = self._registry.manifest(self._reference, entry.digest)
        if not isinstance(manifest, Manifest):
            return None
        try:
            return CacheIndex.from_bytes(document_of(manifest, self._small))
        except InvalidDocument:
            return None

    def _small(self, blob: Descriptor) -> bytes:
        sink = _Memory()
        self._registry.blob(self._reference, blob, cast("RegistrySink", sink), stop=self._stop)
        data = sink.data
        if len(data) != blob.size:
            raise SizeMismatch(blob.size, len(data))
        if sha256(data) != blob.digest:
            raise DigestMismatch("blob", blob.digest, sha256(data))
        return data

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        """Pushes the document, and then the manifest under the reference's tag."""
        config = Descriptor(media_type=MEDIA_TYPE, digest=sha256(document), size=len(document))
        manifest, small = manifest_of(config, blobs)
        with self._faults(DigestMismatch):
            self._put_small(config, document)
            for data in small:
                self._put_small(manifest.layers[0], data)
            self._registry.push_manifest(self._reference, manifest.raw, manifest.media_type)

    def _put_small(self, blob: Descriptor, data: bytes) -> None:
        self._registry.push_blob(self._reference, blob, lambda: BytesIO(data), stop=self._stop)

    def has(self, blob: Descriptor) -> bool:
        """Tells whether the repository has a blob."""
        with self._faults():
            return self._registry.has_blob(self._reference, blob, stop=self._stop)

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Mounts a blob from a repository of the same registry where it was seen, or sends it."""
        with self._faults(DigestMismatch, SizeMismatch):
            seen = [Reference.parse(name) for name in self._reach.sources(blob.digest)]
            near = [ref.repository for ref in seen if ref.registry == self._reference.registry]
            mounts = tuple(name for name in dict.fromkeys(near) if name != self._reference.repository)
            self._registry.push_blob(self._reference, blob, open_blob, mount_from=mounts, stop=self._stop)

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        """Fetches a blob; a broken connection is taken up where it ended, for a few times."""
        with self._faults():  # what the sink finds wrong goes on as it is
            counted = _Counted(sink)
            self._registry.blob(self._reference, blob, cast("RegistrySink", counted), stop=self._stop)

    def check(self, stop: Stop) -> None:
        """Asks whether the repository takes what is to be written, by an upload that is given back at once.

        Raises:
            CacheError: it does not, or cannot be reached. Stopped: `stop` was set.
        """
        try:
            self._registry.check_push(self._reference, stop=stop)
        except RegistryError as error:
            raise CacheError(str(self._spec), str(error), error.hint) from error

    def stop(self) -> None:
        """Ends all transfers soon."""
        self._stop.set()

    def close(self) -> None:
        """The registry's client belongs to whoever gave it."""

    @contextmanager
    def _faults(self, *more: type[ImgError]) -> Iterator[None]:
        """What a registry may answer, as errors of this cache."""
        from img.registry import Stopped

        kinds: tuple[type[ImgError], ...] = (RegistryError, InvalidDocument, *more)
        try:
            yield
        except Stopped as error:
            raise CacheError(str(self._spec), "it was stopped") from error
        except kinds as error:
            raise CacheError(str(self._spec), str(error), error.hint) from error


class _Counted:
    """A sink that says how much it has; finishing it is another's affair."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.offset = 0

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self.offset += len(data)


class _Memory:
    """Takes a small blob; how long it may be was looked at before."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.offset = 0

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self.offset += len(data)

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)
