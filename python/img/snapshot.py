"""`Snapshot`: a root made of parent layers, writable or not; `Snapshotter` makes them.

`OverlaySnapshotter` mounts layer folders with overlay in this process's own mount namespace, so a
mount never outlives the process. The stub folder goes under every writable root: it holds the mount points
that a container needs, so that these are never made in a layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from img import _core

MAX_LOWERS = 490
"""Overlay takes 500 lower folders; the rest is room for the stub and a merged base."""


class Snapshot:
    """A mounted root. `upper` is what was written, as a layer folder; None where it is read-only.

    `scratch` is the snapshot's own folder: what a step puts beside the root goes with it.
    """

    def __init__(self, root: Path, upper: Path | None, *, mounted: bool, scratch: Path) -> None:
        """Takes over a root that a snapshotter made; `scratch` is removed at the end."""
        self.root = root
        self.upper = upper
        self.scratch = scratch
        self._mounted = mounted

    def detach(self) -> None:
        """Takes the root away and leaves `upper`, ready to be published; safe to call twice."""
        if self._mounted:
            _core.unmount(str(self.root))
            self._mounted = False

    def close(self) -> None:
        """Takes the root and everything that was not published away; safe to call twice."""
        self.detach()
        _core.remove_tree(str(self.scratch))

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Snapshotter(Protocol):
    """Makes roots out of layers, base first. Safe for several threads."""

    def writable(self, layers: Sequence[Path]) -> Snapshot:
        """A root whose changes land in `upper`."""

    def view(self, layers: Sequence[Path]) -> Snapshot:
        """A root to read from."""


class OverlaySnapshotter:
    """Snapshots as overlay mounts."""

    def __init__(self, scratch: Path, stub: Path) -> None:
        """Works below `scratch` (a folder of this process, on the store's file system).

        Args:
            stub: Folder of mount points, below every writable root.
        """
        self._scratch = scratch
        self._stub = stub
        self._numbers = itertools.count()

    def writable(self, layers: Sequence[Path]) -> Snapshot:
        """Mounts a root over `layers`; a crash leaves nothing but a folder to sweep."""
        folder = self._folder()
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        (folder / "upper").chmod(0o755)
        _core.mount_overlay(
            str(folder / "root"),
            lowers=[str(self._stub), *self._bounded(layers, folder)],
            upper=str(folder / "upper"),
            work=str(folder / "work"),
        )
        return Snapshot(folder / "root", folder / "upper", mounted=True, scratch=folder)

    def view(self, layers: Sequence[Path]) -> Snapshot:
        """Mounts `layers` read-only; no layers are an empty folder."""
        folder = self._folder()
        (folder / "root").mkdir()
        if layers:
            lowers = self._bounded(layers, folder)
            _core.mount_overlay(str(folder / "root"), lowers=lowers)
        return Snapshot(folder / "root", None, mounted=bool(layers), scratch=folder)

    def _folder(self) -> Path:
        folder = self._scratch / f"snapshot-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def _bounded(self, layers: Sequence[Path], folder: Path) -> list[str]:
        """Merges the lowest layers where there are more than overlay takes."""
        if len(layers) <= MAX_LOWERS:
            return [str(layer) for layer in layers]
        excess = len(layers) - MAX_LOWERS + 1
        merged = folder / "merged"
        merged.mkdir()
        _core.flatten([str(layer) for layer in layers[:excess]], str(merged))
        return [str(merged), *(str(layer) for layer in layers[excess:])]
