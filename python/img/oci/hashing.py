"""`sha256`: for the short texts that cache keys and names are made of. `digest_of`: for files that are here.

`hashlib` would bring OpenSSL along, whose start takes longer than all that a cached build has to hash; only
`digest_of` takes it. What is large and passes by is hashed in Rust.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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

__all__ = ["digest_of", "sha256"]

_PIECE_BYTES = 1 << 20


def digest_of(path: Path, told: Callable[[int], None] | None = None) -> str:
    """Gives the digest of a whole file, `sha256:<64 hex>`, in a memory that does not grow with it.

    Args:
        told: Called after each MiB with how many bytes were read.
    Raises:
        FileNotFoundError: there is none.
    """
    import hashlib

    found, count = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
            count += len(piece)
            if told is not None:
                told(count)
    return f"sha256:{found.hexdigest()}"
