"""`Step`: one node on its way; `Made`: what it left; and how its inputs are opened for reading.

The modules beside this one carry out one kind of op each, over these. Nothing here knows of other
nodes, of records or of threads.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from img import _core
from img.builder.graph import CopyOp, Node
from img.builder.site import Result, Site
from img.builder.users import UnknownUser
from img.context import Context
from img.dockerfile.faults import fault
from img.dockerfile.near import near
from img.errors import CopyError, FetchError, ImgError
from img.progress import Note
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a step made: an upper folder, digested, and how to let go of it.

    Attributes:
        fingerprints: The file with those of its files (`store.fingerprints`), where it has one.
    """

    packed: _core.Packed
    upper: Path
    discard: Callable[[], object]
    fingerprints: Path | None = None


class Step:
    """One node on its way, with the layers below it brought to this machine at the first need."""

    def __init__(self, site: Site, node: Node, inputs: Sequence[Result]) -> None:
        """Nothing is fetched or mounted yet."""
        self.site = site
        self.node = node
        self.inputs = inputs
        self._folders: list[Path] | None = None

    @property
    def below(self) -> list[Path]:
        """The folders of the layers that the node stands on, base first."""
        if self._folders is None:
            self._folders = folders_of(self.site, self.inputs[0])
        return self._folders

    def read(self, path: str) -> bytes | None:
        """Reads a small file of the image below."""
        return _core.read_in_layers([str(folder) for folder in self.below], path)

    def tree(self, number: int) -> Context | None:
        """The files of an input that are no layers: 0 is the build context; None for a stage or image."""
        if not number:
            return self.site.context
        fetched = self.inputs[number].fetched
        return fetched.open() if fetched else self.inputs[number].tree

    def warn(self, finding: object) -> None:
        """Tells people of something in this node that is carried out, but hardly meant."""
        where = f"{self.node.where}: " if self.node.where else ""
        self.site.progress(Note(level="warning", text=f"{where}{finding}"))

    @contextmanager
    def located(self) -> Iterator[None]:
        """Gives errors of this node its place in the Dockerfile."""
        try:
            yield
        except CopyError as error:
            raise self._copy_fault(error) from error
        except UnknownUser as error:
            if self.node.span is None:
                raise
            raise fault(self.node.span, str(error), hint=error.hint) from error
        except FetchError as error:
            if self.node.span is None or error.text:
                raise
            text = str(fault(self.node.span, str(error), at=error.url))
            raise FetchError(error.url, error.reason, error.hint, text) from error

    def _copy_fault(self, error: CopyError) -> ImgError:
        span = self.node.span
        if span is None:
            return error
        hint = ""
        if error.not_found and isinstance(self.node.op, CopyOp):
            part = next((p for p in self.node.op.parts if error.path in p.patterns), self.node.op.parts[0])
            ignored = self._ignored(error, part.input)
            if ignored:
                return fault(
                    span,
                    f"{error.path}: not found: {ignored} takes it out of {self._place(part.input)}",
                    at=error.path,
                    hint=f"remove that line, or add !{error.path} after it",
                )
            hint = self._near_source(error.path, part.input)
        return fault(span, f"{error.path}: {error.reason}", at=error.path, hint=hint)

    def _ignored(self, error: CopyError, number: int) -> str:
        """Where the pattern stands that takes out a source that is there; empty where that is not why."""
        tree = self.tree(number)
        return tree.ignored_by(error.path) if tree and "ignore file" in error.reason else ""

    def _near_source(self, path: str, number: int) -> str:
        """What a source that is missing may have meant, or where it was looked for."""
        wanted = PurePosixPath(posixpath.normpath("/" + path.lstrip("/"))).relative_to("/")
        with self._root_of(number) as root:
            like = near(wanted.name, _names_in(root, wanted.parent))
        if like:
            return f"did you mean {(wanted.parent / like).as_posix()}?"
        return f"the source is looked up in {self._place(number)}"

    def _place(self, number: int) -> str:
        """What people call the files of an input."""
        tree = self.tree(number)
        if tree is None:
            return "the stage or image that --from names"
        return tree.name if number else f"the build context, {tree.name}"

    @contextmanager
    def _root_of(self, number: int) -> Iterator[Path]:
        """The files of an input, to be looked at."""
        tree = self.tree(number)
        if tree is not None:
            yield tree.root
            return
        snapshot = self.site.snapshots.view(folders_of(self.site, self.inputs[number]))
        try:
            yield snapshot.root
        finally:
            snapshot.close()


def _names_in(root: Path, folder: PurePosixPath) -> list[str]:
    """Names in a folder below `root`, no symlink followed: the files may be a stranger's."""
    path = root
    for part in folder.parts:
        path = path / part
        if path.is_symlink() or not path.is_dir():
            return []
    return sorted(os.listdir(path))[:2000]


def folders_of(site: Site, result: Result) -> list[Path]:
    """The folders of a result's layers, base first; what is not on this machine is fetched now."""
    folders = list(site.images.extract(result.base)) if result.base else []
    ids = [layer.diff_id for layer in result.layers]
    if site.shared is not None:
        site.shared.bring(ids[len(folders) :])
    for position in range(len(folders), len(ids)):
        record = site.store.layers.find(ids[position], ids[:position])
        if record is None:
            raise ImgError(f"layer {ids[position]} went missing while it was in use")
        folders.append(record.path)
    return folders
