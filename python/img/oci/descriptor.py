"""Digests, media types and descriptors: how one OCI document points at another.

`Descriptor` is the principal type. Pure values; nothing here touches disk or network.
Source: OCI image-spec v1.1, descriptor.md and media-types.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from img import regex
from img.errors import InvalidDocument
from img.oci.platform import Platform
from img.values import dataclass, field, replace

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
"""Of a blob that stands where one must and says nothing: its two bytes are `{}`."""

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS = frozenset(
    {OCI_CONFIG, DOCKER_CONFIG, "", "application/octet-stream", "application/json", "text/html"}
)
"""What the config of an image is called; beside the two right names those that registries once mixed up."""
OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FOREIGN_LAYER_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_FOREIGN_LAYER_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
LAYERS = frozenset(
    {
        OCI_LAYER,
        OCI_LAYER_GZIP,
        OCI_LAYER_ZSTD,
        DOCKER_LAYER,
        DOCKER_LAYER_GZIP,
        OCI_FOREIGN_LAYER,
        OCI_FOREIGN_LAYER_GZIP,
        OCI_FOREIGN_LAYER_ZSTD,
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
    }
)
_FOREIGN = (
    OCI_FOREIGN_LAYER.removesuffix("v1.tar"),
    DOCKER_FOREIGN_LAYER.removesuffix("diff.tar"),
)

OCI_OF = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_LIST: OCI_INDEX,
    DOCKER_CONFIG: OCI_CONFIG,
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_FOREIGN_LAYER: OCI_FOREIGN_LAYER,
    DOCKER_FOREIGN_LAYER_GZIP: OCI_FOREIGN_LAYER_GZIP,
}
"""OCI's name for each of Docker's media types. Source: media-types.md, "Compatibility Matrix"."""
DOCKER_OF = {oci: docker for docker, oci in OCI_OF.items()}

MAX_DOCUMENT_BYTES = 4 << 20
"""A manifest, index or config longer than this is refused unread."""

_MOST_BYTES = (1 << 63) - 1
"""No file is longer, and no database holds a larger number."""

_DIGEST = regex.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Tells whether `text` is a whole sha256 digest in its canonical form."""
    return _DIGEST.fullmatch(text) is not None


def sha256(data: bytes) -> str:
    """Gives the digest `sha256:<hex>` of bytes in memory."""
    from img.oci.hashing import sha256 as hashed

    return "sha256:" + hashed(data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Points at content by media type, digest and size (bytes of the content as stored).

    Attributes:
        urls: Where else the content may be had.
        artifact_type: What the manifest is that it points at, where that is no image.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @property
    def hex(self) -> str:
        """The digest without `sha256:`."""
        return self.digest.partition(":")[2]

    @property
    def is_foreign(self) -> bool:
        """Its maker allows no copies of this layer: registries need not have it, `urls` say where it is.

        Told by the beginning of the type: so are encrypted ones, and compressions that nobody knows yet.
        """
        return self.media_type.startswith(_FOREIGN)

    @property
    def as_oci(self) -> Descriptor:
        """The same content under OCI's media type."""
        kind = OCI_OF.get(self.media_type)
        return replace(self, media_type=kind) if kind else self

    def to_json(self) -> dict[str, object]:
        """Gives the document form. Source: descriptor.md, "Properties"."""
        data: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.urls:
            data["urls"] = list(self.urls)
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        if self.platform is not None:
            data["platform"] = self.platform.to_json()
        if self.artifact_type:
            data["artifactType"] = self.artifact_type
        return data

    @classmethod
    def from_json(cls, data: object, *, where: str) -> Descriptor:
        """Reads one; every field is checked, since it decides what is fetched and trusted.

        Raises:
            InvalidDocument: a field is missing, of the wrong type, or no sha256 digest.
        """
        if not isinstance(data, dict):
            raise InvalidDocument(where, "a descriptor is not an object")
        media_type, digest, size = data.get("mediaType"), data.get("digest"), data.get("size")
        if not isinstance(media_type, str):
            raise InvalidDocument(where, "a descriptor has no mediaType")
        if not isinstance(digest, str) or not is_digest(digest):
            reason = f"a descriptor's digest is not a sha256 digest, which alone is verified here: {digest!r}"
            raise InvalidDocument(where, reason)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MOST_BYTES:
            raise InvalidDocument(where, f"a descriptor's size is not a count of bytes: {size!r}")
        platform, annotations, urls = data.get("platform"), data.get("annotations"), data.get("urls")
        return cls(
            media_type=media_type,
            digest=digest,
            size=size,
            platform=Platform.from_json(platform) if isinstance(platform, dict) else None,
            annotations={str(k): str(v) for k, v in annotations.items()}
            if isinstance(annotations, dict)
            else {},
            urls=tuple(str(u) for u in urls) if isinstance(urls, list) else (),
            artifact_type=str(data.get("artifactType") or ""),
        )
