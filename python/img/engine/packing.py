"""`pack_blob`: makes the blob of one extracted layer, for whatever is to leave this machine."""

from __future__ import annotations

from collections.abc import Mapping

from img import _core
from img.engine.requests import Compression
from img.errors import DigestMismatch
from img.oci import Descriptor
from img.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from img.progress import Progress, Transfer
from img.store import LayerRecord, Store

MEDIA_TYPES: Mapping[Compression, str] = {
    "none": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}


def pack_blob(
    store: Store,
    record: LayerRecord,
    compression: Compression,
    *,
    level: int | None = None,
    progress: Progress,
) -> Descriptor:
    """Compresses a layer into the store's blobs, where it is remembered as that layer's.

    Args:
        level: Of the compression; None for its usual one.
    Raises:
        DigestMismatch: the layer's folder is no longer what it was.
        DiskFull: nothing is left behind.
    """
    with store.work.begin() as work:
        blob = work.path / "blob"
        packed = _core.pack_layer(
            str(record.path),
            blob=str(blob),
            compression=compression,
            level=level,
            clamp_mtime=record.clamp,
        )
        if packed.diff_id != record.diff_id:
            raise DigestMismatch("diff ID", record.diff_id, packed.diff_id)
        assert packed.digest is not None and packed.size is not None
        blob.rename(store.blobs.path(packed.digest))
    descriptor = Descriptor(media_type=MEDIA_TYPES[compression], digest=packed.digest, size=packed.size)
    store.layers.remember_blob(record.diff_id, descriptor, source="")
    progress(
        Transfer(action="compress", digest=packed.digest, done_bytes=packed.size, total_bytes=packed.size)
    )
    return descriptor
