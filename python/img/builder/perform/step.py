"""`Step`: one node on its way; `Made`: what it left; and how its inputs are opened for reading.

The modules beside this one carry out one kind of op each, over these. Nothing here knows of other
nodes, of records or of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from img import _core
from img.builder.graph import CopyOp, Node
from img.builder.site import Result, Site
from img.builder.users import UnknownUser
from img.context import Context
from img.dockerfile.faults import fault
from img.dockerfile.near import near
from img.errors import CopyError, FetchError, ImgError


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a step made: an upper folder, digested, and how to let go of it."""

    packed: _core.Packed
    upper: Path
    discard: Callable[[], object]


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
            hint = self._near_source(error.path)
        return fault(span, f"{error.path}: {error.reason}", at=error.path, hint=hint)

    def _near_source(self, path: str) -> str:
        """Why a source may be missing, and what it may have meant."""
        if len(self.inputs) > 1:
            return "the source is looked up in the stage or image that --from names"
        context = self.site.context
        wanted = Path(path.lstrip("/"))
        folder = context.root / wanted.parent
        if (context.root / wanted).exists() and context.ignore_name:
            return f"{context.ignore_name} takes it out of the context"
        names = sorted(os.listdir(folder))[:2000] if folder.is_dir() else []
        like = near(wanted.name, names)
        if like:
            return f"did you mean {(wanted.parent / like).as_posix()}?"
        return f"sources are looked up in the build context, {context.name}"


def folders_of(site: Site, result: Result) -> list[Path]:
    """The folders of a result's layers, base first; a base is fetched and extracted now."""
    folders = list(site.images.extract(result.base)) if result.base else []
    ids = [layer.diff_id for layer in result.layers]
    for position in range(len(folders), len(ids)):
        record = site.store.layers.find(ids[position], ids[:position])
        if record is None:
            raise ImgError(f"layer {ids[position]} went missing while it was in use")
        folders.append(record.path)
    return folders
