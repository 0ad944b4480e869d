"""`Manifest` and `Index`: the OCI documents that name a config and layers, or several manifests.

Either may say of what it is: an `artifact_type` where it is no image, and a `subject`, the manifest that it
is about. `with_*` gives a changed one, which is written anew: what no field here holds is lost by it.

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
    CONFIGS,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEXES,
    LAYERS,
    MANIFESTS,
    MAX_DOCUMENT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    sha256,
)
from img.oci.platform import Platform
from img.values import dataclass, field

SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
"""What registries call a manifest of schema 1, signed or not."""

ABOUT = "vnd.docker.reference.digest"
"""The annotation of an index's entry that says whose attestation it is."""

ZSTD = "io.github.containers.compression.zstd"
"""The annotation, `true`, of an index's entry that only those can read who know zstd, and prefer, then."""

_SURROGATE = regex.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: its config and its layers, base first; or an artifact: its files."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    subject: Descriptor | None = None

    @property
    def digest(self) -> str:
        """sha256 of the raw bytes."""
        return sha256(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """Points at this manifest."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    @property
    def kind(self) -> str:
        """What it is: its artifact type, else the media type of its config, as referrers are listed by.

        Source: distribution-spec v1.1, "Listing Referrers".
        """
        return self.artifact_type or self.config.media_type

    @property
    def is_image(self) -> bool:
        """It has an image's config, and layers of files and nothing else."""
        kinds = {layer.media_type for layer in self.layers}
        return self.config.media_type in CONFIGS and kinds <= LAYERS

    @classmethod
    def make(
        cls,
        config: Descriptor,
        layers: Sequence[Descriptor],
        *,
        media_type: str = OCI_MANIFEST,
        annotations: Mapping[str, str] | None = None,
        artifact_type: str = "",
        subject: Descriptor | None = None,
    ) -> Manifest:
        """Writes a new manifest in canonical form (keys in the specification's order, no blanks)."""
        document = _head(media_type, artifact_type)
        document["config"] = config.to_json()
        document["layers"] = [layer.to_json() for layer in layers]
        return cls(
            raw=_end(document, subject, annotations),
            media_type=media_type,
            config=config,
            layers=tuple(layers),
            annotations=dict(annotations or {}),
            artifact_type=artifact_type,
            subject=subject,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests under one name, each with its platform."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    subject: Descriptor | None = None

    @property
    def digest(self) -> str:
        """sha256 of the raw bytes."""
        return sha256(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """Points at this index."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    def choose(self, platform: Platform) -> Descriptor | None:
        """Gives the manifest for a platform: an exact variant first, then any that it accepts.

        Of those that fit alike it is the first: what every client can read, as lists are made.
        Where none fits, one of a lesser variant, which runs there, too.
        """
        return next(iter(self._fitting(platform)), None)

    def choose_zstd(self, platform: Platform) -> Descriptor | None:
        """As `choose`, but of those that fit alike one that is marked as zstd, which is unpacked sooner."""
        fitting = self._fitting(platform)
        alike = (d for d in fitting if str(d.platform) == str(fitting[0].platform))
        return next((d for d in alike if is_zstd(d)), next(iter(fitting), None))

    def variants(self, entry: Descriptor) -> list[Descriptor]:
        """The entries that say the same of their image, but for how it is compressed; that one among them."""
        said = _said(entry)
        return [d for d in self.manifests if _said(d) == said] if entry.platform is not None else [entry]

    def _fitting(self, platform: Platform) -> list[Descriptor]:
        """The entries that run on a platform, the nearest first."""
        fitting = [d for d in self.manifests if d.platform is not None and platform.accepts(d.platform)]
        lesser = [d for other in platform.below for d in self.manifests if str(d.platform) == str(other)]
        return sorted(fitting, key=lambda d: str(d.platform) != str(platform)) + lesser

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms on offer, each once; attestations (`unknown/unknown`) are left out."""
        named = (d.platform for d in self.manifests if d.platform is not None)
        return tuple(dict.fromkeys(p for p in named if p.os != "unknown"))

    @classmethod
    def make(
        cls,
        manifests: Sequence[Descriptor],
        *,
        media_type: str = OCI_INDEX,
        annotations: Mapping[str, str] | None = None,
        artifact_type: str = "",
        subject: Descriptor | None = None,
    ) -> Index:
        """Writes a new index in canonical form."""
        document = _head(media_type, artifact_type)
        document["manifests"] = [m.to_json() for m in manifests]
        return cls(
            raw=_end(document, subject, annotations),
            media_type=media_type,
            manifests=tuple(manifests),
            annotations=dict(annotations or {}),
            artifact_type=artifact_type,
            subject=subject,
        )

    def find(self, digest: str) -> Descriptor | None:
        """The entry of this digest."""
        return next((entry for entry in self.manifests if entry.digest == digest), None)

    def with_manifest(self, entry: Descriptor) -> Index:
        """The same index with an entry at its end, or in the place of the one with its digest."""
        return (
            self.with_replaced({entry.digest: entry})
            if self.find(entry.digest)
            else self._with((*self.manifests, entry))
        )

    def with_replaced(self, entries: Mapping[str, Descriptor]) -> Index:
        """The same index with other entries in the place of those with these digests."""
        return self._with(tuple(entries.get(entry.digest, entry) for entry in self.manifests))

    def with_entries(self, entries: Sequence[Descriptor]) -> Index:
        """The same index of these entries."""
        return self._with(tuple(entries))

    def without(self, digest: str) -> Index:
        """The same index without the entries of this digest."""
        return self._with(tuple(entry for entry in self.manifests if entry.digest != digest))

    def with_annotations(self, annotations: Mapping[str, str]) -> Index:
        """The same index with annotations of its own added or replaced. It is an OCI one then."""
        return Index.make(
            self.manifests,
            annotations={**self.annotations, **annotations},
            artifact_type=self.artifact_type,
            subject=self.subject,
        )

    def with_subject(self, subject: Descriptor | None) -> Index:
        """The same index about another manifest, or about none. It is an OCI one then."""
        return Index.make(
            self.manifests, annotations=self.annotations, artifact_type=self.artifact_type, subject=subject
        )

    def with_media_type(self, media_type: str) -> Index:
        """The same entries as an OCI index or as a docker list, which can say nothing but them.

        Raises:
            Unsupported: a docker list cannot say what this index says.
        """
        if media_type == self.media_type:
            return self
        if media_type != DOCKER_LIST:
            return Index.make(self.manifests, media_type=media_type)
        said = {
            "annotations": self.annotations or any(entry.annotations for entry in self.manifests),
            "a subject": self.subject,
            "an artifact type": self.artifact_type,
            "entries without a platform": any(entry.platform is None for entry in self.manifests),
        }
        lost = [name for name, there in said.items() if there]
        if lost:
            hint = "push it as an OCI index (--format oci)"
            raise Unsupported(f"a docker manifest list with {' and '.join(lost)}", self.digest, hint)
        return Index.make(self.manifests, media_type=media_type)

    def _with(self, manifests: Sequence[Descriptor]) -> Index:
        return (
            self
            if tuple(manifests) == self.manifests
            else Index.make(
                manifests,
                media_type=self.media_type,
                annotations=self.annotations,
                artifact_type=self.artifact_type,
                subject=self.subject,
            )
        )


def is_zstd(entry: Descriptor) -> bool:
    """Tells whether an entry is marked as one that only those can read who know zstd."""
    return entry.annotations.get(ZSTD) == "true"


def _said(entry: Descriptor) -> tuple[Platform | None, str, dict[str, str]]:
    """What an entry says of its image, but for how that is compressed."""
    notes = {name: value for name, value in entry.annotations.items() if name != ZSTD}
    return entry.platform, entry.artifact_type, notes


def _head(media_type: str, artifact_type: str) -> dict[str, object]:
    head: dict[str, object] = {"schemaVersion": 2, "mediaType": media_type}
    return {**head, "artifactType": artifact_type} if artifact_type else head


def _end(
    document: dict[str, object], subject: Descriptor | None, annotations: Mapping[str, str] | None
) -> bytes:
    if subject is not None:
        document["subject"] = subject.to_json()
    if annotations:
        document["annotations"] = dict(annotations)
    return dump(document)


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
    announced = media_type.partition(";")[0].strip()
    if data.get("schemaVersion") == 1 or "fsLayers" in data or announced in SCHEMA_1:
        raise Unsupported(
            "Docker image manifest schema 1",
            where,
            hint="registries and tools gave it up years ago; push the image again with a current one",
        )
    stated = data.get("mediaType")
    kind = stated if isinstance(stated, str) and stated else announced
    if kind not in MANIFESTS | INDEXES:
        kind = OCI_INDEX if isinstance(data.get("manifests"), list) else OCI_MANIFEST
    if announced in MANIFESTS | INDEXES and (announced in INDEXES) != (kind in INDEXES):
        raise InvalidDocument(where, f"it came as {announced}, and says that it is {kind}")
    # What could be read as either would be verified as one and used as the other (CVE-2021-41190).
    if "manifests" in data and ("layers" in data or "config" in data):
        raise InvalidDocument(where, "it has both manifests and layers")
    notes, subject = data.get("annotations"), data.get("subject")
    annotations = {str(k): str(v) for k, v in notes.items()} if isinstance(notes, dict) else {}
    about = Descriptor.from_json(subject, where=where) if subject is not None else None
    artifact_type = str(data.get("artifactType") or "")
    if kind in INDEXES:
        entries = data.get("manifests")
        if not isinstance(entries, list):
            raise InvalidDocument(where, "an index without a list of manifests")
        manifests = tuple(Descriptor.from_json(m, where=where) for m in entries)
        return Index(
            raw=raw,
            media_type=kind,
            manifests=manifests,
            annotations=annotations,
            artifact_type=artifact_type,
            subject=about,
        )
    layers = data.get("layers")
    if not isinstance(layers, list):
        named = str(stated or announced)
        known = not named or named in MANIFESTS
        reason = "a manifest without a list of layers" if known else f"it is of type {named!r}, unknown here"
        raise InvalidDocument(where, reason)
    return Manifest(
        raw=raw,
        media_type=kind,
        config=Descriptor.from_json(data.get("config"), where=where),
        layers=tuple(Descriptor.from_json(layer, where=where) for layer in layers),
        annotations=annotations,
        artifact_type=artifact_type,
        subject=about,
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
