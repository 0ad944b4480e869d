"""`size_bytes`: sizes as docker writes them (`64m`, `1.5GiB`), in powers of 1024.

A tmpfs mount and `--shm-size` have them.
"""

from __future__ import annotations

import re

from img import regex

_SIZE = regex.compile(r"([0-9]{1,20}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}) ?(?:b|([kmgtp])(?:i?b)?)?", re.IGNORECASE)
_POWERS = "kmgtp"
_LARGEST = 2**63 - 1


def size_bytes(text: str) -> int:
    """Reads a size.

    Args:
        text: A number, perhaps with a fraction, and perhaps a unit: b, k, m, g, t or p, alone or as
            in `kb` and `KiB`.
    Raises:
        ValueError: it is no size, or takes more than 63 bits.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    power = _POWERS.index(match.group(2).lower()) + 1 if match.group(2) else 0
    from fractions import Fraction  # few files have one, and all would pay for the import

    size = int(Fraction(match.group(1).rstrip(".")) * 1024**power)
    if size > _LARGEST:
        raise ValueError(f"{text!r} is more bytes than there can be")
    return size
