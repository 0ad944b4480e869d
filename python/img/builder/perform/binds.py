"""`Binds`: what the bind mounts of a RUN show, looked up before anything runs, for its key and its root.

`solver` opens them where no quick key hit, and `mounts` mounts them. A source is resolved inside the
tree that it names, with every symlink followed there and none out of it.
Source: Dockerfile reference, "RUN --mount=type=bind".
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

from img import _core
from img.builder.graph import RunMount, RunOp
from img.builder.perform.step import Step, folders_of
from img.context import Context, literal
from img.dockerfile.faults import fault
from img.dockerfile.near import near
from img.errors import CopyError, ImgError, SandboxError
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One source, looked up.

    Attributes:
        root: The folder of the tree that it is in.
        path: Where it is in there, symlinks followed.
        is_folder: It is a folder, not a file.
        tree: The tree, where it is no stage or image.
        folders: The layers of the stage or image, base first.
    """

    mount: RunMount
    selection: _core.Selection
    root: Path
    path: str
    is_folder: bool
    tree: Context | None = None
    folders: tuple[Path, ...] = ()

    def digest(self, memo: _core.DigestMemo | None) -> str:
        """Names all that can be seen in it, times aside. `memo` learns of files that stay where they are."""
        lasting = self.tree is not None and self.tree.lasting
        return self.selection.content_digest(memo if lasting else None)


class Binds:
    """The bind mounts of one RUN, by their place among its mounts."""

    def __init__(self, step: Step, op: RunOp) -> None:
        """Looks every source up.

        Raises:
            DockerfileError: there is none, or `.dockerignore` hides it.
        """
        self._step = step
        self._held = ExitStack()
        self.by_place: dict[int, Bind] = {}
        try:
            for place, mount in enumerate(op.mounts):
                if mount.kind == "bind":
                    self.by_place[place] = self.look_up(mount)
        except BaseException:
            self.close()
            raise

    def digests(self, memo: _core.DigestMemo | None) -> list[str]:
        """The content digest of each source, in the Dockerfile's order."""
        return [bind.digest(memo) for bind in self.by_place.values()]

    @property
    def selections(self) -> list[_core.Selection]:
        """What each of them shows, in the Dockerfile's order."""
        return [bind.selection for bind in self.by_place.values()]

    def close(self) -> None:
        """Lets go of mounted roots; safe to call twice."""
        self._held.close()

    def look_up(self, mount: RunMount) -> Bind:
        """Finds what a mount's `from` and `source` name, for as long as these are open."""
        step = self._step
        pattern = literal(mount.source.lstrip("/") or ".")
        tree = step.tree(mount.input)
        folders: tuple[Path, ...] = ()
        try:
            if tree is not None:
                selection, root = tree.select((pattern,), hidden=True), tree.root
            else:
                folders = tuple(folders_of(step.site, step.inputs[mount.input]))
                root = self._held.enter_context(step.site.snapshots.view(folders)).root
                selection = _core.Selection(str(root), (pattern,), owners=True)
        except CopyError as error:
            raise _missing(step, mount, tree, error) from error
        ((path, _, is_folder),) = selection.sources()
        return Bind(
            mount=mount, selection=selection, root=root, path=path, is_folder=is_folder, tree=tree,
            folders=folders,
        )  # fmt: skip

    def shown(self, bind: Bind, folder: Path) -> Path:
        """Makes what a container is to see, where that is more than the source itself; gives its path.

        Args:
            folder: Empty folder for what has to be written, on the file system of the store.
        """
        if bind.tree is not None:
            return self._context(bind, bind.tree, folder)
        if bind.mount.readonly:
            return bind.root / bind.path
        # What is written goes onto a sight of the stage of this mount's own.
        return self._borrow(list(bind.folders), folder) / bind.path

    def _context(self, bind: Bind, tree: Context, folder: Path) -> Path:
        """A context as COPY would read it: without what `.dockerignore` hides, and owned by 0:0."""
        source = tree.root / bind.path
        if bind.selection.foreign or bind.selection.altered:
            return _copied(bind, folder)
        if not bind.is_folder:
            return source if bind.mount.readonly else _copied(bind, folder)
        inside = len(bind.path) + 1 if bind.path else 0
        hidden = [path[inside:] for path in bind.selection.hidden()]
        if bind.mount.readonly and not hidden:
            return source
        try:
            lowers = [source]
            if hidden:
                lowers.append(_whiteouts(source, hidden, folder / "hidden"))
            return self._borrow(lowers, folder)
        except (SandboxError, OSError):
            # The context's file system can be no part of an overlay, or takes no whiteouts.
            return _copied(bind, folder)

    def _borrow(self, folders: list[Path], folder: Path) -> Path:
        if not folders:
            (folder / "nothing").mkdir()
            return folder / "nothing"
        return self._held.enter_context(self._step.site.snapshots.borrowed(folders)).root


def _missing(step: Step, mount: RunMount, tree: Context | None, error: CopyError) -> ImgError:
    """The error for a source that is not there, at its place."""
    if step.node.span is None:
        return error
    text = step.node.span.text
    at = next((word for word in (mount.source, mount.source[1:]) if word and word in text), "--mount")
    hint = "it is looked up in what from names" if tree is None else _hint(tree, mount.source)
    return fault(step.node.span, f"a mount has no source {mount.source}: {error.reason}", at=at, hint=hint)


def _hint(tree: Context, source: str) -> str:
    """Why a source may be missing, and what it may have meant."""
    path = tree.root / source.lstrip("/")
    if path.exists() and tree.ignore_name:
        return f"{tree.ignored_by(source) or tree.ignore_name} takes it out of the context"
    names = sorted(os.listdir(path.parent))[:2000] if path.parent.is_dir() else []
    like = near(path.name, names)
    if like:
        return f"did you mean {(Path(source).parent / like).as_posix()}?"
    return f"sources are looked up in {tree.name}"


def _whiteouts(source: Path, hidden: list[str], layer: Path) -> Path:
    """Writes the layer that takes the hidden names away; its folders are those of the source, as they are."""
    from shutil import copystat  # few mounts hide anything

    layer.mkdir()
    folders = {""}
    whiteout = ""
    for path in hidden:
        folder = path.rpartition("/")[0]
        if folder not in folders:
            (layer / folder).mkdir(parents=True, exist_ok=True)
            folders.update(str(above) for above in Path(path).parents[:-1])
        whiteout = _whiteout(f"{layer}/{path}", whiteout)
    for name in sorted(folders, reverse=True):  # a folder's time is set when all in it is there
        copystat(source / name, layer / name, follow_symlinks=False)
    return layer


def _whiteout(path: str, another: str) -> str:
    """Makes a whiteout and gives its path: one more name of another, since a new file costs more."""
    if another:
        try:
            os.link(another, path)
            return another
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
    return path


def _copied(bind: Bind, folder: Path) -> Path:
    """A copy of what is selected, owned by 0:0, where nothing cheaper shows the same."""
    upper = folder / "copy"
    upper.mkdir()
    name = "" if bind.is_folder else "file"
    _core.copy_layer(
        [bind.selection], parents=[], upper=str(upper), dest=f"/{name}", owner=None, keep_owner=True
    )
    return upper / name
