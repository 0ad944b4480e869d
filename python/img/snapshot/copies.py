"""`CopySnapshotter`: snapshots as plain trees, where overlay is refused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from img import _core
from img.snapshot import Folders, Snapshot


class CopySnapshotter:
    """Snapshots as plain trees, copied out of the layers; a file system with reflinks shares the bytes."""

    def __init__(self, scratch: Path, stub: Path) -> None:
        """Works below `scratch`; see `OverlaySnapshotter`. Views stay until `scratch` is removed."""
        self._folders = Folders(scratch)
        self._stub = stub
        self._views: dict[tuple[Path, ...], Path] = {}
        self._making: dict[tuple[Path, ...], threading.Lock] = {}
        self._lock = threading.Lock()

    def writable(self, layers: Sequence[Path]) -> Snapshot:
        """Copies a root; what the step changes in it is found out when it is detached."""
        folder = self._folders.make("upper", "root")
        below = [str(self._stub), *(str(layer) for layer in layers)]
        root, upper = folder / "root", folder / "upper"

        def discard() -> None:
            _core.remove_tree(str(folder))

        try:
            _core.flatten(below, str(root))
            before = _core.TreeRecord(str(root))
        except BaseException:
            discard()
            raise
        return Snapshot(
            root,
            upper,
            scratch=folder,
            settle=lambda: before.changes(below, str(upper)),
            discard=discard,
        )

    def view(self, layers: Sequence[Path]) -> Snapshot:
        """Gives one tree to all who read the same layers."""
        stack = tuple(layers)
        with self._lock:
            making = self._making.setdefault(stack, threading.Lock())
        with making:
            root = self._views.get(stack)
            if root is None:
                root = self._views[stack] = self._copy(stack)
        return Snapshot(root, None, scratch=root.parent)

    def borrowed(self, folders: Sequence[Path]) -> Snapshot:
        """Copies `folders` for one use."""
        root = self._copy(folders)

        def discard() -> None:
            _core.remove_tree(str(root.parent))

        return Snapshot(root, None, scratch=root.parent, discard=discard)

    def close(self) -> None:
        """Nothing is kept that `scratch` does not take along."""

    def _copy(self, layers: Sequence[Path]) -> Path:
        folder = self._folders.make("root")
        try:
            _core.flatten([str(layer) for layer in layers], str(folder / "root"))
        except BaseException:
            _core.remove_tree(str(folder))
            raise
        return folder / "root"
