"""Readers of a spec's attributes, each with its error. Pure."""

from __future__ import annotations

from img.cache.spec import CacheSpec
from img.dockerfile.durations import nanoseconds
from img.errors import UsageError


def seconds(spec: CacheSpec, name: str, default: float) -> float:
    """A duration as Go writes it, in seconds.

    Raises:
        UsageError: it is none, or is negative.
    """
    text = spec.attributes.get(name, "")
    if not text:
        return default
    try:
        found = nanoseconds(text)
    except ValueError:
        found = -1
    if found < 0:
        raise _bad(spec, name, "a duration", "24h, 90m or 30s")
    return found / 1e9


def count(spec: CacheSpec, name: str, default: int, *, least: int) -> int:
    """A whole number.

    Raises:
        UsageError: it is none, or too small.
    """
    text = spec.attributes.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or int(text) < least:
        raise _bad(spec, name, f"a number of at least {least}", str(max(default, least)))
    return int(text)


def flag(spec: CacheSpec, name: str) -> bool:
    """`true` or `false`; absent is false.

    Raises:
        UsageError: it is neither.
    """
    text = spec.attributes.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise _bad(spec, name, "true or false", "true")
    return text in ("true", "1")


def choice(spec: CacheSpec, name: str, values: tuple[str, ...]) -> str:
    """One of some words; absent is empty.

    Raises:
        UsageError: it is another.
    """
    text = spec.attributes.get(name, "")
    if text and text not in values:
        raise _bad(spec, name, " or ".join(values), values[0])
    return text


def _bad(spec: CacheSpec, name: str, wanted: str, example: str) -> UsageError:
    return UsageError(
        f"--cache-{spec.use} type={spec.kind}: {name} is {wanted}, not {spec.attributes[name]!r}",
        hint=f"{name}={example}",
    )
