"""`private_key`: random bytes that one store has and no other: what keyed digests of secrets are made with.

A digest of a secret goes into cache keys, and keys travel with shared caches: without a key of the store's
own, whoever reads one could try words until one fits. The key stays in the store's root, for its owner alone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from img.store.tokens import token

_BYTES = 32


def private_key(root: Path) -> bytes:
    """Gives the key of the store at `root`; the first call makes it, and of several at once one does.

    Raises:
        OSError: it can be neither read nor written.
    """
    path = root / "private.key"
    key = _read(path)
    if key is not None:
        return key
    partial = root / f"private.key.{os.getpid()}.{token(4)}.part"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(os.urandom(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():  # a key that is too short was never a whole one
            path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(partial, path)  # whoever comes second takes the other's
    finally:
        partial.unlink()
    key = _read(path)
    if key is None:
        raise OSError(f"{path} cannot be used")
    return key


def _read(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == _BYTES else None
