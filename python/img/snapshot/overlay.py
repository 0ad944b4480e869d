"""`OverlaySnapshotter`: snapshots as overlay mounts, in the mount namespace of this process.

`choose_snapshotter` makes one where `probe_overlay` has found that the machine and the file system agree.
A root in which a step changed nothing is not unmounted but kept: the next step over the same layers, which
is most often the step after it, starts without a mount.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from img import _core
from img.errors import SandboxError
from img.snapshot import Folders, Snapshot

MAX_LOWERS = 490
"""Overlay takes 500 lower folders; the rest is room for the stub and a merged base."""

_SPARES = 2
"""Roots that are kept for the next step: a container's start copies every mount that there is."""


class OverlaySnapshotter:
    """Snapshots as overlay mounts. A root in which nothing was changed serves the next step, too."""

    def __init__(self, scratch: Path, stub: Path) -> None:
        """Works below `scratch` (a folder of this process, on the store's file system).

        Args:
            stub: Folder of mount points, below every writable root.
        """
        self._folders = Folders(scratch)
        self._stub = stub
        self._spares: dict[tuple[Path, ...], _Pristine] = {}
        self._lock = threading.Lock()

    def writable(self, layers: Sequence[Path]) -> Snapshot:
        """Mounts a root over `layers`; a crash leaves nothing but a folder to sweep."""
        stack = tuple(layers)
        with self._lock:
            spare = self._spares.pop(stack, None)
        root = spare or self._mount(stack)
        folder = root.folder
        mounted = str(folder / "root")

        def settle() -> None:
            if not root.untouched():
                _core.unmount(mounted)

        def discard() -> None:
            if os.path.ismount(mounted) and root.untouched():
                self._keep(stack, root)
            else:
                _core.unmount(mounted)
                _clear(folder)

        return Snapshot(folder / "root", folder / "upper", scratch=folder, settle=settle, discard=discard)

    def _mount(self, stack: tuple[Path, ...]) -> _Pristine:
        folder = self._folders.make("upper", "work", "root")
        _core.mount_overlay(
            str(folder / "root"),
            lowers=[str(self._stub), *self._bounded(stack, folder)],
            upper=str(folder / "upper"),
            work=str(folder / "work"),
        )
        return _Pristine(folder)

    def _keep(self, stack: tuple[Path, ...], root: _Pristine) -> None:
        """Keeps a root for the next step over the same layers, in place of the oldest one."""
        with self._lock:
            surplus = [self._spares.pop(stack, None)]
            self._spares[stack] = root
            if len(self._spares) > _SPARES:
                surplus.append(self._spares.pop(next(iter(self._spares))))
        for one in surplus:
            if one is not None:
                _core.unmount(str(one.folder / "root"))

    def close(self) -> None:
        """Unmounts the roots that no step came for."""
        with self._lock:
            spares, self._spares = self._spares, {}
        for root in spares.values():
            _core.unmount(str(root.folder / "root"))

    def view(self, layers: Sequence[Path]) -> Snapshot:
        """Mounts `layers` read-only; no layers are an empty folder."""
        folder = self._folders.make("root")
        if layers:
            _core.mount_overlay(str(folder / "root"), lowers=self._bounded(layers, folder))
        return self._mounted(folder)

    def borrowed(self, folders: Sequence[Path]) -> Snapshot:
        """Mounts `folders` under a folder for what is written, which goes with the mount."""
        folder = self._folders.make("upper", "work", "root")
        _core.mount_overlay(
            str(folder / "root"),
            lowers=self._bounded(folders, folder),
            upper=str(folder / "upper"),
            work=str(folder / "work"),
        )
        return self._mounted(folder)

    def _mounted(self, folder: Path) -> Snapshot:
        """A root of which nothing is kept."""
        root = str(folder / "root")

        def discard() -> None:
            _core.unmount(root)
            _clear(folder)

        return Snapshot(folder / "root", None, scratch=folder, discard=discard)

    def _bounded(self, layers: Sequence[Path], folder: Path) -> list[str]:
        """Merges the lowest layers where there are more than overlay takes."""
        if len(layers) <= MAX_LOWERS:
            return [str(layer) for layer in layers]
        excess = len(layers) - MAX_LOWERS + 1
        merged = folder / "merged"
        merged.mkdir()
        _core.flatten([str(layer) for layer in layers[:excess]], str(merged))
        return [str(merged), *(str(layer) for layer in layers[excess:])]


class _Pristine:
    """A mounted root that is as good as new for as long as `untouched` says so.

    Attributes:
        folder: Holds the root, its upper folder, and what overlay works in.
    """

    def __init__(self, folder: Path) -> None:
        """Looks at a root that was mounted just now."""
        self.folder = folder
        self._new = self._state()

    def untouched(self) -> bool:
        """Tells whether nothing was written into the root, nothing put beside it, and `/` itself is the same.

        What a step changes of `/` is in no layer, so a step after it must not see it.
        """
        return self._new == self._state()

    def _state(self) -> tuple[object, ...]:
        upper = self.folder / "upper"
        try:
            inside, beside = os.listdir(upper), sorted(os.listdir(self.folder))
            # The time alone would not do: a kernel may give two changes within a tick the same.
            status = upper.stat()
            attributes = {name: os.getxattr(upper, name) for name in os.listxattr(upper)}
        except OSError:
            return (object(),)  # published, say: like nothing else
        owner = (status.st_mode, status.st_uid, status.st_gid)
        return (inside, beside, status.st_mtime_ns, status.st_ctime_ns, owner, attributes)


def _clear(folder: Path) -> None:
    """Removes what may be large of a snapshot's folder.

    The few empty folders that every mount needs go with all others when the build is over: one by one,
    their removal would cost a step as much as its container.
    """
    for path in (folder / "upper", folder / "merged"):
        try:
            with os.scandir(path) as entries:
                empty = next(entries, None) is None
        except FileNotFoundError:  # published, or never made
            continue
        if not empty:
            _core.remove_tree(str(path))


def probe_overlay(scratch: Path, stub: Path) -> None:
    """Tries all that a step asks of overlay, on a tiny root; what it leaves goes with `scratch`.

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
