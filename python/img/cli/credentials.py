"""`given`: credentials for one command, from `--creds`, `--creds-stdin` and the environment of CI.

Each is for one registry and goes to no other: the one that is written with it, or the only one that the
command names. `Globals.settings` calls it, and only where there are any.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from img import regex
from img.cli import clicks as click

VARIABLES = ("IMG_REGISTRY", "IMG_REGISTRY_USERNAME", "IMG_REGISTRY_PASSWORD")
"""Credentials in the environment: for which registry, and what they are."""

_FOR = regex.compile(
    r"((?:[\w-]+(?:\.[\w-]+)+|localhost|\[[0-9a-fA-F:.]+\]|[\w.-]+(?=:[0-9]))(?::[0-9]+)?(?:/[\w./-]+)?)=(.*)"
)
_NAMES = frozenset(
    {"name", "names", "tags", "source", "target", "destination", "src", "dst", "image", "images", "reference"}
)
"""Parameters of verbs that hold names of images."""
_OUTPUT_NAME = regex.compile(r"(?:^|,)name=([^,]+)")
_LONGEST_LINE = 64 << 10


def given(words: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """User name and password by place.

    Args:
        words: What `--creds` says, each `[REGISTRY=]USER[:PASSWORD]`.
    Raises:
        click.UsageError: it is not to be told which registry they are for, or there is no password.
    """
    found = _of_environment()
    for word in words:
        match = _FOR.fullmatch(word)
        place, pair = (match[1], match[2]) if match else ("", word)
        username, colon, password = pair.partition(":")
        if not username:
            raise click.UsageError("--creds takes [REGISTRY=]USER[:PASSWORD].")
        if not place:
            place = _only(_named_registries())
        found[place] = (username, password if colon else _asked(username, place))
    return found


def read_line() -> str:
    """The first line of standard input, for `--creds-stdin`; what follows it stays there.

    Raises:
        click.UsageError: there is none.
    """
    import sys

    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError(
            "--creds-stdin: standard input is a terminal; --creds USER asks for the password."
        )
    line = sys.stdin.buffer.readline(_LONGEST_LINE).decode("utf-8", "replace").rstrip("\r\n")
    if ":" not in line:
        raise click.UsageError("--creds-stdin: the first line of standard input is not USER:PASSWORD.")
    return line


def _of_environment() -> dict[str, tuple[str, str]]:
    place, username, password = (os.environ.get(name, "") for name in VARIABLES)
    if not username and not password:
        return {}
    if not (place and username and password):
        if not _asks_registries():
            return {}
        missing = next(name for name in VARIABLES if not os.environ.get(name))
        raise click.UsageError(
            f"{missing} is not set: credentials in the environment are {', '.join(VARIABLES)}, all three."
        )
    return {place: (username, password)}


def _asks_registries() -> bool:
    """Tells whether the running verb takes the flags of this module."""
    return any(parameter.name == "creds" for parameter in click.get_current_context().command.params)


def _only(registries: list[str]) -> str:
    if len(registries) == 1:
        return registries[0]
    named = f"names {' and '.join(registries)}" if registries else "names no registry"
    raise click.UsageError(
        f"--creds is for one registry, and this command {named}: write --creds REGISTRY=USER[:PASSWORD]."
    )


def _named_registries() -> list[str]:
    """The registries of the images that the running command names, in order."""
    from img.errors import InvalidReference
    from img.oci import Reference

    found: dict[str, None] = {}
    for name in _image_names(click.get_current_context().params):
        try:
            found[Reference.parse(name.removeprefix("docker://")).registry] = None
        except InvalidReference:
            continue  # a path, or something that the verb itself refuses
    return list(found)


def _image_names(parameters: Mapping[str, object]) -> Iterator[str]:
    for parameter, value in parameters.items():
        words = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
        for word in words:
            if not isinstance(word, str) or not word:
                continue
            if parameter == "tags":
                yield word.rpartition("=")[2]
            elif parameter in _NAMES:
                yield word
            elif parameter == "outputs":
                yield from _OUTPUT_NAME.findall(word)


def _asked(username: str, place: str) -> str:
    from img.cli.terminal import ask_password

    password = ask_password(f"Password of {username} for {place}: ")
    if password is None:
        raise click.UsageError(
            "--creds has no password, and there is no terminal to ask on: --creds-stdin takes USER:PASSWORD."
        )
    return password
