"""`Fingerprints`: of each file in a layer that a COPY made, a digest over its path, attributes and content.

A later COPY takes the files that it would write again from there, by hard links (`rust/core/src/relink.rs`).
Each is a file of `fingerprints/` that has its layer's diff ID for a name and was put there by one rename;
`gc` takes those away whose layer is gone. One that is missing or damaged costs time, and nothing else.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from img.store.layers import LayerRecord
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLayer:
    """A published layer whose files may be taken.

    Attributes:
        path: Its folder.
        fingerprints: The file that says what is in it.
    """

    path: Path
    fingerprints: Path


class Fingerprints:
    """The fingerprints of one store's layers."""

    def __init__(self, root: Path) -> None:
        """Uses a folder that exists."""
        self._root = root

    def of(self, layer: LayerRecord) -> SharedLayer | None:
        """A layer with its fingerprints; None where it has none: a step ran, or it came from elsewhere."""
        path = self._path(layer.diff_id)
        return SharedLayer(path=layer.path, fingerprints=path) if path.exists() else None

    def keep(self, path: Path, diff_id: str) -> None:
        """Moves the fingerprints of a layer that is about to be published in place.

        Args:
            path: On the store's file system; gone afterwards.
        """
        path.replace(self._path(diff_id))

    def drop(self, *, keep: Set[str]) -> int:
        """Removes the fingerprints of all but these layers; gives bytes of disk that came back."""
        names = {self._path(diff_id).name for diff_id in keep}
        freed = 0
        for path in self._root.iterdir():
            if path.name not in names:
                with suppress(FileNotFoundError):
                    freed += path.stat().st_blocks * 512
                    path.unlink()
        return freed

    def _path(self, diff_id: str) -> Path:
        return self._root / diff_id.partition(":")[2]
