"""`Packer` and `push_image`: make every layer of an image a blob that can leave, and send it.

A layer built here has no blob until something leaves (DESIGN D5); it is compressed once, and which
blob came of it is remembered. A pulled layer keeps the blob that it came as.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, BinaryIO

from img import _core
from img.engine.pulling import Puller, plain_layer
from img.engine.requests import Compression
from img.errors import DigestMismatch
from img.oci import Descriptor, Image, Layer, Manifest, Reference
from img.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from img.progress import Progress, Transfer
from img.store import Store
from img.values import replace

if TYPE_CHECKING:
    from img.registry import Registry

_MEDIA_TYPES: dict[Compression, str] = {
    "none": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}


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
        media_type = _MEDIA_TYPES[compression]
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
        with self._store.work.begin() as work:
            blob = work.path / "blob"
            packed = _core.pack_layer(
                str(record.path), blob=str(blob), compression=compression, clamp_mtime=record.clamp
            )
            if packed.diff_id != layer.diff_id:
                raise DigestMismatch("diff ID", layer.diff_id, packed.diff_id)
            assert packed.digest is not None and packed.size is not None
            blob.rename(self._store.blobs.path(packed.digest))
        descriptor = Descriptor(media_type=_MEDIA_TYPES[compression], digest=packed.digest, size=packed.size)
        self._store.layers.remember_blob(layer.diff_id, descriptor, source="")
        self._progress(
            Transfer(action="compress", digest=packed.digest, done_bytes=packed.size, total_bytes=packed.size)
        )
        return descriptor


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
