"""`check_stored`: compares what a registry says that it stored with what it was sent.

Called by the verbs that store something, with the answer to the request that ended it. A registry that says
nothing of it is believed: its status is all that there is.
Source: OCI distribution-spec v1.1, "Pushing Manifests" and "Pushing a blob monolithically".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from img import regex
from img.errors import DigestMismatch
from img.oci.descriptor import is_digest

if TYPE_CHECKING:
    from img.registry.transport import Reply

_AT = regex.compile(r"/(?:manifests|blobs)/(sha256:[0-9a-f]{64})(?:[?#]|$)")


def check_stored(reply: Reply, registry: str, what: str, digest: str) -> None:
    """Compares the digests that an answer names, in either of its headers.

    Args:
        registry: Who answers, for the error.
        what: What was sent, for the error.
        digest: Of what was sent.
    Raises:
        DigestMismatch: it stored something else.
    """
    at = _AT.search(reply.headers.get("Location", ""))
    for said in (reply.headers.get("Docker-Content-Digest", ""), at[1] if at else ""):
        if is_digest(said) and said != digest:
            raise DigestMismatch(what, digest, said, by=registry)
