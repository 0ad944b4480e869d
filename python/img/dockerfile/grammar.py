"""`instruction`: from one `Line` to its class, one maker for each instruction.

`stages` calls it for every line. Nothing is expanded here: words stay as they were written.
Source: Dockerfile reference, one section for each instruction.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from img import regex
from img.dockerfile.faults import fault
from img.dockerfile.files import read_copy
from img.dockerfile.flags import Kind, read_flags
from img.dockerfile.forms import NO_FLAGS, command, exec_form_of, need, word_list
from img.dockerfile.healthcheck import read_healthcheck
from img.dockerfile.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from img.dockerfile.near import did_you_mean
from img.dockerfile.run import read_run
from img.dockerfile.source import Line
from img.dockerfile.words import BLANKS, blank_words, quoted_words
from img.errors import DockerfileError
from img.values import replace

_STAGE_NAME = regex.compile(r"[a-z][a-z0-9_.-]*")
NOT_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")
"""The instructions that ONBUILD cannot hold back."""


def instruction(line: Line) -> Instruction:
    """Makes the class of one instruction.

    Raises:
        DockerfileError: the keyword is unknown, or the instruction is not what its grammar asks for.
    """
    maker = _MAKERS.get(line.keyword)
    if maker is None:
        written = line.original[: len(line.keyword)]
        hint = _odd_blank(written) or did_you_mean(line.keyword, _MAKERS)
        hint = hint or "the instructions are " + ", ".join(_MAKERS)
        raise fault(line.span, f"unknown instruction {written}", at=written, hint=hint)
    return maker(line)


def _odd_blank(word: str) -> str:
    """The hint for a keyword with an invisible character in it, as text copied from a page may have."""
    for char in word:
        if not char.isprintable():
            name = unicodedata.name(char, "a character that does not show").lower()
            return f"it holds {name} (U+{ord(char):04X}), which is no blank here"
    return ""


def _from(line: Line) -> From:
    flags = read_flags(line, {"platform": Kind.TEXT})
    words = blank_words(flags.rest)
    need(line, flags.rest, "an image", "debian:12-slim AS build")
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        at = words[1] if words[1].upper() != "AS" else words[-1]
        hint = "did you mean AS?" if len(words) == 3 else "FROM image [AS name]"
        raise fault(line.span, "FROM takes an image, or an image AS a name", at=at, hint=hint)
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        hint = "it starts with a letter, and holds letters, digits, '_', '-' and '.'"
        raise fault(line.span, f"a stage cannot be named {words[2]!r}", at=words[2], hint=hint)
    return From(
        span=line.span, original=line.original, image=words[0], name=name, platform=flags.text("platform")
    )


def _pairs(line: Line, example: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The pairs of ENV and LABEL, and whether they are in the old form, `name value`."""
    text = read_flags(line, NO_FLAGS).rest
    words = quoted_words(text, line.escape)
    need(line, "".join(words), "a name and a value", example)
    if "=" not in words[0]:
        name, *value = BLANKS.split(text, maxsplit=1)
        if not value:
            hint = f"write {line.keyword} {name}=VALUE"
            raise fault(line.span, f"{line.keyword} needs a value for {name}", at=name, hint=hint)
        return ((name, value[0]),), True
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value_ = word.partition("=")
        if not equals:
            hint = "every word is name=value; quote a value that holds blanks"
            raise fault(line.span, f"{word!r} has no '='", at=word, hint=hint)
        if not name:
            raise fault(
                line.span, f"{line.keyword} has a value without a name", at=word, hint="write name=value"
            )
        pairs.append((name, value_))
    return tuple(pairs), False


def _env(line: Line) -> Env:
    pairs, legacy = _pairs(line, "PATH=/app/bin:$PATH")
    return Env(span=line.span, original=line.original, pairs=pairs, legacy=legacy)


def _label(line: Line) -> Label:
    pairs, _ = _pairs(line, 'version="1.0"')
    return Label(span=line.span, original=line.original, pairs=pairs)


def _arg(line: Line) -> Arg:
    words = quoted_words(read_flags(line, NO_FLAGS).rest, line.escape)
    need(line, "".join(words), "a name", "VERSION=1.0")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise fault(line.span, "ARG has a value without a name", at=word, hint="write ARG name=value")
        pairs.append((name, value if equals else None))
    return Arg(span=line.span, original=line.original, pairs=tuple(pairs))


def _expose(line: Line) -> Expose:
    text = read_flags(line, NO_FLAGS).rest
    need(line, text, "a port", "8080/tcp")
    return Expose(span=line.span, original=line.original, ports=blank_words(text))


def _volume(line: Line) -> Volume:
    paths = word_list(line, read_flags(line, NO_FLAGS).rest)
    need(line, "".join(paths), "a path", "/data")
    if not all(path.strip() for path in paths):
        raise fault(line.span, "VOLUME cannot have an empty path", hint='e.g. VOLUME ["/data"]')
    return Volume(span=line.span, original=line.original, paths=paths)


def _one(line: Line, what: str, example: str) -> str:
    text = read_flags(line, NO_FLAGS).rest
    need(line, text, what, example)
    return text


def _user(line: Line) -> User:
    return User(span=line.span, original=line.original, user=_one(line, "a user", "app:app"))


def _workdir(line: Line) -> Workdir:
    return Workdir(span=line.span, original=line.original, path=_one(line, "a path", "/app"))


def _stopsignal(line: Line) -> StopSignal:
    return StopSignal(span=line.span, original=line.original, signal=_one(line, "a signal", "SIGTERM"))


def _maintainer(line: Line) -> Maintainer:
    return Maintainer(
        span=line.span, original=line.original, name=_one(line, "a name", "a.person@example.org")
    )


def _cmd(line: Line) -> Cmd:
    words, exec_form = command(line, read_flags(line, NO_FLAGS).rest)
    return Cmd(span=line.span, original=line.original, words=words, exec_form=exec_form)


def _entrypoint(line: Line) -> Entrypoint:
    words, exec_form = command(line, read_flags(line, NO_FLAGS).rest)
    return Entrypoint(span=line.span, original=line.original, words=words, exec_form=exec_form)


def _shell(line: Line) -> Shell:
    text = read_flags(line, NO_FLAGS).rest
    words = exec_form_of(line, text)
    if not words:
        hint = 'e.g. SHELL ["/bin/bash", "-c"]'
        raise fault(line.span, "SHELL needs a list in JSON form", at=text, hint=hint)
    return Shell(span=line.span, original=line.original, words=words)


def _onbuild(line: Line) -> Onbuild:
    text = read_flags(line, NO_FLAGS).rest
    need(line, text, "an instruction", "COPY . /app")
    keyword, *value = BLANKS.split(text, maxsplit=1)
    if keyword.upper() in NOT_TRIGGERS:
        hint = "any other instruction can be"
        raise fault(line.span, f"{keyword.upper()} cannot be an ONBUILD trigger", at=keyword, hint=hint)
    inner = replace(line, keyword=keyword.upper(), value="".join(value), original=text)
    trigger = "\n".join([text, *(f"{doc.content}{doc.name}" for doc in line.heredocs)])
    try:
        triggered = instruction(inner)
    except DockerfileError:  # docker reads a trigger only where it is set off
        triggered = None
    return Onbuild(span=line.span, original=line.original, trigger=trigger, instruction=triggered)


_MAKERS: dict[str, Callable[[Line], Instruction]] = {
    "FROM": _from,
    "RUN": read_run,
    "COPY": read_copy,
    "ADD": read_copy,
    "ARG": _arg,
    "ENV": _env,
    "LABEL": _label,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "USER": _user,
    "WORKDIR": _workdir,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "HEALTHCHECK": read_healthcheck,
    "ONBUILD": _onbuild,
    "MAINTAINER": _maintainer,
}
