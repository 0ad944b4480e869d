"""Shared caches: what `--cache-to` writes and `--cache-from` reads, in one form over several storages.

    spec      one `type=…,NAME=VALUE`, checked
    index     the document that a cache consists of: records, and the mounts that travel
    backend   `CacheBackend`, what each kind of storage is to the floors above; `open_backend` makes one
    registry, local, s3, gha, azblob     one module for each kind

A backend moves verified blobs and one document; it knows nothing of keys, hits or layers. `engine.sharing`
lays the build's cache over several of them.
"""

from __future__ import annotations

from img.cache.backend import CacheBackend, Reach, Sink, open_backend
from img.cache.index import CacheIndex, SharedMount, SharedRecord
from img.cache.spec import CacheSpec, parse_spec

__all__ = [
    "CacheBackend",
    "CacheIndex",
    "CacheSpec",
    "Reach",
    "SharedMount",
    "SharedRecord",
    "Sink",
    "open_backend",
    "parse_spec",
]
