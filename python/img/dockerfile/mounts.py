"""`read_mount`: one `RUN --mount=…`, from its comma-separated text to named options.

Values stay unexpanded; one that holds a variable is checked by the builder, once it is known.
Source: Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import csv

from img.dockerfile.faults import fault
from img.dockerfile.instructions import Mount
from img.dockerfile.near import did_you_mean
from img.dockerfile.source import Line
from img.errors import DockerfileError

_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_BARE = ("readonly", "readwrite", "required")
_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_OWNED = ("cache", "secret", "ssh")
_SHARINGS = ("shared", "private", "locked")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "type": _TYPES,
    "from": ("bind", "cache", "tmpfs", "ssh"),
    "source": _TYPES,
    "target": _TYPES,
    "readonly": _TYPES,
    "readwrite": _TYPES,
    "id": _TYPES,
    "sharing": ("cache",),
    "required": ("secret", "ssh"),
    "size": ("tmpfs",),
    "mode": _OWNED,
    "uid": _OWNED,
    "gid": _OWNED,
    "env": ("secret",),
}


def read_mount(line: Line, text: str) -> Mount:
    """Reads the value of one `--mount`.

    Args:
        line: The RUN, for errors.
        text: Comma-separated `key=value`; a field with a comma in it is quoted as in CSV.
    Raises:
        DockerfileError: a key is unknown, lacks its value, or does not belong to the mount's type.
    """
    options = [_option(line, field) for field in _fields(line, text)]
    if not any(key == "type" for key, _ in options):
        options.insert(0, ("type", "bind"))
    kind = [value for key, value in options if key == "type"][-1].lower()
    if "$" not in kind:
        _check(line, text, kind, options)
    return Mount(options=tuple(options))


def _fields(line: Line, text: str) -> list[str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise fault(line.span, f"--mount cannot be read: {error}", at=text) from error
    if len(rows) != 1 or not rows[0]:
        raise fault(
            line.span, "--mount has no options", at="--mount", hint="e.g. --mount=type=cache,target=/x"
        )
    return rows[0]


def _option(line: Line, field: str) -> tuple[str, str]:
    written, equals, value = field.partition("=")
    key = _ALIASES.get(written.lower(), written.lower())
    if key not in _ALLOWED:
        hint = did_you_mean(written, (*_ALLOWED, *_ALIASES))
        hint = hint or f"the options are {', '.join(_ALLOWED)}"
        raise fault(line.span, f"--mount knows no option {written!r}", at=field, hint=hint)
    if not equals:
        if key not in _BARE:
            raise fault(
                line.span, f"the option {written!r} needs a value", at=field, hint=f"write {written}=VALUE"
            )
        value = "true"
    if key == "from" and _has_variable(value):
        raise no_variable(line, "from", value)
    return key, value


def _check(line: Line, text: str, kind: str, options: list[tuple[str, str]]) -> None:
    if kind not in _TYPES:
        hint = did_you_mean(kind, _TYPES) or f"the types are {', '.join(_TYPES)}"
        raise fault(line.span, f"there is no mount type {kind!r}", at=text, hint=hint)
    for key, value in options:
        if kind not in _ALLOWED[key]:
            hint = f"{key} belongs to type={' or '.join(_ALLOWED[key])}"
            raise fault(line.span, f"a {kind} mount has no option {key!r}", at=text, hint=hint)
        if key == "sharing" and "$" not in value and value.lower() not in _SHARINGS:
            hint = did_you_mean(value, _SHARINGS) or f"it is {', '.join(_SHARINGS)}"
            raise fault(line.span, f"there is no sharing {value!r}", at=text, hint=hint)
    keys = {key for key, _ in options}
    if kind == "secret" and not keys & {"id", "source", "target", "env"}:
        raise fault(line.span, "a secret mount needs an id", at=text, hint="write id=NAME")
    if kind == "secret" and {"id", "source"} <= keys:
        raise fault(line.span, "a secret mount has both id and source", at=text, hint="keep id")


def _has_variable(value: str) -> bool:
    return "$" in value[:-1]


def no_variable(line: Line, name: str, value: str) -> DockerfileError:
    """The error for a variable where BuildKit expands none: the name of a stage or image."""
    hint = f"write FROM {value} AS some-name, and {name}=some-name"
    return fault(line.span, f"{name} cannot hold a variable", at=value, hint=hint)
