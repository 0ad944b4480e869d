"""`plan_copy`: from a parsed COPY or ADD to its `CopyOp`, variables in place.

`plan.Planner` calls it. Source: Dockerfile reference, "COPY", "ADD", "Here-documents".
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

from img import _core
from img.builder.graph import CopyOp, CopyPart, InlineFile
from img.builder.users import named_owner
from img.dockerfile import instructions as ins
from img.dockerfile.expand import expand_heredoc
from img.dockerfile.faults import fault
from img.errors import CopyError

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
    _refuse(copy, sources)
    _check_flags(copy, chown=chown, chmod=chmod)
    inputs: tuple[int, ...] = (state.node,)
    if copy.from_:
        inputs = (state.node, planner.source_node(stage, copy, copy.from_))
    dest = planner.expand(copy, copy.dest, variables)
    slash = "/" if dest.endswith(("/", "/.")) or dest in (".", "") else ""
    absolute = planner.absolute(state, dest)
    if not slash and len(sources) + len(copy.heredocs) > 1:
        planner.warnings.append(
            f"{copy.span.where}: several sources and no slash at the end of {dest}: unless that is a "
            "folder, each file takes the place of the one before"
        )
    unpack = copy.add if copy.unpack is None else copy.unpack
    part = CopyPart(patterns=sources, input=len(inputs) - 1, unpack=unpack)
    op = CopyOp(
        parts=(part,) if sources else (),
        dest=absolute + (slash if absolute != "/" else ""),
        inline=tuple(InlineFile(name=h.name, content=_body(copy, h, variables)) for h in copy.heredocs),
        chown=chown,
        chmod=chmod,
        exclude=copy.exclude,  # the one flag with words whose variables stay as they are
        link=copy.link,
        parents=copy.parents,
    )
    return op, inputs


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
    if copy.link and named_owner(chown):
        raise fault(
            copy.span,
            f"--chown={chown} names a user or group, which --link cannot look up in the image below",
            at=f"--chown={copy.chown}",
            offset=len("--chown="),
            hint="write the numbers, --chown=uid:gid, or leave out --link",
        )
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


def _refuse(copy: ins.Copy, sources: tuple[str, ...]) -> None:
    name = "ADD" if copy.add else "COPY"
    for word, source in zip(copy.sources, sources, strict=True):
        if copy.add and (_is_remote(source)):
            raise fault(
                copy.span,
                "ADD of a remote file or repository is not supported yet",
                at=word,
                hint="fetch it in a RUN, or before the build, and COPY it",
            )
    if copy.checksum:
        raise fault(copy.span, f"{name} --checksum is not supported yet", at="--checksum")


def _is_remote(source: str) -> bool:
    return source.startswith(("http://", "https://", "git://", "git@", "ssh://"))


def copy_title(op: CopyOp) -> str:
    """The line that the first img showed for a copy."""
    sources = op.sources
    first = posixpath.normpath("/" + (sources[0] if sources else "")).lstrip("/")
    source = f"/src-0/{first}" if first else "/src-0"
    names = [source, *sources[1:], *(f"<<{file.name}" for file in op.inline)]
    if not sources:
        names = names[1:]
    return f"RUN [copy {' '.join(names)} /dest{op.dest}]"
