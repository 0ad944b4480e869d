"""A cache as an OCI manifest: the document is its config, the blobs are its layers.

So a registry's garbage collection keeps all that the document names, and every tool can copy a cache.
An image whose manifest carries an inline cache is read as well. Pure.
Source: OCI image-spec v1.1, manifest.md, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from img.cache.index import ANNOTATION, MAX_INDEX_BYTES, MEDIA_TYPE, CacheIndex
from img.errors import InvalidDocument
from img.oci import Descriptor, ImageConfig, Manifest
from img.oci.descriptor import sha256

_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def manifest_of(config: Descriptor, blobs: Sequence[Descriptor]) -> tuple[Manifest, tuple[bytes, ...]]:
    """Gives the manifest of a cache, and the small blobs that it names beside document and blobs.

    Args:
        config: The document.
    """
    if blobs:
        return Manifest.make(config, blobs), ()
    # A manifest must name one layer at least.
    empty = Descriptor(media_type=_EMPTY_TYPE, digest=sha256(_EMPTY), size=len(_EMPTY))
    return Manifest.make(config, [empty]), (_EMPTY,)


def document_of(manifest: Manifest, read: Callable[[Descriptor], bytes]) -> bytes:
    """Gives the document that a manifest holds, as its config or inline.

    Args:
        read: Reads a small blob, verified.
    Raises:
        InvalidDocument: it holds none, or one that is too long.
    """
    if manifest.config.media_type == MEDIA_TYPE:
        if manifest.config.size > MAX_INDEX_BYTES:
            raise InvalidDocument("the cache's document", f"longer than {MAX_INDEX_BYTES} bytes")
        return read(manifest.config)
    inline = CacheIndex.from_bytes(manifest.annotations.get(ANNOTATION, "").encode("utf-8", "replace"))
    if inline is None:
        raise InvalidDocument("the manifest", "it holds no cache that this img reads")
    config = ImageConfig.from_bytes(read(manifest.config), where="config of the image")
    return inline.with_layers(dict(zip(config.diff_ids, manifest.layers, strict=False))).to_bytes()
