"""`Source` and `Target`: what a place where images are can do, whatever kind of place it is.

Both speak of documents (manifests, and indexes of them), kept byte for byte, and of blobs, which are poured
from one into the other. A target shows nothing under a name before `finish`, and nothing of it is left after
`abort` but blobs that are whole. Every method but `begin`, `finish`, `abort` and `close` may be called from
several threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from img.errors import DigestMismatch, InvalidDocument
from img.oci import Descriptor, Index, Manifest, Reference, parse, sha256
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.progress import Progress
from img.registry import Sink, Stop, Upload
from img.values import dataclass, field

Document = Manifest | Index

REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
"""Annotations by which an index names its images. The second one is what containerd and docker write."""


COSIGN = (".sig", ".att", ".sbom")
"""What cosign puts behind `sha256-DIGITS` for the tags of what it says about an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A document that is about another one.

    Attributes:
        tag: What it is found by; empty where its `subject` says what it is about.
    """

    document: Document
    tag: str = ""


class Source(Protocol):
    """One image that is read."""

    where: str
    """The place, for people."""

    verbatim: bool
    """Whether the documents are the place's own, byte for byte; docker's archives have none."""

    def homes(self, digest: str) -> Sequence[Reference]:
        """Repositories of registries that have a blob: others there can mount it."""

    @property
    def names(self) -> tuple[Reference, ...]:
        """Full names that the place gives the image, where it does."""

    def root(self) -> Document:
        """What the place has under the name: a manifest, or an index.

        Raises:
            NotFound, InvalidDocument, RegistryError: there is none, or it is none.
        """

    def document(self, descriptor: Descriptor) -> Document:
        """A document that another one names.

        Raises:
            As `root`. DigestMismatch, SizeMismatch: it is not what it should be.
        """

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        """Writes a blob into a sink, from where the sink stands; its end is left to the caller.

        Raises:
            InvalidDocument: it is not here. RegistryError, StoreError. Stopped. What the sink raises.
        """

    def about(self, digest: str) -> Sequence[About]:
        """What the place knows to be about a document: signatures, lists of contents."""

    def close(self) -> None:
        """Gives up what reading needed. Safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """All that is copied.

    Attributes:
        documents: Each after those that it names; the last one is the root, but for `about`.
        blobs: Configs and layers, in the documents' order, each once.
        about: Documents that are about those, each after what it is about, and after what it names.
    """

    documents: Sequence[Document]
    blobs: Sequence[Descriptor]
    about: Sequence[About] = field(default=())

    @property
    def root(self) -> Document:
        """What gets the name."""
        return self.documents[-1]

    @property
    def everything(self) -> tuple[Document, ...]:
        """All documents."""
        return (*self.documents, *(about.document for about in self.about))


class Target(Protocol):
    """One place that an image goes to."""

    where: str
    """The place, for people."""

    def begin(self, cargo: Cargo, source: Source) -> None:
        """Says what is coming, before anything does. May refuse it.

        Raises:
            UsageError, Unsupported: it cannot be kept here. OSError: the disk does not want it.
        """

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """Tells whether a document is here with all that it names; False where that is not known."""

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """Sees to it that a blob is here; reads it only where it is not.

        Raises:
            DigestMismatch, SizeMismatch: the source has other bytes. RegistryError, StoreError. Stopped.
        """

    def document(self, document: Document) -> None:
        """Keeps a document that another one names, whose blobs are all here."""

    def about(self, about: About) -> None:
        """Keeps a document that is about another one, which is here."""

    def finish(self, root: Document) -> None:
        """Keeps the root and gives it its name. Only now can the image be found here."""

    def abort(self) -> None:
        """Gives the copy up. Safe to call twice, and after `finish`."""


def cosign_tags(digest: str) -> tuple[str, ...]:
    """The tags under which cosign keeps what it says about a document."""
    return tuple(digest.replace(":", "-", 1) + ending for ending in COSIGN)


def read_document(raw: bytes, descriptor: Descriptor, where: str) -> Document:
    """Reads a document that a descriptor names.

    Raises:
        DigestMismatch: it has other bytes. InvalidDocument, Unsupported: it is none.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(f"{descriptor.digest} of {where}", f"longer than {MAX_DOCUMENT_BYTES} bytes")
    if sha256(raw) != descriptor.digest:
        raise DigestMismatch(f"manifest {descriptor.digest} of {where}", descriptor.digest, sha256(raw))
    return parse(raw, descriptor.media_type, where=f"{descriptor.digest} of {where}")


def sent_into(sink: Sink, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
    """Pours a blob of a source into a sink, which ends finished or aborted; gives how it came there.

    Raises:
        What the source and the sink raise.
    """
    try:
        source.pour(blob, sink, stop=stop, progress=progress)
        sink.finish()
    finally:
        sink.abort()
    return Upload.SENT


def named(descriptor: Descriptor, names: Mapping[str, str]) -> dict[str, object]:
    """An index's entry for what a descriptor points at, with these annotations and no others."""
    plain = Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        platform=descriptor.platform,
        annotations=names,
    )
    return plain.to_json()
