"""Users and groups of an image: from `user[:group]` to numbers, by its own passwd and group files.

Source: Dockerfile reference, "USER" and "COPY --chown": a user alone runs in its primary group, or
in group root where it has none; a user with a group has that group only; numbers need no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from img.errors import ImgError
from img.values import dataclass

ReadFile = Callable[[str], "bytes | None"]
"""Reads a small file of the image by its absolute path; None where there is none."""


class UnknownUser(ImgError):
    """A name is in neither /etc/passwd nor /etc/group of the image. `name`, `file`."""

    fields = ("name", "file")

    def __init__(self, name: str, file: str) -> None:
        super().__init__(
            f"there is no {name!r} in the image's {file}",
            hint="create it in an earlier RUN (useradd, adduser), or write its number",
        )
        self.name = name
        self.file = file


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a process is. Its own group is among `groups`, as container engines have it."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def identity(user: str, read: ReadFile) -> Identity:
    """Looks up whom a RUN runs as.

    Raises:
        UnknownUser: a name that the image does not know.
    """
    name, _, group = user.partition(":")
    name = name or "0"
    entry = next((e for e in _lines(read, "/etc/passwd") if _is(e, name)), None)
    if entry is None and not name.isdecimal():
        raise UnknownUser(name, "/etc/passwd")
    uid = _number(entry, 2, int(name) if name.isdecimal() else 0)
    home = entry[5] if entry and len(entry) > 5 and entry[5] else "/"
    if group:
        gid = _group(group, read)
        return Identity(uid=uid, gid=gid, groups=(gid,), home=home)
    login = entry[0] if entry else ""
    groups = tuple(
        _number(g, 2, 0) for g in _lines(read, "/etc/group") if len(g) > 3 and login in g[3].split(",")
    )
    gid = _number(entry, 3, 0)
    groups = tuple(dict.fromkeys((gid, *groups))) if login else (gid,)
    return Identity(uid=uid, gid=gid, groups=groups, home=home)


def named_owner(chown: str) -> bool:
    """Must the image's own files be read to know who `--chown` means?"""
    return any(not _is_number(part) for part in chown.split(":", 1) if part)


def owner(chown: str, read: ReadFile, unknown: Callable[[UnknownUser], object]) -> tuple[int, int]:
    """Looks up `--chown=user[:group]`; a user alone gives its own number to the group, too.

    Args:
        unknown: Told of a name that the image does not know. An unknown user is 0:0, an unknown group
            changes nothing: so it is where a Dockerfile was written for, and a build goes on.
    """
    name, _, group = chown.partition(":")
    uid = gid = 0
    if _is_number(name):
        uid = gid = _root_or(name)
    elif name:
        entry = next((e for e in _lines(read, "/etc/passwd") if e[0] == name), None)
        if entry is None:
            unknown(UnknownUser(name, "/etc/passwd"))
        uid = _number(entry, 2, 0)
        gid = _number(entry, 3, uid)
    if _is_number(group):
        return uid, _root_or(group)
    if group:
        try:
            return uid, _group(group, read)
        except UnknownUser as error:
            unknown(error)
    return uid, gid


def _is_number(word: str) -> bool:
    return word == "root" or (word.isascii() and word.isdecimal())


def _root_or(word: str) -> int:
    """A number; `root` is 0 in every image."""
    return 0 if word == "root" else int(word)


def _group(group: str, read: ReadFile) -> int:
    if group.isdecimal():
        return int(group)
    entry = next((e for e in _lines(read, "/etc/group") if e[0] == group), None)
    if entry is None:
        raise UnknownUser(group, "/etc/group")
    return _number(entry, 2, 0)


def _is(entry: list[str], name: str) -> bool:
    return entry[0] == name or (name.isdecimal() and len(entry) > 2 and entry[2] == str(int(name)))


def _number(entry: list[str] | None, position: int, default: int) -> int:
    text = entry[position] if entry and len(entry) > position else ""
    return int(text) if text.isdecimal() else default


def _lines(read: ReadFile, path: str) -> Iterator[list[str]]:
    """The fields of each line of a colon-separated file."""
    for line in (read(path) or b"").decode("utf-8", "replace").splitlines():
        if line and not line.startswith("#"):
            yield line.split(":")
