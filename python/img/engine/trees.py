"""`Tree`: all documents that a name of several platforms stands for, and the blobs that they name.

`pulls` reads one to bring it whole, `pushing` to send it again as it came, attestations and all. Documents
come through a function, from wherever they are.
"""

from __future__ import annotations

from collections.abc import Callable

from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor, Index, Manifest, Reference
from img.values import dataclass

MAX_DEPTH = 4
"""Indexes within one another, the outermost included."""

MAX_DOCUMENTS = 1000
"""Manifests and indexes of one tree."""

MAX_BYTES = 128 << 20
"""Of all of them together: they are in memory."""

Read = Callable[[str], Manifest | Index]
"""Gives the document of a digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The documents below a name, each once: those that others name come first, the name's own last."""

    documents: tuple[Manifest | Index, ...]

    @property
    def top(self) -> Manifest | Index:
        """What the name stands for."""
        return self.documents[-1]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Those that are no index: images, and what else there may be."""
        return tuple(document for document in self.documents if isinstance(document, Manifest))

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every config and layer, each once; those that no registry may hand on are left out."""
        named = (blob for manifest in self.manifests for blob in (manifest.config, *manifest.layers))
        once = {blob.digest: blob for blob in named}
        return tuple(blob for blob in once.values() if not blob.is_foreign)


def read_tree(top: Manifest | Index, read: Read) -> Tree:
    """Reads all that a document names.

    Raises:
        InvalidDocument: it names too much, or a manifest turns out to be another kind of document.
        What `read` raises.
    """
    found: dict[str, Manifest | Index] = {}
    total = 0

    def add(document: Manifest | Index, depth: int) -> None:
        nonlocal total
        if isinstance(document, Index):
            if depth >= MAX_DEPTH:
                raise InvalidDocument(f"index {document.digest}", f"more than {MAX_DEPTH} within one another")
            for descriptor in document.manifests:
                if descriptor.digest not in found:
                    add(read(descriptor.digest), depth + 1)
        total += len(document.raw) if document.digest not in found else 0
        found.setdefault(document.digest, document)
        if total > MAX_BYTES:
            raise InvalidDocument(f"index {top.digest}", f"its manifests have more than {MAX_BYTES} bytes")
        if len(found) > MAX_DOCUMENTS:
            raise InvalidDocument(f"index {top.digest}", f"it names more than {MAX_DOCUMENTS} manifests")

    add(top, 0)
    return Tree(documents=tuple(found.values()))


def repository_of(name: str, verb: str) -> Reference:
    """The repository that a name is of which has neither tag nor digest.

    Raises:
        UsageError: it has one.
    """
    reference = Reference.parse(name)
    if "@" in name or ":" in name.rpartition("/")[2]:
        raise UsageError(
            f"{name} names one image, not a repository",
            hint=f"leave the tag out: {verb} --all-tags {reference.familiar_name}",
        )
    return reference
