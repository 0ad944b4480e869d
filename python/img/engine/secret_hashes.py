"""`secret_digests`: what stands for a secret in cache keys, where the caller wants its value to count.

A keyed digest: only this store can make it, so a record that another machine sees tells nothing of the
secret, and hits in no other store. `Build` calls it once, before anything runs.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from img.dockerfile.near import did_you_mean
from img.engine.requests import BuildRequest
from img.errors import UsageError
from img.store import private_key


def secret_digests(request: BuildRequest, root: Path) -> dict[str, str]:
    """Gives the digest of each secret that counts, by id.

    Args:
        root: The store's.
    Raises:
        UsageError: one of them was not given, or cannot be read.
    """
    key = private_key(root)
    found = {}
    for id_ in request.secret_hashes:
        name = id_.encode("utf-8", "surrogateescape")
        found[id_] = hmac.new(key, name + b"\0" + _value(request, id_), "sha256").hexdigest()
    return found


def _value(request: BuildRequest, id_: str) -> bytes:
    if id_ in request.secret_values:
        return request.secret_values[id_].encode("utf-8", "surrogateescape")
    path = request.secret_files.get(id_)
    if path is None:
        known = (*request.secret_files, *request.secret_values)
        raise UsageError(
            f"the secret {id_} is to count in cache keys, and was not given", hint=did_you_mean(id_, known)
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the secret {id_} cannot be read: {error.strerror}") from error
