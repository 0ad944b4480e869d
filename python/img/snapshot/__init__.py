"""`Snapshot`: a root made of parent layers, writable or not; a `Snapshotter` makes them.

`OverlaySnapshotter` mounts layer folders with overlay in this process's own mount namespace, so a mount
never outlives the process; `CopySnapshotter` copies them, where overlay is refused; `choose_snapshotter`
finds out, and imports one of them when the first root is asked for. Both leave the same upper folders, so
one store serves both. The stub folder goes under every writable root: it holds the mount points that a
container needs, so that these are never made in a layer.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from img.errors import SandboxError
from img.progress import Note, Progress


def _nothing() -> None:
    pass


class Snapshot:
    """A root at hand. `upper` gets what was written, as a layer folder; None where it is read-only.

    `scratch` is a folder beside the root: what a step puts there goes when the root goes.
    """

    def __init__(
        self,
        root: Path,
        upper: Path | None,
        *,
        scratch: Path,
        settle: Callable[[], None] = _nothing,
        discard: Callable[[], None] = _nothing,
    ) -> None:
        """Takes over a root that a snapshotter made.

        Args:
            settle: Takes the root away and completes `upper`; called once, and not where nobody wants it.
            discard: Takes away what is left of both, settled or not; may be called twice.
        """
        self.root = root
        self.upper = upper
        self.scratch = scratch
        self._settle: Callable[[], None] | None = settle
        self._discard = discard

    def detach(self) -> None:
        """Takes the root away and leaves `upper`, ready to be published; safe to call twice."""
        settle, self._settle = self._settle, None
        if settle is not None:
            settle()

    def close(self) -> None:
        """Takes the root and everything that was not published away; safe to call twice."""
        self._settle = None
        self._discard()

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

    def borrowed(self, folders: Sequence[Path]) -> Snapshot:
        """A sight of `folders`, the stub left out, in which a container may write; nobody keeps what."""

    def close(self) -> None:
        """Lets go of what was kept for later; call it once no snapshot is in use. Safe to call twice."""


class Folders:
    """New folders below a scratch folder, one for each snapshot."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._numbers = itertools.count()

    def make(self, *names: str) -> Path:
        """Makes a folder with folders of these names in it."""
        folder = self._scratch / f"snapshot-{next(self._numbers)}"
        for path in (folder, *(folder / name for name in names)):
            path.mkdir()
        if "upper" in names:
            (folder / "upper").chmod(0o755)
        return folder


class _Chosen:
    """Overlay where it works, else copies; found out at the first snapshot, as most rebuilds need none."""

    def __init__(self, scratch: Path, stub: Path, progress: Progress) -> None:
        self._scratch = scratch
        self._stub = stub
        self._progress = progress
        self._lock = threading.Lock()
        self._snapshotter: Snapshotter | None = None

    def writable(self, layers: Sequence[Path]) -> Snapshot:
        """See `Snapshotter.writable`."""
        return self._choice().writable(layers)

    def view(self, layers: Sequence[Path]) -> Snapshot:
        """See `Snapshotter.view`."""
        return self._choice().view(layers)

    def borrowed(self, folders: Sequence[Path]) -> Snapshot:
        """See `Snapshotter.borrowed`."""
        return self._choice().borrowed(folders)

    def close(self) -> None:
        """See `Snapshotter.close`."""
        with self._lock:
            if self._snapshotter is not None:
                self._snapshotter.close()

    def _choice(self) -> Snapshotter:
        with self._lock:
            if self._snapshotter is None:
                self._snapshotter = self._find()
            return self._snapshotter

    def _find(self) -> Snapshotter:
        from img.snapshot.overlay import OverlaySnapshotter, probe_overlay

        try:
            probe_overlay(self._scratch, self._stub)
        except SandboxError as error:
            why = f"overlay is refused, so each step works on a copy of its files, which is slower: {error}"
            if error.how_to_fix:
                why += f"; {error.how_to_fix}"
            self._progress(Note(level="info", text=why))
            from img.snapshot.copies import CopySnapshotter

            return CopySnapshotter(self._scratch, self._stub)
        return OverlaySnapshotter(self._scratch, self._stub)


def choose_snapshotter(
    scratch: Path, stub: Path, *, backend: Literal["auto", "overlay", "native"], progress: Progress
) -> Snapshotter:
    """Gives what makes the roots of one build's steps.

    Args:
        scratch: Folder of this process, on the store's file system.
        stub: Folder of mount points, below every writable root.
        backend: `auto` tries overlay once, when the first root is asked for, and says why it copies.
    """
    if backend == "overlay":
        from img.snapshot.overlay import OverlaySnapshotter

        return OverlaySnapshotter(scratch, stub)
    if backend == "native":
        from img.snapshot.copies import CopySnapshotter

        return CopySnapshotter(scratch, stub)
    return _Chosen(scratch, stub, progress)
