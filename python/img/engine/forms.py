"""`Forms`: which blob each layer of an image leaves as: the one that it has, or one that is made now.

`pushing` sends those blobs while they are made; `packed` waits for them, for archives.
"""

from __future__ import annotations

from collections.abc import Sequence

from img.engine.packing import MEDIA_TYPES, USUAL, Packer, Packing, Source, Wish, plain_layer
from img.engine.pulling import Puller
from img.errors import StoreError
from img.oci import Descriptor, Image, Layer
from img.oci.rewrite import rewrite_manifest
from img.store import Store
from img.values import replace

LayerKey = tuple[str, str]
"""A layer's diff ID, and the digest of its blob where it keeps that: equal keys leave as equal blobs."""


class Forms:
    """The blobs of one operation. Safe for several threads."""

    def __init__(self, store: Store, puller: Puller, packer: Packer, wish: Wish = USUAL) -> None:
        """Looks at nothing yet."""
        self._store = store
        self._puller = puller
        self._packer = packer
        self._wish = wish

    def key(self, layer: Layer) -> LayerKey:
        """What a layer is known by."""
        return layer.diff_id, layer.digest if self._packer.keeps(layer, self._wish) else ""

    def kept(self, image: Image) -> bool:
        """Tells whether every layer of an image leaves as its manifest has it."""
        return all(self._packer.keeps(layer, self._wish) for layer in image.layers)

    def ready(self, image: Image) -> bool:
        """Tells whether no layer of an image has to be compressed first."""
        return all(self._packer.ready(layer, self._wish) for layer in image.layers)

    def media_types(self, image: Image) -> list[str]:
        """What the layers of an image will be, base first."""
        return [
            layer.descriptor.media_type
            if self._packer.keeps(layer, self._wish)
            else MEDIA_TYPES[self._wish.form]
            for layer in image.layers
        ]

    def blob(self, image: Image, position: int) -> Descriptor | Packing:
        """The blob of a layer: its descriptor, or one that is being made.

        Raises:
            StoreError: the layer is no longer in the store. As `Puller.blobs`: it cannot be had.
        """
        layer = image.layers[position]
        if self._packer.keeps(layer, self._wish):
            return layer.descriptor
        if not plain_layer(layer) and not self._store.layers.built_here(layer.diff_id):
            return self._anew(image, layer)
        made = self.built(layer.diff_id, image.config.diff_ids[:position])
        if made is None:
            raise StoreError(f"layer {layer.diff_id} is no longer in the store", hint="build the image again")
        return made

    def _anew(self, image: Image, layer: Layer) -> Descriptor | Packing:
        """The blob of a layer that came as another one, which is fetched if need be."""
        known = self._packer.known(layer.diff_id, self._wish)
        if known is not None:
            return known
        self._puller.blobs(image, [layer.descriptor])
        source = Source(diff_id=layer.diff_id, path=self._store.blobs.path(layer.digest))
        return self._packer.begin(source, self._wish.form, level=self._wish.level)

    def built(self, diff_id: str, below: Sequence[str] = ()) -> Descriptor | Packing | None:
        """The blob of a layer that was built here; None where the layer is not in the store."""
        known = self._packer.known(diff_id, self._wish)
        if known is not None:
            return known
        record = self._store.layers.find(diff_id, below)
        if record is None:
            return None
        return self._packer.begin(Source.of(record), self._wish.form, level=self._wish.level)

    def packed(self, image: Image) -> Image:
        """Gives the same image with every layer's blob in the store; what lacks there is fetched or made.

        Raises:
            As `blob`, and `Packing.result`.
        """
        kept = [layer.descriptor for layer in image.layers if self._packer.keeps(layer, self._wish)]
        self._puller.blobs(image, kept)
        blobs = [self.blob(image, position) for position in range(len(image.layers))]
        return with_blobs(image, [b.result() if isinstance(b, Packing) else b for b in blobs])


def with_blobs(image: Image, blobs: Sequence[Descriptor]) -> Image:
    """The image with these blobs as its layers, base first.

    Where they are those that its manifest names, it is returned as it is: so an image that was pulled keeps
    its digest.
    """
    manifest = rewrite_manifest(image.manifest, layers=blobs)
    return image if manifest is image.manifest else replace(image, manifest=manifest)
