"""`CacheIndex`: the document of a shared cache: records, and the cache mounts that travel. Pure.

It is canonical JSON with a version. What it says is believed for no digest: layers and chunks are verified
when they arrive. Bytes that are no index of this version are none, which is no error: a document is taken
as a whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from img import regex
from img.errors import InvalidDocument
from img.oci import Descriptor
from img.oci.descriptor import is_digest
from img.values import dataclass, replace

VERSION = 1
"""Another version is not read."""

MEDIA_TYPE = "application/vnd.img.cache.v1+json"
"""Of the document, where a manifest names it."""

CHUNK_MEDIA_TYPE = "application/vnd.img.cache.chunk.v1.tar+zstd"
"""Of a part of a cache mount."""

ANNOTATION = "vnd.img.cache.v1"
"""Of an image's manifest: the document of an inline cache, whose layers are the image's own."""

MAX_INDEX_BYTES = 32 << 20
"""A longer document is not read."""

_KEY = regex.compile(r"[0-9a-f]{64}")
_CONTENT = regex.compile(r"blake3:[0-9a-f]{64}")
_CREATED = regex.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


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
        layer: The layer's blob in the cache; None where there is no layer, or where the cache does not
            hold it (`mode=min`): such a record is a hit for as long as nobody needs the files.
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
        shape: The mount's options that tell it from others of its id, for people.
        root: `uid:gid:mode` of the folder itself, the mode in octal; a build does not need it.
    """

    id: str
    key: str
    chunks: tuple[Descriptor, ...]
    total_bytes: int = 0
    shape: str = ""
    root: str = ""


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

    def with_layers(self, layers: Mapping[str, Descriptor]) -> CacheIndex:
        """The same document, where a record's layer is the blob that stands here under its diff ID."""
        records = (replace(record, layer=layers.get(record.diff_id)) for record in self.records)
        return replace(self, records=tuple(records))

    def without_inputs(self) -> CacheIndex:
        """The same document, short: without what people read, and without blobs."""
        records = (replace(record, inputs="", title="", layer=None) for record in self.records)
        return replace(self, records=tuple(records), mounts=())

    @classmethod
    def joined(cls, parts: Iterable[CacheIndex]) -> CacheIndex:
        """Several documents as one; of two records under one key, the earlier document's counts."""
        records: dict[str, SharedRecord] = {}
        mounts: dict[str, SharedMount] = {}
        for part in parts:
            records = {**{record.key: record for record in part.records}, **records}
            mounts = {**{mount.key: mount for mount in part.mounts}, **mounts}
        return cls(records=tuple(records.values()), mounts=tuple(mounts.values()))

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
    record = SharedRecord(
        **_words(data, SharedRecord, ("layer", "tar_bytes")),
        layer=layer,
        tar_bytes=_count(data.get("tar_bytes", 0)),
    )
    if not _KEY.fullmatch(record.key):
        raise ValueError("a record has no key")
    if record.created and not _CREATED.fullmatch(record.created):
        raise ValueError("a record's time is none")
    if not record.diff_id:
        if record.content or layer is not None:
            raise ValueError("a record has a layer without its name")
    elif not is_digest(record.diff_id) or not _CONTENT.fullmatch(record.content):
        raise ValueError("a record's layer has no digest")
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
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError("a count is none")
    return value
