"""`instruction`: from one `Line` to its class, one maker for each instruction.

`stages` calls it for every line. Nothing is expanded here: words stay as they were written.
Source: Dockerfile reference, one section for each instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from img.dockerfile.durations import nanoseconds
from img.dockerfile.faults import fault
from img.dockerfile.flags import Flags, Kind, Known, read_flags
from img.dockerfile.instructions import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from img.dockerfile.mounts import no_variable, read_mount
from img.dockerfile.near import did_you_mean
from img.dockerfile.source import Line
from img.dockerfile.words import (
    BLANKS,
    NotStrings,
    blank_words,
    heredoc_mark,
    json_words,
    quoted_words,
)

_NO_FLAGS: Known = {}
_RUN_FLAGS: Known = {"mount": Kind.MANY, "network": Kind.TEXT, "security": Kind.TEXT, "device": Kind.MANY}
_FILE_FLAGS: Known = {"chown": Kind.TEXT, "chmod": Kind.TEXT, "link": Kind.SWITCH, "exclude": Kind.MANY}
_COPY_FLAGS: Known = {"from": Kind.TEXT, **_FILE_FLAGS, "parents": Kind.SWITCH}
_ADD_FLAGS: Known = {
    **_FILE_FLAGS,
    "checksum": Kind.TEXT,
    "keep-git-dir": Kind.SWITCH,
    "unpack": Kind.SWITCH,
}
_HEALTH_FLAGS: Known = {
    "interval": Kind.TEXT,
    "timeout": Kind.TEXT,
    "start-period": Kind.TEXT,
    "start-interval": Kind.TEXT,
    "retries": Kind.TEXT,
}
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_NOT_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")
_SHORTEST_NANOSECONDS = 1_000_000


def instruction(line: Line) -> Instruction:
    """Makes the class of one instruction.

    Raises:
        DockerfileError: the keyword is unknown, or the instruction is not what its grammar asks for.
    """
    maker = _MAKERS.get(line.keyword)
    if maker is None:
        hint = did_you_mean(line.keyword, _MAKERS) or "the instructions are " + ", ".join(_MAKERS)
        written = line.original[: len(line.keyword)]
        raise fault(line.span, f"unknown instruction {written}", at=written, hint=hint)
    return maker(line)


def _need(line: Line, text: str, what: str, example: str) -> None:
    if not text:
        raise fault(line.span, f"{line.keyword} needs {what}", hint=f"e.g. {line.keyword} {example}")


def _exec_form(line: Line, text: str) -> tuple[str, ...] | None:
    try:
        return json_words(text)
    except NotStrings as error:
        raise fault(line.span, str(error), at="[", hint="put every word in double quotes") from error


def _command(line: Line, text: str) -> tuple[tuple[str, ...], bool]:
    """The words of a command, and whether they are in exec form."""
    words = _exec_form(line, text)
    return ((text,), False) if words is None else (words, True)


def _list(line: Line, text: str) -> tuple[str, ...]:
    words = _exec_form(line, text)
    return blank_words(text) if words is None else words


def _from(line: Line) -> From:
    flags = read_flags(line, {"platform": Kind.TEXT})
    words = blank_words(flags.rest)
    _need(line, flags.rest, "an image", "debian:12-slim AS build")
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        at = words[1] if words[1].upper() != "AS" else words[-1]
        raise fault(
            line.span, "FROM takes an image, or an image AS a name", at=at, hint="FROM image [AS name]"
        )
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        hint = "it starts with a letter, and holds letters, digits, '_', '-' and '.'"
        raise fault(line.span, f"a stage cannot be named {words[2]!r}", at=words[2], hint=hint)
    return From(
        span=line.span, original=line.original, image=words[0], name=name, platform=flags.text("platform")
    )


def _run(line: Line) -> Run:
    flags = read_flags(line, _RUN_FLAGS)
    words, exec_form = _command(line, flags.rest)
    _need(line, "".join(words), "a command", "make install")
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


def _copy(line: Line) -> Copy:
    add = line.keyword == "ADD"
    flags = read_flags(line, _ADD_FLAGS if add else _COPY_FLAGS)
    words = _exec_form(line, flags.rest)
    exec_form = words is not None
    words = blank_words(flags.rest) if words is None else words
    if len(words) < 2:
        missing = "a source and a destination" if not words else "a destination as well"
        raise fault(line.span, f"{line.keyword} needs {missing}", hint=f"{line.keyword} source… destination")
    sources, heredocs = (words[:-1], ()) if exec_form else _inline_files(line, words)
    from_ = flags.text("from")
    if "$" in from_[:-1]:
        raise no_variable(line, "--from", from_)
    return Copy(
        span=line.span,
        original=line.original,
        sources=sources,
        dest=words[-1],
        add=add,
        heredocs=heredocs,
        from_=from_,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        exclude=flags.many("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=bool(flags.switch("keep-git-dir")),
        unpack=flags.switch("unpack"),
    )


def _inline_files(line: Line, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Heredoc, ...]]:
    """Parts the sources that are paths from those that are here-documents."""
    if heredoc_mark(words[-1]):
        hint = f"{line.keyword} <<EOF /the/file"
        raise fault(line.span, "a here-document cannot be the destination", at=words[-1], hint=hint)
    bodies = {heredoc.name: heredoc for heredoc in line.heredocs}
    paths: list[str] = []
    files: list[Heredoc] = []
    for word in words[:-1]:
        mark = heredoc_mark(word)
        if mark is not None and mark.name in bodies:
            files.append(bodies[mark.name])
        else:
            paths.append(word)
    return tuple(paths), tuple(files)


def _pairs(line: Line, example: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The pairs of ENV and LABEL, and whether they are in the old form, `name value`."""
    text = read_flags(line, _NO_FLAGS).rest
    words = quoted_words(text, line.escape)
    _need(line, "".join(words), "a name and a value", example)
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
    words = quoted_words(read_flags(line, _NO_FLAGS).rest, line.escape)
    _need(line, "".join(words), "a name", "VERSION=1.0")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise fault(line.span, "ARG has a value without a name", at=word, hint="write ARG name=value")
        pairs.append((name, value if equals else None))
    return Arg(span=line.span, original=line.original, pairs=tuple(pairs))


def _expose(line: Line) -> Expose:
    text = read_flags(line, _NO_FLAGS).rest
    _need(line, text, "a port", "8080/tcp")
    return Expose(span=line.span, original=line.original, ports=blank_words(text))


def _volume(line: Line) -> Volume:
    paths = _list(line, read_flags(line, _NO_FLAGS).rest)
    _need(line, "".join(paths), "a path", "/data")
    if not all(path.strip() for path in paths):
        raise fault(line.span, "VOLUME cannot have an empty path", hint='e.g. VOLUME ["/data"]')
    return Volume(span=line.span, original=line.original, paths=paths)


def _one(line: Line, what: str, example: str) -> str:
    text = read_flags(line, _NO_FLAGS).rest
    _need(line, text, what, example)
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
    words, exec_form = _command(line, read_flags(line, _NO_FLAGS).rest)
    return Cmd(span=line.span, original=line.original, words=words, exec_form=exec_form)


def _entrypoint(line: Line) -> Entrypoint:
    words, exec_form = _command(line, read_flags(line, _NO_FLAGS).rest)
    return Entrypoint(span=line.span, original=line.original, words=words, exec_form=exec_form)


def _shell(line: Line) -> Shell:
    text = read_flags(line, _NO_FLAGS).rest
    words = _exec_form(line, text)
    if not words:
        hint = 'e.g. SHELL ["/bin/bash", "-c"]'
        raise fault(line.span, "SHELL needs a list in JSON form", at=text, hint=hint)
    return Shell(span=line.span, original=line.original, words=words)


def _healthcheck(line: Line) -> Healthcheck:
    flags = read_flags(line, _HEALTH_FLAGS)
    _need(line, flags.rest, "NONE, or CMD and a command", "CMD curl -f http://localhost/")
    kind, *rest = flags.rest.split(maxsplit=1)
    text = rest[0] if rest else ""
    if kind.upper() == "NONE":
        if text:
            raise fault(line.span, "HEALTHCHECK NONE takes nothing more", at=text, hint="remove the rest")
        return Healthcheck(span=line.span, original=line.original, test=("NONE",))
    if kind.upper() != "CMD":
        hint = did_you_mean(kind, ("CMD", "NONE")) or f"write HEALTHCHECK CMD {flags.rest}"
        raise fault(line.span, f"HEALTHCHECK takes NONE or CMD, not {kind!r}", at=kind, hint=hint)
    words, exec_form = _command(line, text)
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


def _onbuild(line: Line) -> Onbuild:
    text = read_flags(line, _NO_FLAGS).rest
    _need(line, text, "an instruction", "COPY . /app")
    keyword, *value = BLANKS.split(text, maxsplit=1)
    if keyword.upper() in _NOT_TRIGGERS:
        hint = "any other instruction can be"
        raise fault(line.span, f"{keyword.upper()} cannot be an ONBUILD trigger", at=keyword, hint=hint)
    inner = replace(line, keyword=keyword.upper(), value="".join(value), original=text)
    trigger = "\n".join([text, *(f"{doc.content}{doc.name}" for doc in line.heredocs)])
    return Onbuild(span=line.span, original=line.original, trigger=trigger, instruction=instruction(inner))


_MAKERS: dict[str, Callable[[Line], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
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
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
    "MAINTAINER": _maintainer,
}
