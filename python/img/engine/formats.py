"""In which documents an image leaves: OCI's or Docker's (schema 2), the same blobs under other media types.

`Pushes` asks beforehand whether an image can leave so; `Pusher` turns what is packed. The digest of a
manifest that is turned changes; the image's ID, which is that of its config, does not. Source: OCI image-spec
v1.1, media-types.md, "Compatibility Matrix".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from img.engine.requests import ManifestFormat
from img.errors import UsageError
from img.oci import Descriptor, Image, Index, Manifest
from img.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_OF,
    OCI_INDEX,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    OCI_OF,
)
from img.store import index_of
from img.values import replace

_DOCKERS = frozenset({DOCKER_MANIFEST, DOCKER_LIST})


def is_in(document: Manifest | Index, form: ManifestFormat) -> bool:
    """Tells whether a document is of a form."""
    return (document.media_type in _DOCKERS) == (form == "docker")


def refuse_zstd(name: str, media_types: Iterable[str]) -> None:
    """Refuses layers for which Docker's form has no media type.

    Raises:
        UsageError: one of them is zstd.
    """
    if OCI_LAYER_ZSTD in media_types:
        raise UsageError(
            f"{name} has layers that are zstd, for which Docker's form has no name",
            hint="add --compression gzip --force-compression, or leave it in OCI's form",
        )


def in_format(image: Image, form: ManifestFormat) -> Image:
    """An image in a form; the very same where it is in that already.

    Docker's form has no annotations: they are left out.

    Raises:
        UsageError: as `refuse_zstd`.
    """
    old = image.manifest
    if is_in(old, form):
        return image
    if form == "docker":
        refuse_zstd("the image", (layer.media_type for layer in old.layers))
    types = DOCKER_OF if form == "docker" else OCI_OF
    manifest = Manifest.make(
        _retyped(old.config, types),
        [_retyped(layer, types) for layer in old.layers],
        media_type=DOCKER_MANIFEST if form == "docker" else OCI_MANIFEST,
        annotations={} if form == "docker" else old.annotations,
        artifact_type="" if form == "docker" else old.artifact_type,
        subject=None if form == "docker" else old.subject,
    )
    return replace(image, manifest=manifest)


def index_in(images: Sequence[Image], form: ManifestFormat | None) -> Index:
    """The index of images that are in this form."""
    index = index_of(images)
    return Index.make(index.manifests, media_type=DOCKER_LIST if form == "docker" else OCI_INDEX)


def as_oci(descriptor: Descriptor) -> Descriptor:
    """The same blob under OCI's media type."""
    return _retyped(descriptor, OCI_OF)


def _retyped(descriptor: Descriptor, types: dict[str, str]) -> Descriptor:
    return replace(descriptor, media_type=types.get(descriptor.media_type, descriptor.media_type))
