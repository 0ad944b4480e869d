"""`read_healthcheck`: the grammar of HEALTHCHECK. Source: Dockerfile reference, "HEALTHCHECK"."""

from __future__ import annotations

import re

from img.dockerfile.durations import nanoseconds
from img.dockerfile.faults import fault
from img.dockerfile.flags import Flags, Kind, Known, read_flags
from img.dockerfile.forms import command, need
from img.dockerfile.instructions import Healthcheck
from img.dockerfile.near import did_you_mean
from img.dockerfile.source import Line
from img.dockerfile.words import BLANKS

_HEALTH_FLAGS: Known = {
    "interval": Kind.TEXT,
    "timeout": Kind.TEXT,
    "start-period": Kind.TEXT,
    "start-interval": Kind.TEXT,
    "retries": Kind.TEXT,
}
_SHORTEST_NANOSECONDS = 1_000_000


def read_healthcheck(line: Line) -> Healthcheck:
    """Makes a HEALTHCHECK.

    Raises:
        DockerfileError: it is neither NONE nor CMD and a command, or a flag is wrong.
    """
    flags = read_flags(line, _HEALTH_FLAGS)
    need(line, flags.rest, "NONE, or CMD and a command", "CMD curl -f http://localhost/")
    kind, *rest = BLANKS.split(flags.rest, maxsplit=1)
    text = rest[0] if rest else ""
    if kind.upper() == "NONE":
        if text:
            raise fault(line.span, "HEALTHCHECK NONE takes nothing more", at=text, hint="remove the rest")
        return Healthcheck(span=line.span, original=line.original, test=("NONE",))
    if kind.upper() != "CMD":
        hint = did_you_mean(kind, ("CMD", "NONE")) or f"write HEALTHCHECK CMD {flags.rest}"
        raise fault(line.span, f"HEALTHCHECK takes NONE or CMD, not {kind!r}", at=kind, hint=hint)
    words, exec_form = command(line, text)
    if not "".join(words):
        raise fault(
            line.span, "HEALTHCHECK CMD needs a command", at=kind, hint="e.g. CMD curl -f http://localhost/"
        )
    return Healthcheck(
        span=line.span,
        original=line.original,
        test=("CMD" if exec_form else "CMD-SHELL", *words),
        interval=_duration(line, flags, "interval"),
        timeout=_duration(line, flags, "timeout"),
        start_period=_duration(line, flags, "start-period"),
        start_interval=_duration(line, flags, "start-interval"),
        retries=_retries(line, flags),
    )


def _duration(line: Line, flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        value = nanoseconds(text)
    except ValueError as error:
        hint = f"e.g. --{name}=1m30s"
        raise fault(
            line.span, f"--{name}: {error}", at=f"--{name}", offset=len(name) + 3, hint=hint
        ) from error
    if value and value < _SHORTEST_NANOSECONDS:
        hint = "the shortest is 1ms; 0 means the default"
        raise fault(line.span, f"--{name} is too short", at=f"--{name}", offset=len(name) + 3, hint=hint)
    return value


def _retries(line: Line, flags: Flags) -> int:
    text = flags.text("retries")
    if not text:
        return 0
    if not re.fullmatch(r"\+?[0-9]{1,10}", text, re.ASCII) or int(text) >= 2**31:
        message = f"--retries is a whole number, 0 or more, not {text!r}"
        raise fault(line.span, message, at="--retries", offset=len("--retries="))
    return int(text)
