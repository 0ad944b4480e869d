"""Carries out one node: its cache key, and, where the cache has nothing, the work itself.

`solver` calls `key_of` and `perform`; nothing here knows of other nodes, of records or of threads.
Every function that makes a layer leaves its folder in a `Made`, still unpublished.
"""

from __future__ import annotations

import codecs
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from img import _core
from img.builder.graph import CopyOp, Node, RunOp, WorkdirOp
from img.builder.key import CacheKey
from img.builder.site import Result, Site
from img.builder.users import identity, owner
from img.dockerfile.faults import fault
from img.dockerfile.near import near
from img.errors import BuildError, CopyError, ImgError
from img.executor import Mount, RunSpec
from img.progress import StepOutput

_GLOB = re.compile(r"[*?\[\\]")

TAIL_LINES = 20
"""Lines of a failed step's output that its error carries."""


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

    @contextmanager
    def located(self) -> Iterator[None]:
        """Gives errors of this node its place in the Dockerfile."""
        try:
            yield
        except CopyError as error:
            raise self._copy_fault(error) from error
        except ImgError as error:
            if type(error).__name__ != "UnknownUser" or self.node.span is None:
                raise
            raise fault(self.node.span, str(error), hint=error.hint) from error

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


# ---- RUN -----------------------------------------------------------------------------------------


def run_key(step: Step, op: RunOp) -> CacheKey:
    """The key of a RUN: all that its process can see, proxies aside."""
    return CacheKey.make(
        "run",
        below=step.inputs[0].content,
        args=list(op.args),
        script=op.script.content if op.script else "",
        env=[list(pair) for pair in op.env],
        cwd=op.cwd,
        user=op.user,
        network="" if op.network == "default" else op.network,
        platform=str(op.platform),
        epoch=step.site.epoch,
    )


def run(step: Step, op: RunOp) -> Made:
    """Runs the container.

    Raises:
        BuildError: its process did not end with 0.
    """
    site = step.site
    who = identity(op.user, step.read)
    snapshot = site.snapshots.writable(step.below)
    try:
        env = {**dict(op.hidden_env), "HOME": who.home, **dict(op.env)}
        spec = RunSpec(
            root=str(snapshot.root),
            args=op.args,
            env=tuple(env.items()),
            cwd=op.cwd,
            uid=who.uid,
            gid=who.gid,
            additional_gids=who.groups,
            mounts=_script_mount(step, op, snapshot.scratch),
            network="none" if op.network == "none" else "host",
        )
        code, tail = _run_logged(step, spec)
        if code:
            raise BuildError(step.node.title, code, tuple(tail), step.node.where)
        snapshot.detach()
        assert snapshot.upper is not None
        packed = _core.pack_layer(str(snapshot.upper), clamp_mtime=site.epoch)
        return Made(packed=packed, upper=snapshot.upper, discard=snapshot.close)
    except BaseException:
        snapshot.close()
        raise


def _script_mount(step: Step, op: RunOp, folder: Path) -> tuple[Mount, ...]:
    """Writes a RUN's own script down and says where the container finds it: on its `/dev`, in no layer."""
    if op.script is None:
        return ()
    path = folder / "script"
    path.write_bytes(op.script.content.encode("utf-8", "surrogateescape"))
    path.chmod(0o755)
    return (Mount(destination=op.args[0], type="bind", source=str(path), options=("bind", "ro")),)


def _run_logged(step: Step, spec: RunSpec) -> tuple[int, deque[str]]:
    """Runs a container while a thread passes its output on as it comes."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    reader = threading.Thread(target=_pass_on, args=(step, reading, tail), daemon=True)
    reader.start()
    try:
        code = step.site.executor.run(spec, output=writing)
    finally:
        os.close(writing)
        reader.join()
    return code, tail


def _pass_on(step: Step, reading: int, tail: deque[str]) -> None:
    """Reads a container's output to its end; keeps the last lines."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    with open(reading, "rb", buffering=0) as stream:
        while piece := stream.read(1 << 16):
            text = decode(piece)
            step.site.progress(StepOutput(step=step.node.number, text=text))
            *lines, rest = (rest + text).split("\n")
            rest = rest[-4096:]
            tail.extend(line[-4096:] for line in lines)
    if rest:
        tail.append(rest)


# ---- COPY and ADD --------------------------------------------------------------------------------


@dataclass(slots=True)
class Sources:
    """What a COPY reads: selections in the Dockerfile's order, and what lets go of them."""

    selections: list[_core.Selection]
    release: list[Callable[[], object]]

    def close(self) -> None:
        """Lets go of mounted roots and unpacked archives."""
        while self.release:
            self.release.pop()()

    def digests(self, memo: _core.DigestMemo | None) -> list[str]:
        """The content digest of each selection."""
        return [selection.content_digest(memo) for selection in self.selections]


def open_sources(step: Step, op: CopyOp) -> Sources:
    """Selects what an op copies.

    Raises:
        CopyError: a source names nothing.
    """
    sources = Sources([], [])
    try:
        if len(step.inputs) > 1:
            snapshot = step.site.snapshots.view(folders_of(step.site, step.inputs[1]))
            sources.release.append(snapshot.close)
            sources.selections.append(
                _core.Selection(str(snapshot.root), op.sources, exclude=op.exclude, owners=True)
            )
        elif op.sources:
            sources.selections.append(step.site.context.select(op.sources, op.exclude))
        if op.inline:
            sources.selections.append(_inline(step, op, sources))
    except BaseException:
        sources.close()
        raise
    return sources


def _inline(step: Step, op: CopyOp, sources: Sources) -> _core.Selection:
    """Writes here-documents down as files and selects them."""
    folder = step.site.scratch / f"inline-{step.node.number}"
    folder.mkdir()
    sources.release.append(lambda: _core.remove_tree(str(folder)))
    for file in op.inline:
        path = folder / file.name
        path.write_bytes(file.content.encode("utf-8", "surrogateescape"))
        path.chmod(0o644)
        os.utime(path, (0, 0))
    return _core.Selection(str(folder), [file.name for file in op.inline])


def copy_key(step: Step, op: CopyOp, **source: object) -> CacheKey:
    """The key of a COPY: what it copies (by content, or by the stack it comes from), and where to."""
    return CacheKey.make(
        "copy",
        below=step.inputs[0].content,
        dest=op.dest,
        chown=op.chown,
        chmod=op.chmod,
        unpack=op.unpack or None,
        inline=[[file.name, file.content] for file in op.inline],
        epoch=step.site.epoch,
        **source,
    )


def copy(step: Step, op: CopyOp, sources: Sources) -> Made:
    """Copies into a new upper folder and digests it on the way."""
    site = step.site
    folder = site.scratch / f"copy-{step.node.number}"
    upper = folder / "upper"
    upper.mkdir(parents=True)

    def discard() -> None:
        _core.remove_tree(str(folder))

    try:
        selections = sources.selections
        if op.unpack:
            selections = _unpacked(step, op, sources, folder)
        packed = _core.copy_layer(
            selections,
            parents=[str(path) for path in step.below],
            upper=str(upper),
            dest=op.dest,
            owner=owner(op.chown, step.read) if op.chown else None,
            mode=op.chmod or None,
            keep_owner=True,  # a context's selection says 0:0 of its own accord
            clamp_mtime=site.epoch,
        )
        return Made(packed=packed, upper=upper, discard=discard)
    except BaseException:
        discard()
        raise


def _unpacked(step: Step, op: CopyOp, sources: Sources, folder: Path) -> list[_core.Selection]:
    """Replaces each source that is an archive by what it holds.

    Source: Dockerfile reference, "ADD", local tar archives: told by content, not by name.
    """
    context = step.site.context
    found: list[_core.Selection] = []
    for position, word in enumerate(op.sources):
        selection = context.select((word,), op.exclude)
        named = selection.sources()
        kept = []
        for number, (path, is_dir) in enumerate(named):
            into = folder / f"archive-{position}-{number}"
            into.mkdir()
            if not is_dir and _core.unpack_archive(str(context.root / path), str(into)):
                found.append(_core.Selection(str(into), ["."], owners=True))
            else:
                kept.append(_GLOB.sub(r"\\\g<0>", path))
        if len(kept) == len(named):
            found.append(selection)
        elif kept:
            found.append(context.select(tuple(kept), op.exclude))
    return [*found, *(sources.selections[-1:] if op.inline else ())]


# ---- WORKDIR -------------------------------------------------------------------------------------


def workdir_key(step: Step, op: WorkdirOp) -> CacheKey:
    """The key of a WORKDIR."""
    return CacheKey.make(
        "workdir", below=step.inputs[0].content, path=op.path, user=op.user, epoch=step.site.epoch
    )


def workdir(step: Step, op: WorkdirOp) -> Made:
    """Makes the folder where it is missing."""
    folder = step.site.scratch / f"workdir-{step.node.number}"
    upper = folder / "upper"
    upper.mkdir(parents=True)
    try:
        who = identity(op.user, step.read) if op.user else None
        packed = _core.make_directory(
            parents=[str(path) for path in step.below],
            upper=str(upper),
            dest=op.path,
            owner=(who.uid, who.gid) if who else (0, 0),
        )
    except BaseException:
        _core.remove_tree(str(folder))
        raise
    return Made(packed=packed, upper=upper, discard=lambda: _core.remove_tree(str(folder)))
