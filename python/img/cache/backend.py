"""`CacheBackend`: one shared cache, as the floors above see it; `open_backend` makes what a spec names.

Contract, for every kind (tests/suites/cache holds each to it):

- Blobs are content-addressed. `put` of one that is there changes nothing; a reader never sees half of one.
- `write` replaces the document at once, after every blob that it names was `put`: a reader sees the old
  or the new one. Where nobody wrote one, `read` gives None.
- What `fetch` hands to a sink is what the storage has; the sink verifies it.
- Every method may be called from several threads, but for `close`.
- An error of the storage is a `CacheError`, an answer that makes no sense too. Nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO, Protocol

from img.cache.spec import CacheSpec
from img.errors import UsageError
from img.oci import Descriptor
from img.values import dataclass, field

if TYPE_CHECKING:
    from img.registry import Registry


class Sink(Protocol):
    """Takes the bytes of a blob and verifies them (`_core.BlobSink`)."""

    def write(self, data: bytes) -> None:
        """Takes the next bytes."""


class CacheBackend(Protocol):
    """One shared cache."""

    def read(self) -> bytes | None:
        """Reads the document (`CacheIndex`); None where there is none.

        Raises:
            CacheError: the storage cannot be asked.
        """

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        """Replaces the document.

        Args:
            blobs: Every blob that it names, so that a storage which collects garbage keeps them.
        Raises:
            CacheError: the storage refused it; the old document stands.
        """

    def has(self, blob: Descriptor) -> bool:
        """Tells whether a blob is there; one that is asked for counts as used.

        Raises:
            CacheError.
        """

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Stores a blob.

        Args:
            open_blob: Opens its bytes; called again for another try.
        Raises:
            CacheError.
        """

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        """Writes a blob's bytes into a sink, from their beginning; neither finishes nor aborts it.

        Raises:
            CacheError: it is not there, or broke off.
            DigestMismatch, SizeMismatch, LayerError: what the sink raised, as it is.
        """

    def stop(self) -> None:
        """Ends all transfers soon, from any thread."""

    def close(self) -> None:
        """Lets go of connections; safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a backend speaks to the outside.

    Attributes:
        registry: Gives the registry client; called only where one is needed.
        proxies: Proxy URL by scheme. May hold a password: never shown.
        no_proxy: Hosts and domain suffixes that are reached directly.
        ca_file: PEM file of further certificate authorities, or empty.
        sources: Gives the repositories (`registry/repository`) in which a blob, by its digest, was seen: it
            may be mounted from there.
        variables: What the environment says that a kind of storage is known to look for there
            (`ACTIONS_…`, `AWS_…`), by name. Never shown.
    """

    registry: Callable[[], Registry]
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""
    sources: Callable[[str], Sequence[str]] = lambda digest: ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


_HOMES = {"registry": "registry", "local": "local", "s3": "s3", "gha": "gha", "azblob": "azblob"}
"""Module of each kind; it has `open_backend(spec, reach)`."""


def open_backend(spec: CacheSpec, reach: Reach) -> CacheBackend:
    """Makes the backend that a spec names; speaks to nothing yet.

    Raises:
        UsageError: an attribute makes no sense, or what the kind needs is not installed.
    """
    if spec.kind not in _HOMES:
        raise UsageError(f"{spec} is no storage of its own")
    module = import_module(f"img.cache.{_HOMES[spec.kind]}")
    backend: CacheBackend = module.open_backend(spec, reach)
    return backend
