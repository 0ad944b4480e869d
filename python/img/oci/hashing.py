"""`sha256`: for the short texts that cache keys and names are made of.

`hashlib` would bring OpenSSL along, whose start takes longer than all that a cached build has to hash. What
is large is hashed in Rust.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

    sha256: Callable[[bytes], _Hash]
else:
    try:
        from _sha2 import sha256  # Python 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:  # an interpreter without hashes of its own
            from hashlib import sha256

__all__ = ["sha256"]
