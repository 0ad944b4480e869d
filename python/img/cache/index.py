"""`CacheIndex`: the document of a shared cache: records, and the cache mounts that travel. Pure.

It is canonical JSON with a version. What it says is believed for no digest: layers and chunks are verified
when they arrive. Bytes that are no index of this version are none, which is no error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from img.errors import InvalidDocument
from img.oci import Descriptor
from img.values import dataclass

VERSION = 1
"""Another version is not read."""

MEDIA_TYPE = "application/vnd.img.cache.v1+json"
"""Of the document, where a manifest names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRecord:
    """One step that somebody carried out.

    Attributes:
        key: sha256 of the key's inputs, in hexadecimal.
        diff_id: The layer, or empty for a step that changed nothing.
        content: Content digest of that layer; `tar_bytes` the size of its tar.
        created: RFC 3339 time at which it ran.
        title: The step as people see it.
        inputs: The key's canonical JSON, or empty where it was left out.
        layer: The layer's blob in the cache; None where there is no layer.
    """

    key: str
    diff_id: str = ""
    content: str = ""
    tar_bytes: int = 0
    created: str = ""
    title: str = ""
    inputs: str = ""
    layer: Descriptor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMount:
    """One cache mount.

    Attributes:
        id: As the Dockerfile has it.
        key: Names the store's folder (`store.CacheMounts.lease`).
        chunks: Blobs that are one tar.zst when they are put one behind the other.
        total_bytes: Size of the tar.
    """

    id: str
    key: str
    chunks: tuple[Descriptor, ...]
    total_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheIndex:
    """All that a cache says."""

    records: tuple[SharedRecord, ...] = ()
    mounts: tuple[SharedMount, ...] = ()

    def to_bytes(self) -> bytes:
        """The document: keys sorted, no blanks, empty fields left out."""
        data = {
            "version": VERSION,
            "records": [_plain(record) for record in sorted(self.records, key=lambda r: r.key)],
            "mounts": [_plain(mount) for mount in sorted(self.mounts, key=lambda m: m.key)],
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> CacheIndex | None:
        """Reads the document; None where it is none of this version, whatever it is."""
        try:
            data = json.loads(raw)
            if data["version"] != VERSION:
                return None
            return cls(
                records=tuple(_record(item) for item in data["records"]),
                mounts=tuple(_mount(item) for item in data.get("mounts", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidDocument):
            return None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that it names, each once."""
        found = {record.layer.digest: record.layer for record in self.records if record.layer}
        found.update({chunk.digest: chunk for mount in self.mounts for chunk in mount.chunks})
        return tuple(found.values())


def _plain(value: SharedRecord | SharedMount) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name in value.__slots__:
        field = getattr(value, name)
        if isinstance(field, Descriptor):
            field = field.to_json()
        elif isinstance(field, tuple):
            field = [item.to_json() for item in field]
        if field not in ("", 0, None, []):
            data[name] = field
    return data


def _record(data: Mapping[str, Any]) -> SharedRecord:
    layer = Descriptor.from_json(data["layer"], where="a cache record") if data.get("layer") else None
    record = SharedRecord(**{**_words(data, SharedRecord, ("layer", "tar_bytes")), "layer": layer,
                             "tar_bytes": _count(data.get("tar_bytes", 0))})  # fmt: skip
    if not record.key or bool(record.diff_id) != (record.layer is not None):
        raise ValueError("a record lacks its key or its layer")
    return record


def _mount(data: Mapping[str, Any]) -> SharedMount:
    chunks = tuple(Descriptor.from_json(chunk, where="a cache mount") for chunk in data.get("chunks", ()))
    words = _words(data, SharedMount, ("chunks", "total_bytes"))
    return SharedMount(**words, chunks=chunks, total_bytes=_count(data.get("total_bytes", 0)))


def _words(data: Mapping[str, Any], kind: type, others: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are text."""
    names = [name for name in kind.__slots__ if name not in others]  # type: ignore[attr-defined]
    found = {name: data.get(name, "") for name in names}
    if not all(isinstance(value, str) for value in found.values()):
        raise TypeError("a field is no text")
    return found


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("a count is none")
    return value
