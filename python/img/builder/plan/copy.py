"""`plan_copy`: from a parsed COPY or ADD to its `CopyOp`, variables in place.

`plan.Planner` calls it. Source: Dockerfile reference, "COPY", "ADD", "Here-documents".
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

from img import _core
from img.builder.graph import CopyOp, CopyPart, InlineFile
from img.builder.plan.remotes import Remote, plan_remotes
from img.dockerfile import instructions as ins
from img.dockerfile.expand import expand_heredoc
from img.dockerfile.faults import fault
from img.errors import CopyError
from img.values import replace

if TYPE_CHECKING:
    from img.builder.plan import Planner, StageState


def plan_copy(
    planner: Planner, stage: ins.Stage, state: StageState, copy: ins.Copy
) -> tuple[CopyOp, tuple[int, ...]]:
    """Plans a COPY or an ADD.

    Returns:
        The op, and the nodes that it stands on: first the one that it copies onto.
    Raises:
        DockerfileError: a source is none, or a flag does not fit.
    """
    variables = state.scope.variables
    sources = tuple(planner.expand(copy, word, variables) for word in copy.sources)
    chown = planner.expand(copy, copy.chown, variables)
    chmod = planner.expand(copy, copy.chmod, variables)
    _check_flags(copy, chown=chown, chmod=chmod)
    inputs: tuple[int, ...] = (state.node,)
    if copy.from_:
        inputs = (state.node, planner.source_node(stage, copy, copy.from_))
    remotes = plan_remotes(planner, stage, state, copy, sources)
    dest = planner.expand(copy, copy.dest, variables)
    slash = "/" if dest.endswith(("/", "/.")) or dest in (".", "") else ""
    absolute = planner.absolute(state, dest)
    if not slash and len(sources) + len(copy.heredocs) > 1:
        planner.warnings.append(
            f"{copy.span.where}: several sources and no slash at the end of {dest}: unless that is a "
            "folder, each file takes the place of the one before"
        )
    unpack = copy.add if copy.unpack is None else copy.unpack
    parts, fetched = _parts(sources, remotes, first=len(inputs), unpack=unpack, asked=bool(copy.unpack))
    op = CopyOp(
        parts=parts,
        dest=absolute + (slash if absolute != "/" else ""),
        inline=tuple(InlineFile(name=h.name, content=_body(copy, h, variables)) for h in copy.heredocs),
        chown=chown,
        chmod=chmod,
        exclude=copy.exclude,  # the one flag with words whose variables stay as they are
        link=copy.link,
        parents=copy.parents,
    )
    return op, (*inputs, *fetched)


def _parts(
    sources: tuple[str, ...], remotes: tuple[Remote | None, ...], *, first: int, unpack: bool, asked: bool
) -> tuple[tuple[CopyPart, ...], tuple[int, ...]]:
    """The parts in the Dockerfile's order, neighbours from one place as one; and the nodes that fetch.

    Args:
        remotes: For each source what fetches it, or None.
        first: The index that the first of those nodes has among the inputs; what is not fetched is
            looked up in the input before it.
        asked: `--unpack` says so; without it, only archives of the context are extracted.
    """
    parts: list[CopyPart] = []
    fetched: list[int] = []
    for source, remote in zip(sources, remotes, strict=True):
        if remote is not None:
            place = first + len(fetched)
            words = (remote.pattern,)
            parts.append(CopyPart(patterns=words, input=place, unpack=asked, shown=remote.shown))
            fetched.append(remote.node)
        elif parts and parts[-1].input == first - 1:
            parts[-1] = replace(parts[-1], patterns=(*parts[-1].patterns, source))
        else:
            parts.append(CopyPart(patterns=(source,), input=first - 1, unpack=unpack))
    return tuple(parts), tuple(fetched)


def _check_flags(copy: ins.Copy, *, chown: str, chmod: str) -> None:
    """Refuses flags whose values, variables in place, cannot be carried out."""
    if chmod:
        try:
            _core.change_mode(chmod)
        except CopyError as error:
            raise fault(
                copy.span,
                f"--chmod={chmod} is {error.reason}",
                at=f"--chmod={copy.chmod}",
                offset=len("--chmod="),
            ) from error
    for word in copy.exclude:
        try:
            _core.IgnoreRules([word])
        except CopyError as error:
            raise fault(
                copy.span,
                f"--exclude={word}: {error.reason}",
                at=f"--exclude={word}",
                offset=len("--exclude="),
                hint="as in .dockerignore: * ? [a-z], ** for folders, ! to take back",
            ) from error


def _body(copy: ins.Copy, heredoc: ins.Heredoc, variables: Mapping[str, str]) -> str:
    if not heredoc.expand:
        return heredoc.content
    try:
        return expand_heredoc(heredoc.content, variables)
    except ValueError as error:
        raise fault(copy.span, f"in the here-document {heredoc.name}: {error}") from error


def copy_title(op: CopyOp) -> str:
    """The line that the first img showed for a copy."""
    sources = op.sources
    first = posixpath.normpath("/" + (sources[0] if sources else "")).lstrip("/")
    source = f"/src-0/{first}" if first else "/src-0"
    if op.parts and op.parts[0].shown:
        source = op.parts[0].shown
    names = [source, *sources[1:], *(f"<<{file.name}" for file in op.inline)]
    if not sources:
        names = names[1:]
    return f"RUN [copy {' '.join(names)} /dest{op.dest}]"
