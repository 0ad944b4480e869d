"""`Snapshot`: a root made of parent layers, writable or not; a `Snapshotter` makes them.

`OverlaySnapshotter` mounts layer folders with overlay in this process's own mount namespace, so a mount
never outlives the process; `CopySnapshotter` copies them, where overlay is refused; `choose_snapshotter`
finds out. Both leave the same upper folders, so one store serves both. The stub folder goes under
every writable root: it holds the mount points that a container needs, so that these are never made in a
layer.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from img import _core
from img.errors import SandboxError
from img.progress import Note, Progress

MAX_LOWERS = 490
"""Overlay takes 500 lower folders; the rest is room for the stub and a merged base."""


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


class _Folders:
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


# ---- overlay -------------------------------------------------------------------------------------


class OverlaySnapshotter:
    """Snapshots as overlay mounts."""

    def __init__(self, scratch: Path, stub: Path) -> None:
        """Works below `scratch` (a folder of this process, on the store's file system).

        Args:
            stub: Folder of mount points, below every writable root.
        """
        self._folders = _Folders(scratch)
        self._stub = stub

    def writable(self, layers: Sequence[Path]) -> Snapshot:
        """Mounts a root over `layers`; a crash leaves nothing but a folder to sweep."""
        folder = self._folders.make("upper", "work", "root")
        _core.mount_overlay(
            str(folder / "root"),
            lowers=[str(self._stub), *self._bounded(layers, folder)],
            upper=str(folder / "upper"),
            work=str(folder / "work"),
        )
        return self._mounted(folder, folder / "upper")

    def view(self, layers: Sequence[Path]) -> Snapshot:
        """Mounts `layers` read-only; no layers are an empty folder."""
        folder = self._folders.make("root")
        if layers:
            _core.mount_overlay(str(folder / "root"), lowers=self._bounded(layers, folder))
        return self._mounted(folder, None)

    def borrowed(self, folders: Sequence[Path]) -> Snapshot:
        """Mounts `folders` under a folder for what is written, which goes with the mount."""
        folder = self._folders.make("upper", "work", "root")
        _core.mount_overlay(
            str(folder / "root"),
            lowers=self._bounded(folders, folder),
            upper=str(folder / "upper"),
            work=str(folder / "work"),
        )
        return self._mounted(folder, None)

    def _mounted(self, folder: Path, upper: Path | None) -> Snapshot:
        root = str(folder / "root")

        def discard() -> None:
            _core.unmount(root)
            _core.remove_tree(str(folder))

        return Snapshot(
            folder / "root", upper, scratch=folder, settle=lambda: _core.unmount(root), discard=discard
        )

    def _bounded(self, layers: Sequence[Path], folder: Path) -> list[str]:
        """Merges the lowest layers where there are more than overlay takes."""
        if len(layers) <= MAX_LOWERS:
            return [str(layer) for layer in layers]
        excess = len(layers) - MAX_LOWERS + 1
        merged = folder / "merged"
        merged.mkdir()
        _core.flatten([str(layer) for layer in layers[:excess]], str(merged))
        return [str(merged), *(str(layer) for layer in layers[excess:])]


def probe_overlay(scratch: Path, stub: Path) -> None:
    """Tries all that a step asks of overlay, on a tiny root.

    Raises:
        SandboxError: this machine, or the file system of `scratch`, refuses.
    """
    folder = scratch / "probe"
    folder.mkdir()
    try:
        (folder / "layer" / "again").mkdir(parents=True)
        with OverlaySnapshotter(folder, stub).writable([folder / "layer"]) as snapshot:
            # A deletion needs a device, a folder made anew an extended attribute.
            (snapshot.root / "again").rmdir()
            (snapshot.root / "again").mkdir()
    except OSError as error:
        raise SandboxError(f"overlay cannot delete on this file system ({error.strerror})") from error
    finally:
        _core.remove_tree(str(folder))


# ---- copies --------------------------------------------------------------------------------------


class CopySnapshotter:
    """Snapshots as plain trees, copied out of the layers; a file system with reflinks shares the bytes."""

    def __init__(self, scratch: Path, stub: Path) -> None:
        """Works below `scratch`; see `OverlaySnapshotter`. Views stay until `scratch` is removed."""
        self._folders = _Folders(scratch)
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

    def _copy(self, layers: Sequence[Path]) -> Path:
        folder = self._folders.make("root")
        try:
            _core.flatten([str(layer) for layer in layers], str(folder / "root"))
        except BaseException:
            _core.remove_tree(str(folder))
            raise
        return folder / "root"


# ---- the choice ----------------------------------------------------------------------------------


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

    def _choice(self) -> Snapshotter:
        with self._lock:
            if self._snapshotter is None:
                self._snapshotter = self._find()
            return self._snapshotter

    def _find(self) -> Snapshotter:
        try:
            probe_overlay(self._scratch, self._stub)
        except SandboxError as error:
            why = f"overlay is refused, so each step works on a copy of its files, which is slower: {error}"
            if error.how_to_fix:
                why += f"; {error.how_to_fix}"
            self._progress(Note(level="info", text=why))
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
        return OverlaySnapshotter(scratch, stub)
    if backend == "native":
        return CopySnapshotter(scratch, stub)
    return _Chosen(scratch, stub, progress)
