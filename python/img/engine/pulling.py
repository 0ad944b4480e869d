"""`Puller`: brings images and layers to the store: resolves names, fetches blobs, extracts layers.

Layers are fetched, verified and extracted side by side, each into a folder of its own; those
that depend on the layers below them are settled afterwards, in order, and then published. So are those of
several images; a layer that several have comes once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from img import _core
from img.amounts import human_size
from img.engine.locating import Located, Locator, OpenRegistry, how_to_fetch
from img.engine.requests import PullPolicy
from img.errors import ImgError, StoreError, Unsupported
from img.oci import Descriptor, Image, Layer, Platform, Reference
from img.oci.descriptor import LAYERS
from img.progress import Meter, Note, Progress, Transferred, Transferring
from img.registry import Stop, Stopped
from img.store import LayerRecord, Store, WorkFolder, ground

if TYPE_CHECKING:
    from img.registry import Registry, Sink


class Puller:
    """Brings things to one store. Safe for several threads.

    Attributes:
        locator: Finds what names mean.
    """

    def __init__(
        self, store: Store, registry: OpenRegistry, progress: Progress, *, jobs: int, barred: str = ""
    ) -> None:
        """Touches neither disk nor network yet.

        Args:
            barred: Why no registry may be asked for anything, such as `OFFLINE`; empty where one may.
        """
        self._store = store
        self._open_registry = registry
        self._barred = barred
        self.locator = Locator(store, self._registry, progress, barred=barred)
        self._progress = progress
        self._jobs = jobs
        self._origins: dict[str, Reference] = {}
        self._lock = threading.Lock()
        self._coming: dict[str, threading.Event] = {}
        self._moved: dict[str, tuple[int, int]] = {}
        self._stop = Stop()
        self._early = Stop()

    def stop(self) -> None:
        """Ends all transfers soon, from any thread; nothing is fetched any more until `resume`."""
        self._stop.set()
        self._early.set()

    def end_early(self) -> None:
        """Ends every `bring_early` soon, and those to come at once; from any thread."""
        self._early.set()

    def resume(self) -> None:
        """Takes `stop` and `end_early` back, once all that they ended has ended."""
        self._stop = Stop()
        self._early = Stop()

    # ---- images ------------------------------------------------------------------------------

    def resolve(self, reference: Reference, platform: Platform, *, policy: PullPolicy = "missing") -> Image:
        """Gives the image of a name, from the store or from its registry, and names it; fetches no layer.

        Raises:
            As `locate`.
        """
        located = self.locate(reference, platform, policy=policy)
        self.keep(located, reference)
        return located.image

    def locate(self, reference: Reference, platform: Platform, *, policy: PullPolicy = "missing") -> Located:
        """Finds what a name means; the store's names stay as they are. See `Locator.locate`."""
        located = self.locator.locate(reference, platform, policy=policy)
        if located.fresh or located.image.id not in self._origins:
            self.comes_from(located.image, reference)
        return located

    def comes_from(self, image: Image, reference: Reference) -> None:
        """Says where an image's layers can be had."""
        self._origins[image.id] = reference

    def here(self, wanted: Iterable[tuple[Reference, Platform]]) -> bool:
        """Tells whether the store has an image for each of these names."""
        return all(self._store.names.find_for(*pair) is not None for pair in wanted)

    def keep(self, located: Located, reference: Reference) -> None:
        """Gives an image that was just asked for its name in the store."""
        if located.fresh:
            self.name(located, reference)

    def name(self, located: Located, reference: Reference) -> None:
        """Gives an image a name in the store, with the index that the name stands for."""
        index = located.index
        if not index and located.digest != located.image.digest and self._store.blobs.has(located.digest):
            index = self._store.blobs.read(located.digest)
        self._store.names.put(located.image, reference, index=index)

    def extract(self, image: Image) -> list[Path]:
        """Gives the folders of an image's layers, base first; fetches and extracts what is missing."""
        return [record.path for record in self.layers(image)]

    def layers(self, image: Image) -> list[LayerRecord]:
        """Like `extract`, but gives the records."""
        return self._layers(image, self._stop)

    def bring_early(self, image: Image) -> None:
        """Fetches and extracts what is missing before anybody asks; a failure is for who asks to meet."""
        try:
            self._layers(image, self._early)
        except (Stopped, KeyboardInterrupt):
            return
        except (ImgError, OSError) as error:
            self._progress(Note(level="debug", text=f"a base could not be brought early: {error}"))

    def _layers(self, image: Image, stop: Stop) -> list[LayerRecord]:
        alone = False
        while True:
            records = self._present(image)
            found = [record for record in records if record is not None]
            if len(found) == len(records):
                return found
            if alone:
                missing_id = image.config.diff_ids[records.index(None)]
                raise StoreError(f"layer {missing_id} went missing while it was in use")
            missing = {
                layer.diff_id: layer
                for layer, record in zip(image.layers, records, strict=True)
                if record is None
            }
            alone = self._bring(image, missing, stop)

    def blobs(self, image: Image | None, wanted: Sequence[Descriptor]) -> None:
        """Fetches blobs that are not here, without extracting them.

        Args:
            image: Whose they are; None for blobs that no image has: they come from where they were seen.
        """
        missing = self._lacking(wanted)
        if missing:
            self.bring(self._origin(image, missing[0].digest), missing)

    def bring(self, origin: Reference, wanted: Sequence[Descriptor]) -> None:
        """Fetches blobs of a repository that are not here, without extracting them.

        One that another process, or another thread, is fetching is waited for instead.
        """
        missing = self._lacking(wanted)
        if not missing:
            return
        keys = [blob.hex for blob in missing]
        waiting = partial(self._tell_waiting, origin)
        with self._store.claims.together(keys, waiting=waiting, check=self._stop.check):
            missing = self._lacking(missing)
            if missing:
                self._transfer(origin, missing, self._store.blobs.sink, self._stop, of=len(wanted))

    def _lacking(self, wanted: Sequence[Descriptor]) -> list[Descriptor]:
        once = {blob.digest: blob for blob in wanted}
        return [blob for blob in once.values() if not self._store.blobs.has(blob.digest)]

    def _transfer(
        self,
        origin: Reference,
        blobs: Sequence[Descriptor],
        open_sink: Callable[[Descriptor], Sink],
        stop: Stop,
        *,
        of: int,
    ) -> None:
        """Fetches blobs, of `of` that are needed, and says so before and afterwards."""
        from img.registry import fetch

        size = sum(blob.size for blob in blobs)
        count = f"{len(blobs)} layer{'s' if len(blobs) > 1 else ''}"
        text = f"fetching {count} of {origin.familiar}, {human_size(size)}"
        self._progress(Note(level="info", text=text))
        self._progress(Transferring(action="pull", name=origin.familiar, blobs=len(blobs), total_bytes=size))
        began = time.monotonic()
        fetch(self._registry(), origin, blobs, open_sink, jobs=self._jobs, progress=self._progress, stop=stop)
        with self._lock:
            number, total = self._moved.get(str(origin), (0, 0))
            self._moved[str(origin)] = (number + len(blobs), total + size)
        self._progress(
            Transferred(
                action="pull",
                name=origin.familiar,
                moved=len(blobs),
                moved_bytes=size,
                present=of - len(blobs),
                seconds=time.monotonic() - began,
            )
        )

    def moved(self, origin: Reference) -> tuple[int, int]:
        """Blobs, and their bytes, that came for a name."""
        with self._lock:
            return self._moved.get(str(origin), (0, 0))

    def _tell_waiting(self, origin: Reference) -> None:
        text = f"layers of {origin.familiar} are being fetched already: waiting for them"
        self._progress(Note(level="info", text=text))

    def here_of(self, image: Image, *, extracted: bool) -> list[Descriptor]:
        """The layers of an image that need not come: folders, or else blobs, that are here."""
        if not extracted:
            return [d for d in image.manifest.layers if self._store.blobs.has(d.digest)]
        pairs = zip(image.manifest.layers, self._present(image), strict=True)
        return [descriptor for descriptor, record in pairs if record is not None]

    # ---- layers ------------------------------------------------------------------------------

    def _present(self, image: Image) -> list[LayerRecord | None]:
        ids = image.config.diff_ids
        return [self._store.layers.find(diff_id, ids[:n]) for n, diff_id in enumerate(ids)]

    def _bring(self, image: Image, missing: Mapping[str, Layer], stop: Stop) -> bool:
        """Brings the layers that nobody is bringing yet, and waits for those that somebody is.

        They are taken on in one go, so that no two threads wait for each other.

        Returns:
            Whether all of them were ours to bring. Where they were not, others may have failed.
        """
        with self._lock:
            theirs = [self._coming[diff_id] for diff_id in missing if diff_id in self._coming]
            ours = [layer for diff_id, layer in missing.items() if diff_id not in self._coming]
            done = threading.Event()
            self._coming.update((layer.diff_id, done) for layer in ours)
        try:
            if ours:
                self._extract(image, ours, theirs, stop)
            else:
                _wait(theirs, stop)
        finally:
            with self._lock:
                for layer in ours:
                    del self._coming[layer.diff_id]
            done.set()
        return not theirs

    def _extract(
        self, image: Image, missing: Sequence[Layer], theirs: Sequence[threading.Event], stop: Stop
    ) -> None:
        """Extracts layers that have no record; settles them once those that others bring are there."""
        with self._store.work.begin() as work:
            extraction = _Extraction(self._store, work, self._progress)
            local = [layer for layer in missing if self._store.blobs.has(layer.digest)]
            remote = [layer for layer in missing if layer not in local]
            self._refuse_unknown(remote)
            extraction.from_store(local, jobs=self._jobs, stop=stop)
            if remote and self._barred:
                raise self._incomplete(image, remote)
            if remote:
                self._fetch(image, remote, extraction, stop)
            _wait(theirs, stop)
            extraction.publish(image)

    def _fetch(self, image: Image, remote: Sequence[Layer], extraction: _Extraction, stop: Stop) -> None:
        """Fetches and extracts layers; one that another process is fetching is waited for instead.

        They stay claimed until they are published, or until their blobs are here, at least.
        """
        origin = self._origin(image, remote[0].digest)
        waiting = partial(self._tell_waiting, origin)
        keys = [layer.digest.partition(":")[2] for layer in remote]
        with self._store.claims.together(keys, waiting=waiting, check=stop.check) as waited:
            if waited:
                records = dict(zip(image.config.diff_ids, self._present(image), strict=True))
                remote = [layer for layer in remote if records[layer.diff_id] is None]
                local = [layer for layer in remote if self._store.blobs.has(layer.digest)]
                extraction.from_store(local, jobs=self._jobs, stop=stop)
                remote = [layer for layer in remote if layer not in local]
            if remote:
                by_digest = {layer.digest: layer for layer in remote}
                self._transfer(
                    origin,
                    [layer.descriptor for layer in by_digest.values()],
                    lambda descriptor: extraction.sink(by_digest[descriptor.digest]),
                    stop,
                    of=len(image.layers),
                )
            extraction.publish_alone()

    def _registry(self) -> Registry:
        """The client; every way to a registry leads through here."""
        if self._barred:
            raise StoreError(f"a registry would have to be asked, and {self._barred}")
        return self._open_registry()

    def _incomplete(self, image: Image, missing: Sequence[Layer]) -> StoreError:
        """The error for an image of which the documents are here, and not all layers."""
        origin = self._origins.get(image.id)
        name = origin.familiar if origin else image.id
        count = "a layer" if len(missing) == 1 else f"{len(missing)} layers"
        size = human_size(sum(layer.size for layer in missing))
        return StoreError(
            f"the store lacks {count} of {name} ({size}), and {self._barred}",
            hint=how_to_fetch(name, self._barred),
        )

    def _refuse_unknown(self, layers: Sequence[Layer]) -> None:
        for layer in layers:
            if layer.descriptor.media_type not in LAYERS:
                raise Unsupported(f"a layer of type {layer.descriptor.media_type}", layer.digest)

    def _origin(self, image: Image | None, digest: str) -> Reference:
        """Where an image's blobs can be fetched from."""
        if image is not None and image.id in self._origins:
            return self._origins[image.id]
        for source in self._store.layers.sources_of(digest):
            return Reference.parse(source)
        raise StoreError(
            f"blob {digest} is not in the store, and no registry is known to have it",
            hint="pull the image again",
        )


def _wait(events: Iterable[threading.Event], stop: Stop) -> None:
    """Waits until others have brought what they bring, or failed."""
    for event in events:
        while not event.wait(0.1):
            stop.check()


class _LayerSink:
    """A sink that remembers where its layer went, once it is finished."""

    def __init__(self, sink: _core.BlobSink, done: Callable[[_core.ApplyStats], None]) -> None:
        self._sink = sink
        self._done = done

    @property
    def offset(self) -> int:
        return self._sink.offset

    def write(self, data: bytes) -> None:
        self._sink.write(data)

    def finish(self) -> object:
        stats = self._sink.finish()
        if stats is not None:
            self._done(stats)
        return stats

    def abort(self) -> None:
        self._sink.abort()


class _Extraction:
    """Layers of one image on their way into the store."""

    def __init__(self, store: Store, work: WorkFolder, progress: Progress) -> None:
        self._store = store
        self._work = work
        self._progress = progress
        self._count = 0
        self._lock = threading.Lock()
        self._ready: dict[str, tuple[Path, _core.ApplyStats]] = {}

    def _folder(self) -> Path:
        with self._lock:
            self._count += 1
            return self._work.folder(f"layer-{self._count}")

    def sink(self, layer: Layer) -> _LayerSink:
        """A sink for a download; a second try gets a new, empty folder."""
        folder = self._folder()
        sink = self._store.blobs.sink(layer.descriptor, extract_to=folder, diff_id=layer.diff_id)
        return _LayerSink(sink, lambda stats: self._keep(layer, folder, stats))

    def _keep(self, layer: Layer, folder: Path, stats: _core.ApplyStats) -> None:
        self._ready[layer.diff_id] = (folder, stats)

    def from_store(self, layers: Sequence[Layer], *, jobs: int, stop: Stop) -> None:
        """Extracts blobs that are here already, several at once."""
        if not layers:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(jobs, len(layers))) as pool:
            for future in [pool.submit(self._apply, layer, stop) for layer in layers]:
                future.result()

    def _apply(self, layer: Layer, stop: Stop) -> None:
        stop.check()
        folder = self._folder()
        blob = self._store.blobs.path(layer.digest)
        meter = Meter(self._progress, "extract", layer.digest, layer.size)
        stats = _core.apply_layer(str(blob), str(folder), diff_id=layer.diff_id, told=meter.at)
        self._keep(layer, folder, stats)
        meter.finished("written")

    def publish_alone(self) -> None:
        """Publishes what depends on nothing below, so that others find it at once."""
        for diff_id in [diff_id for diff_id, (_, stats) in self._ready.items() if not stats.pending]:
            self._publish(diff_id, *self._ready.pop(diff_id), settled_on="")

    def publish(self, image: Image) -> None:
        """Settles what depends on the layers below, and publishes everything, base first.

        It ends early at a layer that another thread was to bring and did not.
        """
        ids = image.config.diff_ids
        below: list[str] = []
        for position, layer in enumerate(image.layers):
            record = self._store.layers.find(layer.diff_id, ids[:position])
            if record is None:
                if layer.diff_id not in self._ready:
                    return
                folder, stats = self._ready.pop(layer.diff_id)
                if stats.pending:
                    _core.settle_layer(str(folder), below)
                settled_on = ground(ids[:position]) if stats.pending else ""
                record = self._publish(layer.diff_id, folder, stats, settled_on=settled_on)
            below.append(str(record.path))

    def _publish(
        self, diff_id: str, folder: Path, stats: _core.ApplyStats, *, settled_on: str
    ) -> LayerRecord:
        return self._store.layers.publish(
            folder,
            diff_id=diff_id,
            tar_bytes=stats.uncompressed_size,
            settled_on=settled_on,
            snapshot=diff_id,
            trash=self._work,
        )


def warn_single(namespace: _core.Namespace, progress: Progress) -> None:
    """Says once that one id has to do for all, and how to get more."""
    if namespace.kind == "single":
        progress(
            Note(
                level="warning",
                text=f"one user id only: other owners are recorded in the image where they are "
                f"copied or extracted, and 0 where a RUN changes them. {namespace.reason}",
            )
        )


__all__ = ["Puller", "warn_single"]
