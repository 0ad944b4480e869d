"""`choose` and its `Search`: find the manifest for a platform in an index, and in indexes within it.

Called by `Registry.resolve`, and by whoever has some documents already, with a way to read. Bounded in depth
and in number, and no index is read twice: what a registry offers may be endless or go in a circle.
"""

from __future__ import annotations

from collections.abc import Callable

from img.errors import NotFound
from img.oci.descriptor import INDEXES, Descriptor
from img.oci.manifest import Index, Manifest
from img.oci.platform import Platform
from img.oci.reference import Reference

MAX_DEPTH = 3
"""Indexes within one another, the outermost included."""

MAX_READ = 16
"""Documents read in one search."""

Pick = Callable[[Index, Platform], "Descriptor | None"]
"""Which entry of one index is taken: `Index.choose`, `Index.choose_zstd`."""


def choose(
    ref: Reference,
    document: Manifest | Index,
    platform: Platform,
    read: Callable[[str], Manifest | Index],
    pick: Pick = Index.choose,
) -> Manifest:
    """Finds the manifest for a platform in what a name stands for; that itself, where it is no index.

    Args:
        read: Gives the document of a digest.
        pick: Of images that differ in their compression alone, whoever unpacks takes zstd's; whoever says
            something about one takes the first, where everybody looks for it.
    Raises:
        NotFound: there is none for this platform; the hint lists those on offer. What `read` raises.
    """
    if isinstance(document, Manifest):
        return document
    search = Search(platform, read, pick)
    found = search.within(document)
    if found:
        return found
    offered = ", ".join(sorted({str(p) for p in search.offered})) or "nothing that names its platform"
    raise NotFound(f"{ref.familiar} has no image for {platform}", hint=f"on offer: {offered}")


class Search:
    """One search for one platform.

    Attributes:
        offered: The platforms seen on the way, for the error where none fits.
    """

    def __init__(
        self, platform: Platform, read: Callable[[str], Manifest | Index], pick: Pick = Index.choose
    ) -> None:
        self._pick = pick
        self._platform = platform
        self._read = read
        self._seen: set[str] = set()
        self.offered: list[Platform] = []

    def within(self, index: Index, depth: int = MAX_DEPTH) -> Manifest | None:
        """Gives the first that fits: what the index names for the platform, then what is nested in it.

        Raises:
            What reading raises.
        """
        self._seen.add(index.digest)
        self.offered += index.platforms
        chosen = self._pick(index, self._platform)
        if chosen is None and len(index.manifests) == 1 and index.manifests[0].platform is None:
            chosen = index.manifests[0]
        nested = [d for d in index.manifests if d.media_type in INDEXES and d is not chosen]
        for descriptor in filter(None, [chosen, *nested]):
            if found := self._open(descriptor, depth):
                return found
        return None

    def _open(self, descriptor: Descriptor, depth: int) -> Manifest | None:
        if descriptor.digest in self._seen or len(self._seen) > MAX_READ:
            return None
        if descriptor.media_type in INDEXES and depth <= 1:
            return None
        self._seen.add(descriptor.digest)
        document = self._read(descriptor.digest)
        if isinstance(document, Index) != (descriptor.media_type in INDEXES):
            return None  # it is not what it was announced as, and so was not chosen for what it is
        if isinstance(document, Manifest):
            return document
        return self.within(document, depth - 1) if depth > 1 else None
