"""`Packer`, `push_image`, `push_index`: make every layer of an image a blob that can leave, and send it.

A layer built here has no blob until something leaves (DESIGN D5); it is compressed once, and which
blob came of it is remembered. A pulled layer keeps the blob that it came as.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from img.engine.packing import MEDIA_TYPES, pack_blob
from img.engine.pulling import Puller, plain_layer
from img.engine.requests import Compression
from img.errors import DigestMismatch
from img.oci import Descriptor, Image, Layer, Manifest, Reference
from img.oci.descriptor import OCI_MANIFEST
from img.progress import Progress
from img.store import Store, index_of

if TYPE_CHECKING:
    from img.registry import Registry


class Packer:
    """Makes blobs of layers, in one store."""

    def __init__(self, store: Store, puller: Puller, progress: Progress) -> None:
        """Nothing is done yet."""
        self._store = store
        self._puller = puller
        self._progress = progress
        self._lock = threading.Lock()

    def pack(self, image: Image, compression: Compression = "gzip") -> Image:
        """Gives the same image with every layer's blob in the store; what lacks there is fetched.

        Where every blob is here already as the manifest names it, the image is returned as it is, so that a
        pulled image keeps its digest.
        """
        wanted = [layer.descriptor for layer in image.layers if not plain_layer(layer)]
        self._puller.blobs(image, wanted)
        return self.describe(image, compression)

    def describe(self, image: Image, compression: Compression = "gzip") -> Image:
        """As `pack`, but blobs that a registry gave may still lie there alone."""
        layers = tuple(self._descriptor(image, layer, compression) for layer in image.layers)
        if layers == image.manifest.layers:
            return image
        manifest = Manifest.make(
            image.manifest.config,
            layers,
            media_type=OCI_MANIFEST,
            annotations=dict(image.manifest.annotations),
        )
        return replace(image, manifest=manifest)

    def _descriptor(self, image: Image, layer: Layer, compression: Compression) -> Descriptor:
        """The blob of one layer, made now if need be."""
        if not plain_layer(layer):
            return layer.descriptor
        media_type = MEDIA_TYPES[compression]
        with self._lock:
            for known, _ in self._store.layers.blobs_of(layer.diff_id):
                if known.media_type == media_type and self._store.blobs.has(known.digest):
                    return known
            return self._compress(image, layer, compression)

    def _compress(self, image: Image, layer: Layer, compression: Compression) -> Descriptor:
        ids = image.config.diff_ids
        below = ids[: ids.index(layer.diff_id)]
        record = self._store.layers.find(layer.diff_id, below)
        if record is None:
            raise DigestMismatch("layer", layer.diff_id, "nothing: it is no longer in the store")
        return pack_blob(self._store, record, compression, progress=self._progress)


def push_image(
    store: Store,
    registry: Registry,
    image: Image,
    name: Reference,
    *,
    puller: Puller,
    jobs: int,
    progress: Progress,
) -> str:
    """Sends an image; gives the manifest's digest.

    A blob of a base that is not in the store is fetched only where the destination has it neither in this
    repository nor in one that it can be mounted from.

    The manifest goes last, under its tag, so that a push that breaks leaves nothing half-named.
    """
    from img.registry import push

    origins = {
        Reference.parse(source) for layer in image.layers for source in store.layers.sources_of(layer.digest)
    }
    mounts = [o for o in origins if o.registry == name.registry and o.repository != name.repository]

    def open_blob(descriptor: Descriptor) -> BinaryIO:
        if descriptor != image.manifest.config:
            puller.blobs(image, [descriptor])
        return store.blobs.open(descriptor.digest)

    digest = push(
        registry,
        name,
        image.manifest,
        open_blob,
        mount_from=sorted(mounts, key=str),
        jobs=jobs,
        progress=progress,
    )
    for layer in image.layers:
        store.layers.remember_blob(layer.diff_id, layer.descriptor, source=name.name)
    return digest


def push_index(
    store: Store,
    registry: Registry,
    images: Sequence[Image],
    name: Reference,
    *,
    puller: Puller,
    jobs: int,
    progress: Progress,
) -> str:
    """Sends images of several platforms: each under its digest, then their index under the tag.

    Returns:
        The index's digest.
    """
    for image in images:
        own = replace(name, tag="", digest=image.digest)
        push_image(store, registry, image, own, puller=puller, jobs=jobs, progress=progress)
    index = index_of(images)
    return registry.push_manifest(name, index.raw, index.media_type)
