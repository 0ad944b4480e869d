"""`LockFile`: what an `img.lock` says: which digest each name of a Dockerfile stands for.

`engine.locking` reads and writes it. Pure: text in, values out; nothing is looked up here. Its text is for
version control: sorted, one entry a line, and the same for the same entries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping
from typing import Literal
from urllib.parse import urlsplit

from img import regex
from img.errors import InvalidReference, LockError
from img.oci import Reference, is_digest
from img.oci.hashing import sha256
from img.remote import shown
from img.values import dataclass, field, replace

NAME = "img.lock"
VERSION = 1

Kind = Literal["images", "triggers", "git", "http"]
KINDS: tuple[Kind, ...] = ("images", "triggers", "git", "http")
"""Images that the Dockerfile names; those that only an ONBUILD trigger of a base names; what ADD fetches."""

_COMMIT = regex.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CONFLICT = regex.compile(r"(<{7}|={7}|>{7}|\|{7})(\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Name:
    """What an entry is of: an image's full name, or `http_name`, or `git_name`."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFile:
    """The entries of one file, by what they are of. A digest is `sha256:<hex>`, a commit its whole hash."""

    pins: Mapping[Name, str] = field(default_factory=dict)

    def image(self, reference: Reference) -> str:
        """The digest that an image's name is pinned to, or empty."""
        text = str(reference)
        found = self.pins.get(Name(kind="images", text=text))
        return found or self.pins.get(Name(kind="triggers", text=text), "")

    def http(self, url: str) -> str:
        """The digest that a file of the web is pinned to, or empty."""
        return self.pins.get(Name(kind="http", text=http_name(url)), "")

    def git(self, remote: str, ref: str) -> str:
        """The commit that a ref of a repository is pinned to, or empty."""
        return self.pins.get(Name(kind="git", text=git_name(remote, ref)), "")

    def with_pins(self, pins: Mapping[Name, str]) -> LockFile:
        """The same file with other entries."""
        return replace(self, pins=dict(pins))

    def text(self) -> str:
        """The whole file."""
        document: dict[str, object] = {"version": VERSION}
        for kind in KINDS:
            section = {name.text: pin for name, pin in sorted(self.pins.items()) if name.kind == kind}
            if section:
                document[kind] = section
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def parse_lock(data: bytes, *, path: str) -> LockFile:
    """Reads a lock file.

    Args:
        path: Its name in messages.
    Raises:
        LockError: it is none of this version; with its line.
    """
    text = data.decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), 1):
        if _CONFLICT.match(line):
            hint = "keep one side, then img lock adds what it lacks and drops what is too much"
            raise _fault(text, path, number, 1, "a merge conflict was left in it", hint)
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _object(text, path, pairs))
    except json.JSONDecodeError as error:
        message = f"it is no JSON: {error.msg}"
        raise _fault(text, path, error.lineno, error.colno, message, _RENEW) from error
    except RecursionError as error:
        raise LockError("it is nested too deeply", path=path, hint=_RENEW) from error
    if not isinstance(document, dict) or "version" not in document:
        raise _fault(text, path, 1, 1, "it is no lock file of img: it has no version", _RENEW)
    if document["version"] != VERSION or isinstance(document["version"], bool):
        message = f"it has the version {document['version']!r}; this img knows {VERSION}"
        raise _at(text, path, "version", message, "use the img that wrote it, or write it anew with img lock")
    pins: dict[Name, str] = {}
    for kind, section in document.items():
        if kind != "version":
            pins.update(_section(text, path, kind, section))
    return LockFile(pins=pins)


def place_of(data: bytes, name: Name) -> tuple[int, str]:
    """The number of the line that holds an entry, and that line; 0 where none does."""
    word = json.dumps(name.text, ensure_ascii=False)
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if line.strip().startswith(word):
            return number, line
    return 0, ""


def stale(lock: LockFile, used: Container[Name], named: Container[str], *, complete: bool) -> list[Name]:
    """The entries of a file that nothing in its Dockerfile asks for any more.

    Args:
        used: What was asked for.
        named: Images that the Dockerfile names, asked for or not.
        complete: Every stage was looked into; else only images are judged, since what the rest of a stage
            names is known once it is planned.
    """
    return [
        name
        for name in sorted(lock.pins)
        if name not in used and name.text not in named and (complete or name.kind == "images")
    ]


def http_name(url: str) -> str:
    """What a file of the web is called in a lock file.

    User and password are left out. A query may hold a token, and may tell one file from another: only a
    digest of it is shown.
    """
    query = urlsplit(url).query
    return shown(url) + (
        f"?{sha256(query.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}" if query else ""
    )


def git_name(remote: str, ref: str) -> str:
    """What a ref of a repository is called in a lock file; no ref is HEAD."""
    return f"{shown(remote)}#{ref or 'HEAD'}"


def is_commit(text: str) -> bool:
    """Tells a whole commit hash."""
    return _COMMIT.fullmatch(text.lower()) is not None


def matching(names: Iterable[Name], wanted: str) -> list[Name]:
    """The entries that a person means by a word: an image as it is written, a URL as it is listed."""
    words = {wanted}
    try:
        words.add(str(Reference.parse(wanted)))
    except InvalidReference:
        pass  # a URL, then
    return [name for name in names if words & {name.text, re.split(r"[?#]", name.text, maxsplit=1)[0]}]


# ---- parsing ---------------------------------------------------------------------------------------

_RENEW = "img lock writes it anew, once the file is removed"


def _section(text: str, path: str, kind: str, section: object) -> dict[Name, str]:
    known = next((word for word in KINDS if word == kind), None)
    if known is None:
        message = f"{kind!r} is no section of a lock file"
        raise _at(text, path, kind, message, f"the sections are {', '.join(KINDS)}")
    if not isinstance(section, dict):
        raise _at(text, path, kind, f"{kind} is no object of names and digests", _RENEW)
    found = {}
    for name, pin in section.items():
        fits = is_commit if kind == "git" else is_digest
        if not isinstance(pin, str) or not fits(pin):
            wanted = "a whole commit hash" if kind == "git" else "sha256: and 64 hexadecimal digits"
            raise _at(text, path, name, f"{name} is pinned to {pin!r}, which is not {wanted}", _RENEW)
        found[Name(kind=known, text=name)] = pin
    return found


def _object(text: str, path: str, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose names are all different: a merge may have left two."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _at(text, path, name, f"{name} is in it twice", "keep one of the two lines")
        found[name] = value
    return found


def _at(text: str, path: str, word: str, message: str, hint: str) -> LockError:
    """The error for an entry: at its last line."""
    quoted = json.dumps(word, ensure_ascii=False)
    row = max((n for n, line in enumerate(text.split("\n"), 1) if quoted in line), default=1)
    return _fault(text, path, row, text.split("\n")[row - 1].find(quoted) + 1, message, hint)


def _fault(text: str, path: str, line: int, column: int, message: str, hint: str) -> LockError:
    excerpt = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text.split("\n")[line - 1])
    return LockError(message, path=path, line=line, column=min(column, 200), excerpt=excerpt[:200], hint=hint)
