"""`-o`: where the image of a build goes, as docker writes it: the store, or a registry. Flags to values.

`build` calls `outputs`. Source: docker buildx build, "--output"; BuildKit README, "Image/Registry".
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

import click

from img import regex

_TRUE = {"true": True, "1": True, "": True, "false": False, "0": False}
_KNOWN = ("type", "name", "push", "compression", "compression-level", "force-compression", "oci-mediatypes")
_ANNOTATION = regex.compile(r"annotation(?:-([a-z-]+))?(\[[^\]]*\])?\.(.+)")


def outputs(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Joins every `-o` and the flags that say the same; gives fields of a `BuildRequest`.

    Raises:
        click.UsageError: one is malformed, is of another type, or contradicts what was said elsewhere.
    """
    tags: list[str] = list(flags["tags"])
    annotations: list[str] = list(flags["annotations"])
    push: bool = flags["push"]
    said: dict[str, Any] = {
        "compression": flags["compression"] or "",
        "compression_level": flags["level"],
        "force_compression": flags["force"],
    }
    for text in flags["outputs"]:
        read = _read(text)
        push = push or _flag(text, read, "push", default=read["type"] == "registry")
        names = [name.strip() for name in read.get("name", "").split(",") if name.strip()]
        tags += [name for name in names if name not in tags]
        _join(text, said, "compression", read.get("compression", ""), nothing="")
        _join(text, said, "compression_level", _level(text, read), nothing=None)
        annotations += [
            f"{(found[1] or 'manifest')}{found[2] or ''}:{found[3]}={value}"
            for name, value in read.items()
            if (found := _ANNOTATION.fullmatch(name))
        ]
        said["force_compression"] |= _flag(text, read, "force-compression", default=False)
        if not _flag(text, read, "oci-mediatypes", default=True):
            raise _bad(text, "images are OCI images here")
    return {"tags": tuple(tags), "push": push, "annotations": tuple(annotations), **said}


def _read(text: str) -> dict[str, str]:
    """The attributes of one `-o`."""
    (row,) = csv.reader([text]) if text else ([],)
    read = {}
    for word in row:
        name, equals, value = word.partition("=")
        if not equals:
            raise _bad(text, f"{word!r} is no NAME=VALUE")
        name = name.strip()
        read[name if _ANNOTATION.fullmatch(name) else name.lower()] = value.strip()
    kind = read.setdefault("type", "")
    if kind not in ("image", "registry"):
        raise _bad(text, "type is image or registry; archives and folders are written by img save and unpack")
    unknown = [name for name in read if name not in _KNOWN and not _ANNOTATION.fullmatch(name)]
    if unknown:
        raise _bad(
            text, f"{unknown[0]} is no attribute of it; there are {', '.join(_KNOWN)}, annotation.NAME"
        )
    if read.get("compression", "gzip") not in ("gzip", "zstd", "none", "uncompressed"):
        raise _bad(text, "compression is gzip, zstd or uncompressed")
    if read.get("compression") == "uncompressed":  # BuildKit's word
        read["compression"] = "none"
    return read


def _flag(text: str, read: Mapping[str, str], name: str, *, default: bool) -> bool:
    if name not in read:
        return default
    if read[name].lower() not in _TRUE:
        raise _bad(text, f"{name} is true or false")
    return _TRUE[read[name].lower()]


def _level(text: str, read: Mapping[str, str]) -> int | None:
    level = read.get("compression-level")
    if level is None:
        return None
    if not level.isdecimal() or len(level) > 4:
        raise _bad(text, "compression-level is a number")
    return int(level)


def _join(text: str, said: dict[str, Any], name: str, value: Any, *, nothing: object) -> None:
    """One build compresses in one way: what is said twice must be the same."""
    if value == nothing:
        return
    if said[name] not in (nothing, value):
        word = name.replace("_", "-")
        raise _bad(text, f"{word} is {value} here and {said[name]} elsewhere: one build has one")
    said[name] = value


def _bad(text: str, why: str) -> click.UsageError:
    return click.UsageError(f"-o {text}: {why}.")
