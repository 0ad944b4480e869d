"""`Manifest` and `Index`: the OCI documents that name a config and layers, or several manifests.

Both keep the raw bytes they were read from, since a digest is over raw bytes. Docker's schema 2
forms are read as what they are, and keep their media types.
Source: OCI image-spec v1.1, manifest.md and image-index.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from img import regex
from img.errors import InvalidDocument, Unsupported
from img.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    sha256,
)
from img.oci.platform import Platform
from img.values import dataclass, field

_SURROGATE = regex.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: its config and its layers, base first."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of the raw bytes."""
        return sha256(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """Points at this manifest."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    @classmethod
    def make(
        cls,
        config: Descriptor,
        layers: Sequence[Descriptor],
        *,
        media_type: str = OCI_MANIFEST,
        annotations: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Writes a new manifest in canonical form (keys in the specification's order, no blanks)."""
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        if annotations:
            document["annotations"] = dict(annotations)
        return cls(
            raw=dump(document),
            media_type=media_type,
            config=config,
            layers=tuple(layers),
            annotations=dict(annotations or {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests under one name, each with its platform."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of the raw bytes."""
        return sha256(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """Points at this index."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    def choose(self, platform: Platform) -> Descriptor | None:
        """Gives the manifest for a platform: an exact variant first, then any that it accepts."""
        fitting = [d for d in self.manifests if d.platform is not None and platform.accepts(d.platform)]
        exact = [d for d in fitting if d.platform == platform]
        return next(iter((*exact, *fitting)), None)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms on offer; attestations (`unknown/unknown`) are left out."""
        named = (d.platform for d in self.manifests if d.platform is not None)
        return tuple(p for p in named if p.os != "unknown")

    @classmethod
    def make(
        cls,
        manifests: Sequence[Descriptor],
        *,
        media_type: str = OCI_INDEX,
        annotations: Mapping[str, str] | None = None,
    ) -> Index:
        """Writes a new index in canonical form."""
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [m.to_json() for m in manifests],
        }
        if annotations:
            document["annotations"] = dict(annotations)
        return cls(
            raw=dump(document),
            media_type=media_type,
            manifests=tuple(manifests),
            annotations=dict(annotations or {}),
        )


def dump(document: object) -> bytes:
    """Writes JSON as every document of `img` has it: UTF-8, no blanks, keys in the given order.

    What no UTF-8 can hold (a Dockerfile's stray bytes, half a surrogate pair) becomes U+FFFD.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()


def parse(raw: bytes, media_type: str = "", *, where: str = "manifest") -> Manifest | Index:
    """Reads a manifest or an index, told by its own `mediaType`, else by `media_type`, else by form.

    Raises:
        InvalidDocument: it is not JSON, too long, or a needed field is missing.
        Unsupported: it is Docker schema 1.
    """
    data = load_object(raw, where)
    if data.get("schemaVersion") == 1 or "fsLayers" in data:
        raise Unsupported("Docker image manifest schema 1; push the image again with a newer tool", where)
    stated = data.get("mediaType")
    kind = stated if isinstance(stated, str) and stated else media_type.partition(";")[0].strip()
    if kind not in MANIFESTS | INDEXES:
        kind = OCI_INDEX if isinstance(data.get("manifests"), list) else OCI_MANIFEST
    notes = data.get("annotations")
    annotations = {str(k): str(v) for k, v in notes.items()} if isinstance(notes, dict) else {}
    if kind in INDEXES:
        entries = data.get("manifests")
        if not isinstance(entries, list):
            raise InvalidDocument(where, "an index without a list of manifests")
        manifests = tuple(Descriptor.from_json(m, where=where) for m in entries)
        return Index(raw=raw, media_type=kind, manifests=manifests, annotations=annotations)
    layers = data.get("layers")
    if not isinstance(layers, list):
        raise InvalidDocument(where, "a manifest without a list of layers")
    return Manifest(
        raw=raw,
        media_type=kind,
        config=Descriptor.from_json(data.get("config"), where=where),
        layers=tuple(Descriptor.from_json(layer, where=where) for layer in layers),
        annotations=annotations,
    )


def load_object(raw: bytes, where: str) -> dict[str, object]:
    """Reads bytes that should be one JSON object.

    Raises:
        InvalidDocument: they are not, or are longer than `MAX_DOCUMENT_BYTES`.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(where, f"longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(where, f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidDocument(where, "not a JSON object")
    return data


__all__ = ["DOCKER_LIST", "DOCKER_MANIFEST", "Index", "Manifest", "dump", "load_object", "parse"]
