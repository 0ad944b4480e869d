"""`Search`: finds the manifest for a platform in an index, and in indexes within it.

Called by `Registry.resolve`, which gives it a way to read. Bounded in depth and in number, and no index is
read twice: what a registry offers may be endless or go in a circle.
"""

from __future__ import annotations

from collections.abc import Callable

from img.oci.descriptor import INDEXES, Descriptor
from img.oci.manifest import Index, Manifest
from img.oci.platform import Platform

MAX_DEPTH = 3
"""Indexes within one another, the outermost included."""

MAX_READ = 16
"""Documents read in one search."""


class Search:
    """One search for one platform.

    Attributes:
        offered: The platforms seen on the way, for the error where none fits.
    """

    def __init__(self, platform: Platform, read: Callable[[str], Manifest | Index]) -> None:
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
        chosen = index.choose(self._platform)
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
