"""`load_archive`: takes the images of an archive into the store, and names them. `img load` calls it."""

from __future__ import annotations

import time
from pathlib import Path

from img.exporter import Named, read_archive
from img.oci import Descriptor
from img.progress import Progress, Transferred, Transferring
from img.store import Store


def load_archive(store: Store, path: Path, progress: Progress) -> list[str]:
    """Takes every image of an archive in; gives their names, or IDs where unnamed.

    Raises:
        InvalidDocument: it is no image archive.
        DigestMismatch, SizeMismatch: a blob of it is not what its descriptor says.
    """
    started = time.monotonic()
    size = path.stat().st_size
    progress(Transferring(action="load", name=path.name, blobs=1, total_bytes=size))
    loaded: list[str] = []
    layers: dict[str, Descriptor] = {}
    with store.work.begin() as work:
        for named in read_archive(store, path, work.folder("archive"), progress):
            layers.update(_remembered(store, named))
            for name in named.names or (None,):
                if named.platforms:
                    store.names.put_index(named.platforms, name)
                else:
                    store.names.put(named.image, name)
                loaded.append(str(name) if name else named.image.id)
    progress(
        Transferred(
            action="load",
            name=path.name,
            moved=len(layers),
            moved_bytes=sum(layer.size for layer in layers.values()),
            seconds=time.monotonic() - started,
        )
    )
    return loaded


def _remembered(store: Store, named: Named) -> dict[str, Descriptor]:
    """Has the store know what its new blobs hold; gives the layers, by digest."""
    layers = [layer for image in named.images for layer in image.layers]
    for layer in layers:
        store.layers.remember_blob(layer.diff_id, layer.descriptor, source="")
    return {layer.digest: layer.descriptor for layer in layers}
