"""`read_run`: the grammar of RUN. Source: Dockerfile reference, "RUN"."""

from __future__ import annotations

from img.dockerfile.faults import fault
from img.dockerfile.flags import Flags, Kind, Known, read_flags
from img.dockerfile.forms import command, need
from img.dockerfile.instructions import Run
from img.dockerfile.mounts import read_mount
from img.dockerfile.near import did_you_mean
from img.dockerfile.source import Line
from img.dockerfile.words import heredoc_mark

_RUN_FLAGS: Known = {"mount": Kind.MANY, "network": Kind.TEXT, "security": Kind.TEXT, "device": Kind.MANY}


def read_run(line: Line) -> Run:
    """Makes a RUN.

    Raises:
        DockerfileError: there is no command, or a flag is wrong.
    """
    flags = read_flags(line, _RUN_FLAGS)
    words, exec_form = command(line, flags.rest)  # nothing at all is a script, too: docker runs it
    if exec_form:
        need(line, "".join(words), "a command", "make install")
    _one_of(line, flags, "network", ("default", "none", "host"))
    _one_of(line, flags, "security", ("sandbox", "insecure"))
    mark = None if exec_form else heredoc_mark(flags.rest)
    return Run(
        span=line.span,
        original=line.original,
        words=words,
        exec_form=exec_form,
        heredocs=line.heredocs,
        lone_heredoc=mark is not None and len(line.heredocs) == 1,
        mounts=tuple(read_mount(line, text) for text in flags.many("mount")),
        network=flags.text("network"),
        security=flags.text("security"),
        devices=flags.many("device"),
    )


def _one_of(line: Line, flags: Flags, name: str, choices: tuple[str, ...]) -> None:
    value = flags.text(name)
    if name in flags.values and value not in choices:
        hint = did_you_mean(value, choices) or f"it is {' or '.join(choices)}"
        raise fault(
            line.span, f"--{name} cannot be {value!r}", at=f"--{name}", offset=len(name) + 3, hint=hint
        )
