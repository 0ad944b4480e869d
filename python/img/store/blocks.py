"""`BlockIndexes`: which compressed blocks stand where in the blobs, so that later blobs copy them.

`_core.pack_blob` writes one beside each blob of several blocks, and reads those of others. An index lives and
dies with its blob: one without it is never of use, and goes with the next collection. They stand outside of
the image layout, which holds blobs alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from img.store.blobs import BlobStore

MOST = 256
"""Indexes that one blob is made with: those of the newest blobs."""


class BlockIndexes:
    """The indexes of one store; several processes may use it at once."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        """Uses the folder `root`, which exists."""
        self._root = root
        self._blobs = blobs

    def path(self, digest: str) -> Path:
        """Where the index of a blob stands, or would stand."""
        return self._root / digest.partition(":")[2]

    def earlier(self) -> list[tuple[str, str]]:
        """Indexes and their blobs, the newest first, as `_core.pack_blob` takes them."""
        found = []
        for entry in os.scandir(self._root):
            try:
                found.append((entry.stat().st_mtime_ns, entry.name))
            except FileNotFoundError:
                continue  # it went with its blob
        found.sort(reverse=True)
        names = [name for _, name in found[:MOST]]
        return [(str(self._root / name), str(self._blobs.path(f"sha256:{name}"))) for name in names]

    def sweep(self) -> int:
        """Removes indexes whose blob is gone; gives the bytes of disk that came back."""
        freed = 0
        for entry in list(os.scandir(self._root)):
            if not self._blobs.path(f"sha256:{entry.name}").exists():
                try:
                    freed += entry.stat().st_blocks * 512
                    os.unlink(entry.path)
                except FileNotFoundError:
                    continue
        return freed
