"""Names that nobody can guess, for folders and snapshots. Not the library's `secrets`, which imports much."""

from __future__ import annotations

import os

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_SNAPSHOT_LENGTH = 25


def token(length: int) -> str:
    """A random name of `length` bytes, in hexadecimal."""
    return os.urandom(length).hex()


def new_snapshot_id() -> str:
    """A new identity for a snapshot: 25 letters and digits, each equally likely."""
    number = int.from_bytes(os.urandom(32), "big")  # far more than 36 ** 25: the remainder is even enough
    letters = []
    for _ in range(_SNAPSHOT_LENGTH):
        number, digit = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[digit])
    return "".join(letters)
