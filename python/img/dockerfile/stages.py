"""`parse`: from a Dockerfile's bytes to its stages. The door of this floor.

The builder calls `parse` and `find_stage`, and `parse_trigger` for ONBUILD triggers of a base image.
Pure: no disk, no network, no variables.
Source: Dockerfile reference, "FROM", "ARG", "ONBUILD".
"""

from __future__ import annotations

from collections.abc import Iterator

from img.dockerfile.faults import fault
from img.dockerfile.frontend import check_asked_frontend, check_frontend
from img.dockerfile.grammar import NOT_TRIGGERS, instruction
from img.dockerfile.instructions import Arg, Copy, Dockerfile, From, Instruction, Run, Span, Stage
from img.dockerfile.near import did_you_mean, near
from img.dockerfile.source import parse_source
from img.errors import DockerfileError
from img.values import replace


def parse(data: bytes, *, path: str = "Dockerfile", syntax: str = "") -> Dockerfile:
    """Parses a whole Dockerfile.

    Args:
        data: The file's bytes.
        path: Its name, for errors and spans.
        syntax: What the caller has in place of the syntax directive (BUILDKIT_SYNTAX), or empty.
    Returns:
        Its directives, the ARGs before the first FROM, and at least one stage.
    Raises:
        DockerfileError: it cannot be built; the first mistake, with its line.
        UsageError: `syntax` names another language.
    """
    if syntax:
        check_asked_frontend(syntax)
    source = parse_source(data, path, on_syntax=None if syntax else check_frontend)
    args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in source.lines:
        parsed = instruction(line)
        if isinstance(parsed, From):
            stages.append((parsed, []))
        elif stages:
            stages[-1][1].append(parsed)
        elif isinstance(parsed, Arg):
            args.append(parsed)
        else:
            hint = "start with FROM image, or FROM scratch; only ARG may come before it"
            raise fault(line.span, f"{line.keyword} comes before the first FROM", at=line.keyword, hint=hint)
    if not stages:
        empty = "has no FROM" if source.lines else "is empty"
        raise DockerfileError(
            f"the Dockerfile {empty}", path=path, hint="start with FROM image, or FROM scratch"
        )
    return Dockerfile(
        path=path,
        args=tuple(args),
        stages=tuple(
            Stage(index=index, name=from_.name, from_=from_, instructions=tuple(found))
            for index, (from_, found) in enumerate(stages)
        ),
        escape=source.escape,
        syntax=source.syntax,
        check=source.check,
        check_span=source.spans.get("check"),
        comments=source.comments,
        warnings=source.warnings,
    )


def parse_trigger(text: str, *, where: Span) -> Instruction:
    """Parses an ONBUILD trigger out of a base image's config.

    Args:
        text: The trigger, without `ONBUILD`; bodies of here-documents follow it.
        where: The FROM that brought the trigger in; becomes the instruction's span.
    Raises:
        DockerfileError: it is not one instruction, or one that no trigger can be.
    """
    source = parse_source(text.encode("utf-8", "surrogateescape"), where.path)
    if len(source.lines) != 1 or source.lines[0].keyword in NOT_TRIGGERS:
        hint = "the base image was built with a trigger that cannot run"
        raise fault(where, f"the base image's ONBUILD trigger {text!r} is not an instruction", hint=hint)
    try:
        return instruction(replace(source.lines[0], span=where))
    except DockerfileError as error:
        message = f"in the base image's ONBUILD trigger {text!r}: {error.message}"
        raise fault(where, message, hint=error.hint) from error


def stage_named(dockerfile: Dockerfile, name: str, *, before: int | None = None) -> Stage | None:
    """Finds the last stage of a name, whatever the case of its letters.

    Args:
        dockerfile: Where to look.
        name: A name; a number is none.
        before: Look only at stages with a smaller index (what a FROM or a `--from` can see).
    Returns:
        The stage, or None where no stage has the name.
    """
    wanted = name.lower()
    seen = dockerfile.stages if before is None else dockerfile.stages[:before]
    return next((stage for stage in reversed(seen) if wanted and stage.name == wanted), None)


def find_stage(dockerfile: Dockerfile, name: str | int) -> Stage:
    """Finds the stage that a person asks for.

    Args:
        dockerfile: Where to look.
        name: Its name, or its number from 0 (as a number, or written).
    Raises:
        DockerfileError: there is none; the hint names one like it, or those that there are.
    """
    found = stage_named(dockerfile, str(name))
    if found is not None:
        return found
    text = str(name)
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(dockerfile.stages):
        return dockerfile.stages[int(text)]
    names = [stage.name for stage in dockerfile.stages if stage.name]
    hint = did_you_mean(text, names) or (
        f"the stages are {', '.join(names)}" if names else "no stage has a name"
    )
    raise DockerfileError(f"there is no stage {text!r}", path=dockerfile.path, hint=hint)


def near_stage(dockerfile: Dockerfile, name: str) -> str:
    """The hint `did you mean the stage NAME?` for an image's name that may be a mistaken stage's."""
    found = near(name, [stage.name for stage in dockerfile.stages if stage.name])
    return f"did you mean the stage {found}?" if found else ""


def sources(found: Instruction) -> Iterator[str]:
    """The names, as written, of the stages, images and contexts that an instruction takes files from."""
    if isinstance(found, From):
        yield found.image
    elif isinstance(found, Copy) and found.from_:
        yield found.from_
    elif isinstance(found, Run):
        for mount in found.mounts:
            yield from (value for key, value in mount.options if key == "from" and value)


def image_words(dockerfile: Dockerfile) -> Iterator[tuple[Instruction, str]]:
    """Every word that may name an image, with its instruction, as written."""
    for stage in dockerfile.stages:
        for found in (stage.from_, *stage.instructions):
            yield from ((found, word) for word in sources(found))
