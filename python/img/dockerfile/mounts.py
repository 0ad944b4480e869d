"""`read_mount` and `settle`: one `RUN --mount=…`, from its text to options, from options to `MountValues`.

`run` reads a mount with its variables still in place, and what holds none is checked at once; the
builder, which knows the variables, settles it. Both check the same things in the same words.
Source: Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from img.dockerfile.faults import fault
from img.dockerfile.instructions import Mount, Span
from img.dockerfile.near import did_you_mean
from img.dockerfile.sizes import size_bytes
from img.dockerfile.source import Line
from img.errors import DockerfileError
from img.values import dataclass

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
    "source": ("bind", "cache", "tmpfs", "secret"),
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
_IDLE: dict[str, tuple[str, ...]] = {
    "bind": ("id",),
    "cache": (),
    "tmpfs": ("from", "source", "id"),
    "secret": ("readonly", "readwrite"),
    "ssh": ("from", "readonly", "readwrite"),
}
"""What a type takes, as docker does, and has no use for."""

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_MOST_MODE = 0o7777
_MOST_ID = 2**32 - 2
"""The number above means no id at all."""

Expand = Callable[[str, str], str]
"""Gives an option's value, variables in place; takes the option's name and the value as written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountValues:
    """A mount as it is meant, variables in place. What was not given is empty or None.

    Attributes:
        readonly: With the type's default: a bind mount is, caches and tmpfs are not.
        size: In bytes; 0 for none.
        idle: Options that were given and change nothing about a mount of this type.
    """

    kind: str
    from_: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = False
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str = ""
    idle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Word:
    """An option's value, and how it stands in the Dockerfile."""

    value: str
    at: str


def read_mount(line: Line, text: str) -> Mount:
    """Reads the value of one `--mount`.

    Args:
        line: The RUN, for errors.
        text: Comma-separated `key=value`; a field with a comma in it is quoted as in CSV.
    Raises:
        DockerfileError: a key is unknown, lacks its value, or does not belong to the mount's type; a
            value that holds no variable is none.
    """
    options = [_option(line.span, field) for field in _fields(line.span, text)]
    if not any(key == "type" for key, _ in options):
        options.insert(0, ("type", "bind"))
    mount = Mount(options=tuple(options), original=text)
    words = _words(line.span, mount)
    known = {key: word for key, word in words.items() if "$" not in word.value}
    if "type" in known:
        _check_keys(line.span, text, known["type"], words)
    _Reader(line.span, known).check()
    return mount


def settle(span: Span, mount: Mount, expand: Expand) -> MountValues:
    """Puts the variables into a mount and gives it as it is meant.

    Raises:
        DockerfileError: a value is none, or belongs to another type.
    """
    words = {key: _Word(expand(key, word.value), word.at) for key, word in _words(span, mount).items()}
    _check_keys(span, mount.original, words["type"], words)
    return _Reader(span, words).values()


def _words(span: Span, mount: Mount) -> dict[str, _Word]:
    """The options by name, the last of a name counts; of `readonly` and `readwrite` the last of both."""
    fields = _fields(span, mount.original)
    if len(fields) < len(mount.options):
        fields.insert(0, mount.original)  # the type that goes without saying
    words: dict[str, _Word] = {}
    for (key, value), field in zip(mount.options, fields, strict=True):
        words.pop(key, None)
        words[key] = _Word(value, field)
    return words


def _fields(span: Span, text: str) -> list[str]:
    import csv  # few builds have such words

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise fault(span, f"--mount cannot be read: {error}", at=text) from error
    if len(rows) != 1 or not rows[0]:
        raise fault(span, "--mount has no options", at="--mount", hint="e.g. --mount=type=cache,target=/x")
    return rows[0]


def _option(span: Span, field: str) -> tuple[str, str]:
    written, equals, value = field.partition("=")
    key = _ALIASES.get(written.lower(), written.lower())
    if key not in _ALLOWED:
        hint = did_you_mean(written, (*_ALLOWED, *_ALIASES))
        hint = hint or f"the options are {', '.join(_ALLOWED)}"
        raise fault(span, f"--mount knows no option {written!r}", at=field, hint=hint)
    if not equals:
        if key not in _BARE:
            raise fault(
                span, f"the option {written!r} needs a value", at=field, hint=f"write {written}=VALUE"
            )
        value = "true"
    return key, value


def _check_keys(span: Span, text: str, type_: _Word, words: Mapping[str, _Word]) -> None:
    """Refuses options that belong to mounts of another type, and a secret that nothing names."""
    kind = type_.value.lower()
    if kind not in _TYPES:
        hint = did_you_mean(kind, _TYPES) or f"the types are {', '.join(_TYPES)}"
        raise fault(span, f"there is no mount type {kind!r}", at=type_.at, hint=hint)
    for key, word in words.items():
        if kind not in _ALLOWED[key]:
            hint = f"{key} belongs to type={' or '.join(_ALLOWED[key])}"
            article = "an" if kind == "ssh" else "a"
            raise fault(span, f"{article} {kind} mount has no option {key!r}", at=word.at, hint=hint)
    if kind == "secret" and not words.keys() & {"id", "source", "target"}:
        raise fault(span, "a secret mount needs an id", at=text, hint="write id=NAME")
    if kind == "secret" and {"id", "source"} <= words.keys():
        raise fault(span, "a secret mount has both id and source", at=words["source"].at, hint="keep id")


class _Reader:
    """Reads the values of one mount's options."""

    def __init__(self, span: Span, words: Mapping[str, _Word]) -> None:
        self._span = span
        self._words = words

    def check(self) -> None:
        """Reads whatever is there, for the sake of its errors."""
        for name in _BARE:
            self._switch(name)
        self._sharing()
        self._size()
        for name in ("mode", "uid", "gid"):
            self._number(name)

    def values(self) -> MountValues:
        kind = self._text("type").lower()
        readonly = kind not in ("cache", "tmpfs")
        for key in self._words:  # in the order of writing: the last one counts
            if key == "readonly":
                readonly = self._switch(key)
            elif key == "readwrite":
                readonly = not self._switch(key)
        return MountValues(
            kind=kind,
            from_=self._text("from"),
            source=self._text("source"),
            target=self._text("target"),
            readonly=readonly,
            id=self._text("id"),
            sharing=self._sharing(),
            required=self._switch("required"),
            size=self._size(),
            mode=self._number("mode"),
            uid=self._number("uid"),
            gid=self._number("gid"),
            env=self._text("env"),
            idle=tuple(key for key in self._words if key in _IDLE[kind]),
        )

    def _text(self, name: str) -> str:
        return self._words[name].value if name in self._words else ""

    def _switch(self, name: str) -> bool:
        value = self._text(name)
        if name in self._words and value not in (*_TRUE, *_FALSE):
            raise self._fault(name, f"{name} is true or false, not {value!r}", f"write {name} alone")
        return value in _TRUE

    def _sharing(self) -> str:
        value = self._text("sharing").lower()
        if value and value not in _SHARINGS:
            hint = did_you_mean(value, _SHARINGS) or f"it is {', '.join(_SHARINGS)}"
            raise self._fault("sharing", f"there is no sharing {value!r}", hint)
        return value or "shared"

    def _size(self) -> int:
        try:
            return size_bytes(self._text("size")) if "size" in self._words else 0
        except ValueError as error:
            raise self._fault("size", str(error), "e.g. size=64m") from error

    def _number(self, name: str) -> int | None:
        if name not in self._words:
            return None
        value = self._text(name)
        octal = name == "mode"
        digits = "01234567" if octal else "0123456789"
        number = int(value, 8 if octal else 10) if value and set(value) <= set(digits) else -1
        if not 0 <= number <= (_MOST_MODE if octal else _MOST_ID):
            what = "permission bits in octal" if octal else "a number"
            hint = "e.g. mode=0400" if octal else "names are not looked up here"
            raise self._fault(name, f"{name} is {what}, not {value!r}", hint)
        return number

    def _fault(self, name: str, message: str, hint: str) -> DockerfileError:
        return fault(self._span, message, at=self._words[name].at, hint=hint)


def has_variable(value: str) -> bool:
    """Tells whether a name holds a variable: a `$` with something behind it."""
    return "$" in value[:-1]


def no_variable(line: Line, name: str, value: str) -> DockerfileError:
    """The error for a variable where BuildKit expands none: the name of a stage or image."""
    hint = f"write FROM {value} AS some-name, and {name}=some-name"
    return fault(line.span, f"{name} cannot hold a variable", at=value, hint=hint)
