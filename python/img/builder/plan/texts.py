"""Texts that come from outside and end in an image or a container: what they may hold.

`plan.Planner` calls these. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from img import regex
from img.errors import UsageError
from img.oci import ImageConfig
from img.values import replace

STRAY = regex.compile("[\ud800-\udfff]")
"""A byte that was not UTF-8."""

_HOST_NAME = regex.compile(r"(?=.{1,64}\Z)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def host_name(build_args: Mapping[str, str]) -> str:
    """What BUILDKIT_SANDBOX_HOSTNAME calls the machine of every RUN; empty where it says nothing.

    Raises:
        UsageError: it is no host name.
    """
    name = build_args.get("BUILDKIT_SANDBOX_HOSTNAME", "")
    if name and not _HOST_NAME.fullmatch(name):
        hint = "letters, digits, '.', '_' and '-', 64 at the most"
        raise UsageError(f"BUILDKIT_SANDBOX_HOSTNAME is no host name: {name!r}", hint=hint)
    return name


def without_stray_bytes(config: ImageConfig) -> ImageConfig:
    """Gives U+FFFD for every byte that was not UTF-8, which JSON cannot hold, as docker does."""
    return replace(config, author=STRAY.sub("\ufffd", config.author), run=_clean(config.run))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else STRAY.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value
