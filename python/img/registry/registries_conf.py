"""`read_rules`, `read_helpers`: what containers' `registries.conf` files say, for `Routes` and `HelperList`.

Called by the wire with its first request, and by the keychain with the first registry that wants credentials,
so that a command that asks nobody parses nothing. Search registries and short names are not taken: names are
completed as docker does it, whatever a file says.
Source: containers-registries.conf(5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from img import regex
from img.errors import UsageError, without_password
from img.registry.helper import HELPER_NAME
from img.registry.routes import Mirror, Rule, Use

if TYPE_CHECKING:
    import re

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HELPERS = "credential-helpers"
"""The name of the list in a file."""

_MAX_FILE_BYTES = 4 << 20
_PREFIX = regex.compile(r"(?:\*\.)?[A-Za-z0-9\[][^\s/]*(?:/\S+)?")
_LOCATION = regex.compile(r"[A-Za-z0-9\[][^\s/]*(?:/[^\s:@]+)?")
_LINE = regex.compile(r"at line (\d+), column (\d+)")


def read_rules(places: Iterable[str]) -> tuple[Rule, ...]:
    """Reads files, and the `*.conf` files of folders in the order of their names.

    Args:
        places: Files and folders; what is missing holds nothing.
    Returns:
        One rule for each prefix: that of the last file which has it.
    Raises:
        UsageError: a file cannot be read, or does not say what it should; with its place.
    """
    rules: dict[str, Rule] = {}
    for file, data in _documents(places):
        rules.update((rule.prefix, rule) for rule in file.rules(data))
    return tuple(rules.values())


def read_helpers(places: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Reads which credential helpers are asked, in their order.

    Returns:
        Their names, and the file and line that say so: the last one that has `credential-helpers`. Empty
        where none has, or where the list is empty.
    Raises:
        As `read_rules`.
    """
    found: tuple[tuple[str, ...], str] = ((), "")
    for file, data in _documents(places):
        if HELPERS in data:
            found = file.helpers(data[HELPERS])
    return found if found[0] else ((), "")


def _documents(places: Iterable[str]) -> Iterator[tuple[_File, dict[str, Any]]]:
    """The files that are there, in their order, each with what it says."""
    for place in places:
        for path in _files(place):
            document = _read(path)
            if document is not None:
                yield document


def _files(place: str) -> list[str]:
    if not os.path.isdir(place):
        return [place]
    try:
        names = sorted(name for name in os.listdir(place) if name.endswith(".conf"))
    except OSError as error:
        raise _unreadable(place, error) from error
    return [os.path.join(place, name) for name in names]


def _read(path: str) -> tuple[_File, dict[str, Any]] | None:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if len(raw) > _MAX_FILE_BYTES:
            raise ValueError(f"it is longer than {_MAX_FILE_BYTES} bytes")
        data = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        at = _LINE.search(str(error))
        where = f"{path}:{at[1]}:{at[2]}" if at else path
        reason = str(error).partition(" (at ")[0] if at else f"it is no TOML: {error}"
        raise UsageError(f"{where}: {reason}", hint="mend the file, or name another") from error
    return _File(path, raw.decode().splitlines()), data


def _unreadable(path: str, error: OSError) -> UsageError:
    return UsageError(f"cannot read {path}: {error.strerror}", hint="mend the file, or name another")


class _File:
    """One file, for errors that say where."""

    def __init__(self, path: str, lines: list[str]) -> None:
        self._path = path
        heads = [number for number, line in enumerate(lines, 1) if _bare(line) == "[[registry]]"]
        self._heads = dict(enumerate(heads))
        said = (number for number, line in enumerate(lines, 1) if _bare(line).startswith(f"{HELPERS}="))
        self._helpers = next(said, 0)
        self._at = path

    def rules(self, data: Mapping[str, Any]) -> list[Rule]:
        """What the file says.

        Raises:
            UsageError: it is not what it should be.
        """
        entries = data.get("registry", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._wrong("'registry' is no list of tables; write [[registry]]")
        old = data.get("registries", {})
        if not isinstance(old, dict):
            raise self._wrong("'registries' is no table")
        if entries and old:
            raise self._wrong("it mixes version 1 ([registries…]) and version 2 ([[registry]])")
        found = self._old(old)
        for number, entry in enumerate(entries):
            self._at = f"{self._path}:{self._heads[number]}" if number in self._heads else self._path
            found.append(self._rule(entry))
        return found

    def helpers(self, names: object) -> tuple[tuple[str, ...], str]:
        """The names of credential helpers, and where they stand.

        Raises:
            UsageError: they are not what they should be.
        """
        self._at = f"{self._path}:{self._helpers}" if self._helpers else self._path
        if not isinstance(names, list):
            raise self._wrong(f"{HELPERS!r} is no list of names")
        for name in names:
            if not isinstance(name, str) or not HELPER_NAME.fullmatch(name):
                raise self._wrong(
                    f"in {HELPERS!r} stands NAME for the program docker-credential-NAME, not {name!r}"
                )
        return tuple(names), self._at

    def _old(self, old: Mapping[str, Any]) -> list[Rule]:
        """Version 1: hosts that are insecure, and hosts that are blocked."""

        def hosts(name: str) -> list[str]:
            section = old.get(name, {})
            names = section.get("registries", []) if isinstance(section, dict) else None
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise self._wrong(f"'registries' of [registries.{name}] is no list of names")
            return names

        insecure, blocked = hosts("insecure"), hosts("block")
        return [
            Rule(prefix=name, insecure=name in insecure, blocked=name in blocked, source=self._path)
            for name in dict.fromkeys((*insecure, *blocked))
        ]

    def _rule(self, entry: Mapping[str, Any]) -> Rule:
        location = self._place(entry, "location", _LOCATION)
        prefix = self._place(entry, "prefix", _PREFIX) or location
        if not prefix:
            raise self._wrong("a [[registry]] needs 'prefix' or 'location'")
        if prefix == location:
            location = ""
        digests = self._flag(entry, "mirror-by-digest-only")
        mirrors = entry.get("mirror", [])
        if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
            raise self._wrong("'mirror' is no list of tables; write [[registry.mirror]]")
        return Rule(
            prefix=prefix,
            location=location,
            insecure=self._flag(entry, "insecure"),
            blocked=self._flag(entry, "blocked"),
            mirrors=tuple(self._mirror(mirror, digests=digests) for mirror in mirrors),
            source=self._at,
        )

    def _mirror(self, entry: Mapping[str, Any], *, digests: bool) -> Mirror:
        location = self._place(entry, "location", _LOCATION)
        if not location:
            raise self._wrong("a [[registry.mirror]] needs 'location'")
        wanted = entry.get("pull-from-mirror")
        if wanted and digests:
            raise self._wrong("'mirror-by-digest-only' and 'pull-from-mirror' exclude each other")
        try:
            use = Use(wanted or ("digest-only" if digests else "all"))
        except ValueError:
            kinds = ", ".join(kind.value for kind in Use)
            raise self._wrong(f"'pull-from-mirror' is one of {kinds}, not {wanted!r}") from None
        return Mirror(location=location, insecure=self._flag(entry, "insecure"), use=use)

    def _place(self, entry: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
        value = entry.get(name) or ""
        if not isinstance(value, str):
            raise self._wrong(f"{name!r} is no text")
        value = value.rstrip("/")
        shown = without_password(value)
        if "://" in value:
            raise self._wrong(f"{name!r} is written without http:// or https://, not as {shown!r}")
        if value and not form.fullmatch(value):
            raise self._wrong(f"{name!r} is host[:port][/namespace], not {shown!r}")
        return value

    def _flag(self, entry: Mapping[str, Any], name: str) -> bool:
        value = entry.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(f"{name!r} is true or false")
        return value

    def _wrong(self, reason: str) -> UsageError:
        return UsageError(f"{self._at}: {reason}")


def _bare(line: str) -> str:
    return "".join(line.partition("#")[0].split())
