"""`nanoseconds`: Go's durations (`1m30s`), as HEALTHCHECK's flags have them."""

from __future__ import annotations

from img import regex

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = regex.compile(r"([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(ns|us|µs|μs|ms|s|m|h)")
_LARGEST = 2**63 - 1


def nanoseconds(text: str) -> int:
    """Reads a duration.

    Args:
        text: Numbers with units, largest first or not: `1m30s`, `1.5h`, `-5s`; `0` needs no unit.
    Raises:
        ValueError: it is no duration, or is longer than 292 years.
    """
    digits = text[1:] if text[:1] in ("+", "-") else text
    if digits == "0":
        return 0
    from fractions import Fraction  # few files have one, and all would pay for the import

    total = Fraction(0)
    position = 0
    while match := _PART.match(digits, position):
        total += Fraction(match.group(1).rstrip(".")) * _UNITS[match.group(2)]
        position = match.end()
    if not digits or position < len(digits) or total > _LARGEST:
        raise ValueError(f"{text!r} is not a duration")
    return -int(total) if text.startswith("-") else int(total)
