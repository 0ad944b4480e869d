"""`Keeper`: what the cache does for one node: asks for its keys, and keeps what it made.

The solver calls it from the node's own thread, in this order: `look` for each key that the node can be
asked for by, `claim` where none was known, then `announce`, and `keep` once the work is done. A layer is
published, or the earlier, equal one kept (DESIGN D6). Nothing here carries an op out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from img import _core
from img.builder.explain import NEW, Explainer
from img.builder.graph import Node
from img.builder.key import CacheKey, stacked
from img.builder.perform import Made, Step
from img.builder.site import BuiltLayer, Result, Site
from img.oci import Descriptor
from img.oci.descriptor import OCI_LAYER
from img.progress import Note, StepDone, StepStarted
from img.store import CacheRecord, LayerRecord, SharedLayer
from img.values import replace

_NONE: Mapping[int, str] = {}


class Keeper:
    """The cache of one build. Safe for several threads."""

    def __init__(self, site: Site, *, fresh: Mapping[int, str] = _NONE, nodes: Sequence[Node] = ()) -> None:
        """Asks for nothing yet.

        Args:
            fresh: Nodes for which nothing is found, and why; what they make is kept all the same.
            nodes: The whole plan, by number: what is below a step is named in explanations.
        """
        self._site = site
        self._explainer = Explainer(site, nodes)
        self._fresh = fresh

    def announce(
        self, step: Step, keys: Sequence[CacheKey], selections: Sequence[_core.Selection] = ()
    ) -> float:
        """Says that a step begins, since none of its keys was known, and why; gives the time for `keep`.

        Args:
            keys: What it was asked for by; none where it `is_new`.
            selections: The files that it reads, digested.
        """
        node = step.node
        if keys:
            forced = self._fresh.get(node.number, "")
            why = self._explainer.missed(step, keys, forced=forced, selections=selections)
        else:
            why = self._why_new(step)
        self._site.progress(
            StepStarted(step=node.number, title=node.shown, where=node.where, stage=node.stage, why=why)
        )
        return time.monotonic()

    def is_new(self, step: Step) -> bool:
        """Can no cache know a step, whatever it reads? So it is where none is to be asked, or where the
        store has seen none like it, and no shared cache is there."""
        if step.node.number in self._fresh:
            return True
        return self._site.shared is None and not self._explainer.has_like(step.node)

    def claim_place(self, step: Step) -> AbstractContextManager[object]:
        """Holds the right to run what stands at a step's place, where no key is known yet."""
        if step.node.number in self._fresh:
            return nullcontext()
        return self._site.store.claims.hold(self._explainer.place(step.node), waiting=self._waiting(step))

    def explain_new(
        self, step: Step, keys: Sequence[CacheKey], selections: Sequence[_core.Selection]
    ) -> None:
        """Notes what a step that `is_new` read, once that is known: before `keep`."""
        self._explainer.missed(step, keys, forced=self._why_new(step), selections=selections)

    def _why_new(self, step: Step) -> str:
        return self._fresh.get(step.node.number, "") or NEW

    def at_hand(self, step: Step, key: CacheKey) -> Result | None:
        """What the store itself knows under a key, at once: no shared cache is asked."""
        record, snapshot = (None, "") if step.node.number in self._fresh else self._known(key)
        return self._found(step, [key], record, snapshot) if record else None

    def look(self, step: Step, keys: list[CacheKey], key: CacheKey) -> Result | None:
        """Asks for one more key, added to `keys`; a hit is recorded under those that missed before it.

        The store is asked, and then the shared caches.
        """
        keys.append(key)
        if step.node.number in self._fresh:
            return None
        record, snapshot = self._known(key)
        if record is None and self._site.shared is not None:
            record = self._site.shared.find(key.digest)
        return self._found(step, keys, record, snapshot) if record else None

    def _found(self, step: Step, keys: Sequence[CacheKey], record: CacheRecord, snapshot: str) -> Result:
        """The result of a step whose last key has a record, said and passed on."""
        *missed, key = keys
        self._record_again(step, missed, record)
        self._offer(step, keys, record)
        self._explainer.hit(step, key, record)
        result = stack(step.inputs[0], record, cached=True)
        self._site.progress(
            done_event(step.node, result, started=time.monotonic(), snapshot=snapshot, key=key.digest)
        )
        return result

    @contextmanager
    def claim(self, step: Step, keys: Sequence[CacheKey]) -> Iterator[Result | None]:
        """Holds the right to run a step that none of its keys knew, for as long as the block lasts.

        Where the same step is running already, in this build or another, it is waited for; what came of it
        is then given, and nothing is left to be done. A step that runs whatever the cache knows waits for
        nobody.
        """
        if step.node.number in self._fresh:
            yield None
            return

        with self._site.store.claims.hold(keys[-1].digest, waiting=self._waiting(step)):
            # Asked again in any case: another build may have ended between our question and our claim.
            yield self.look(step, list(keys[:-1]), keys[-1])

    def _waiting(self, step: Step) -> Callable[[], None]:
        def say() -> None:
            text = f"{step.node.where or step.node.title}: the same step is running already: waiting for it"
            self._site.progress(Note(level="info", text=text))

        return say

    def _known(self, key: CacheKey) -> tuple[CacheRecord | None, str]:
        """What the store has under a key, if its layer is still here; and that layer's identity."""
        store = self._site.store
        record = store.records.find(key.digest)
        if record is None or not record.diff_id:
            return record, ""
        layer = store.layers.find(record.diff_id)
        return (record, layer.snapshot) if layer else (None, "")

    def _record_again(self, step: Step, missed: Sequence[CacheKey], record: CacheRecord) -> None:
        """Records a hit under other keys, unless they name by content what a shared cache alone says.

        A shared cache's own record, which has no inputs, is recorded by whoever lent it, once it was seen.
        """
        shared = self._site.shared
        if not missed or not record.inputs or (shared and not shared.sound(_stands_on(step))):
            return
        record = self._explainer.label(step, record)
        for key in missed:
            self._site.store.records.put(replace(record, key=key.digest, inputs=key.text))

    def _offer(self, step: Step, keys: Sequence[CacheKey], record: CacheRecord) -> None:
        """Tells the shared caches of a step and the keys that it has, and its layer to what sends it away."""
        if self._site.leaving is not None and record.diff_id:
            self._site.leaving.offer(step.node.number, record.diff_id)
        if self._site.shared is not None:
            self._site.shared.offer(step.node.number, keys, record, step.node.title, _stands_on(step))

    def earlier(self, step: Step) -> SharedLayer | None:
        """The layer that a like step made before, whose files are shared; known once the step was announced.

        A step that runs whatever the cache knows shares with nothing.
        """
        if step.node.number in self._fresh:
            return None
        record = self._explainer.nearest(step)
        store = self._site.store
        layer = store.layers.find(record.diff_id) if record and record.diff_id else None
        return store.fingerprints.of(layer) if layer else None

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
        record = self._as_before(self._explainer.label(step, record))
        why = self._explainer.made(step, record)
        if made.packed.damaged is not None:
            step.warn(
                f"{made.packed.damaged} in the store is not what a build wrote there: its layer is damaged, "
                "and nothing was taken from it; `img prune --all` removes layers that no image needs"
            )
        if made.packed.drifted is None:
            for key in keys:
                site.store.records.put(replace(record, key=key.digest, inputs=key.text))
            self._offer(step, keys, record)
        else:
            # Its keys name a content that its layer does not have: under them, nothing may be found.
            step.warn(f"{made.packed.drifted} changed while it was copied: this step is not remembered")
        result = stack(step.inputs[0], record, cached=False)
        snapshot = layer.snapshot if layer else ""
        digest = keys[-1].digest if keys else ""
        site.progress(done_event(step.node, result, started=started, snapshot=snapshot, key=digest, why=why))
        return result

    def _as_before(self, record: CacheRecord) -> CacheRecord:
        """A record with the time of an earlier one of the same result: equal steps give an equal image.

        Not with SOURCE_DATE_EPOCH, where no time of this kind is in an image.
        """
        if self._site.epoch is not None:
            return record
        earlier = self._site.store.records.earlier(record)
        return replace(record, created=earlier.created) if earlier and earlier.created else record

    def _publish(self, made: Made) -> LayerRecord:
        """Moves a layer into the store, or keeps an earlier one of the same content.

        With SOURCE_DATE_EPOCH the times count as well: the same input must give the same digest on
        any machine, whatever its store holds already.
        """
        layers, fingerprints = self._site.store.layers, self._site.store.fingerprints
        if self._site.epoch is None:
            earlier = layers.by_content(made.packed.content_digest)
            if earlier is not None:
                # A RUN may have made it, which leaves none.
                if made.fingerprints is not None and fingerprints.of(earlier) is None:
                    fingerprints.keep(made.fingerprints, earlier.diff_id)
                self._site.store.lease().take(made.upper)
                return earlier
        if made.fingerprints is not None:
            fingerprints.keep(made.fingerprints, made.packed.diff_id)
        return layers.publish(
            made.upper,
            diff_id=made.packed.diff_id,
            tar_bytes=made.packed.uncompressed_size,
            content=made.packed.content_digest,
            clamp=self._site.epoch,
            trash=self._site.store.lease(),
        )


def _stands_on(step: Step) -> list[str]:
    """The layers that a step's keys may name by content."""
    return list(dict.fromkeys(layer.diff_id for result in step.inputs for layer in result.layers))


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


def done_event(
    node: Node, result: Result, *, started: float, snapshot: str = "", key: str = "", why: str = ""
) -> StepDone:
    """The event of a step that ended well. `key` is the digest of the last key that it was asked for by."""
    own = result.layers[-1].descriptor.size if result.own_layer else 0
    return StepDone(
        step=node.number,
        title=node.shown,
        cached=result.cached,
        snapshot=snapshot,
        seconds=time.monotonic() - started,
        size_bytes=own,
        where=node.where,
        stage=node.stage,
        key=key,
        why=why,
    )
