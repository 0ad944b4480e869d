"""`Keeper`: what the cache does for one node: asks for its keys, and keeps what it made.

The solver calls it from the node's own thread, in this order: `look` for each key that the node can be
asked for by, `announce` where none was known, `keep` once the work is done. A layer is published, or the
earlier, equal one kept (DESIGN D6). Nothing here carries an op out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from img.builder.graph import Node
from img.builder.key import CacheKey, stacked
from img.builder.perform import Made, Step
from img.builder.site import BuiltLayer, Result, Site
from img.oci import Descriptor
from img.oci.descriptor import OCI_LAYER
from img.progress import StepDone, StepStarted
from img.store import CacheRecord, LayerRecord
from img.values import replace


class Keeper:
    """The cache of one build. Safe for several threads."""

    def __init__(self, site: Site, *, use_cache: bool = True) -> None:
        """Asks for nothing yet.

        Args:
            use_cache: False finds nothing, and keeps all the same.
        """
        self._site = site
        self._use_cache = use_cache

    def announce(self, step: Step, keys: Sequence[CacheKey]) -> float:
        """Says that a step begins, since none of its keys was known; gives the time for `keep`."""
        node = step.node
        self._site.progress(
            StepStarted(step=node.number, title=node.title, where=node.where, stage=node.stage)
        )
        return time.monotonic()

    def hit(self, step: Step, key: CacheKey) -> Result | None:
        """What the cache has under a key, if its layer is still here."""
        if not self._use_cache:
            return None
        store = self._site.store
        record = store.records.find(key.digest)
        if record is None:
            return None
        layer = None
        if record.diff_id:
            layer = store.layers.find(record.diff_id)
            if layer is None:
                return None
        result = stack(step.inputs[0], record, cached=True)
        snapshot = layer.snapshot if layer else ""
        self._site.progress(done_event(step.node, result, started=time.monotonic(), snapshot=snapshot))
        return result

    def look(self, step: Step, keys: list[CacheKey], key: CacheKey) -> Result | None:
        """Asks for one more key, added to `keys`; a hit is recorded under those that missed before it."""
        keys.append(key)
        hit = self.hit(step, key)
        if hit is not None:
            for missed in keys[:-1]:
                self._record_again(missed, key)
        return hit

    def _record_again(self, key: CacheKey, known: CacheKey) -> None:
        record = self._site.store.records.find(known.digest)
        if record is not None:
            self._site.store.records.put(replace(record, key=key.digest, inputs=key.text))

    def keep(self, step: Step, keys: list[CacheKey], made: Made, started: float) -> Result:
        """Publishes what a step made, records it, and gives its result."""
        site = self._site
        try:
            layer = self._publish(made) if made.packed.entries else None
        finally:
            made.discard()
        record = CacheRecord(
            key="",
            inputs="",
            diff_id=layer.diff_id if layer else "",
            content=layer.content if layer else "",
            tar_bytes=layer.tar_bytes if layer else 0,
            created=site.now(),
        )
        for key in keys:
            site.store.records.put(replace(record, key=key.digest, inputs=key.text))
        result = stack(step.inputs[0], record, cached=False)
        snapshot = layer.snapshot if layer else ""
        site.progress(done_event(step.node, result, started=started, snapshot=snapshot))
        return result

    def _publish(self, made: Made) -> LayerRecord:
        """Moves a layer into the store, or keeps an earlier one of the same content.

        With SOURCE_DATE_EPOCH the times count as well: the same input must give the same digest on
        any machine, whatever its store holds already.
        """
        layers = self._site.store.layers
        if self._site.epoch is None:
            earlier = layers.by_content(made.packed.content_digest)
            if earlier is not None:
                return earlier
        return layers.publish(
            made.upper,
            diff_id=made.packed.diff_id,
            tar_bytes=made.packed.uncompressed_size,
            content=made.packed.content_digest,
            clamp=self._site.epoch,
            trash=self._site.store.lease(),
        )


def stack(below: Result, record: CacheRecord, *, cached: bool) -> Result:
    """The result of a step: the stack below, and its own layer on top, if it has one."""
    if not record.diff_id:
        return replace(below, created=record.created, own_layer=False, cached=cached)
    layer = BuiltLayer(
        diff_id=record.diff_id,
        content=record.content,
        descriptor=Descriptor(media_type=OCI_LAYER, digest=record.diff_id, size=record.tar_bytes),
    )
    return Result(
        layers=(*below.layers, layer),
        content=stacked(below.content, record.content),
        base=below.base,
        created=record.created,
        own_layer=True,
        cached=cached,
    )


def done_event(node: Node, result: Result, *, started: float, snapshot: str = "") -> StepDone:
    own = result.layers[-1].descriptor.size if result.own_layer else 0
    return StepDone(
        step=node.number,
        title=node.title,
        cached=result.cached,
        snapshot=snapshot,
        seconds=time.monotonic() - started,
        size_bytes=own,
        where=node.where,
        stage=node.stage,
    )
