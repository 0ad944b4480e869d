"""Names that nobody can guess, of folders, snapshots and builds. The library's `secrets` imports much."""

from __future__ import annotations

import os

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SIGNS = _LETTERS + "0123456789"
_SNAPSHOT_LENGTH = 25
_BUILD_LENGTH = 12


def token(length: int) -> str:
    """A random name of `length` bytes, in hexadecimal."""
    return os.urandom(length).hex()


def new_snapshot_id() -> str:
    """A new identity for a snapshot: 25 letters and digits."""
    return _word(_SNAPSHOT_LENGTH, _SIGNS)


def new_build_id() -> str:
    """A new identity for a build: 12 letters and digits, a letter first, so that it is no step's number."""
    return _word(1, _LETTERS) + _word(_BUILD_LENGTH - 1, _SIGNS)


def _word(length: int, signs: str) -> str:
    """Signs, each equally likely: the number they are taken from is longer than they need by far."""
    number = int.from_bytes(os.urandom(32), "big")
    found = []
    for _ in range(length):
        number, digit = divmod(number, len(signs))
        found.append(signs[digit])
    return "".join(found)
