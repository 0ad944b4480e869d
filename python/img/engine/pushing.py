"""`Pusher`: sends images to their names: layers while they are compressed, documents when all is there.

`img push` calls `push`. A build that pushes calls `plan`, and `offer` as its steps end: what is sure to be in
an image leaves beside the build, and gives way to its steps; `push` does what is left. Whatever goes wrong
before `push` is tried again by it, which tells. Each layer is compressed once, wherever it goes, and sent
once to each registry: its other repositories there mount it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import BinaryIO, TypeVar

from img import _core
from img.builder.graph import BuildGraph
from img.engine.annotating import Annotations
from img.engine.background import Background
from img.engine.forms import Forms, LayerKey, with_blobs
from img.engine.packing import STOP_SECONDS, USUAL, Packer, Packing, Wish
from img.engine.pulling import Puller
from img.errors import ImgError
from img.oci import Descriptor, Image, Index, Manifest, Reference
from img.oci.descriptor import INDEXES
from img.progress import Note, Progress
from img.registry import Registry, Stop, Stopped, in_parallel
from img.store import ImageName, Store, index_of
from img.values import dataclass, field, replace

T = TypeVar("T")
R = TypeVar("R")

Make = Callable[[], Descriptor | Packing]
"""Gives the blob of a layer, or begins to make it."""

NO_ANNOTATIONS = Annotations()

LAYERS_BESIDE = 2
"""Layers that are compressed or sent at once beside a build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """Images, one for each platform, and the name that they go to.

    Attributes:
        index: What the name shall stand for there, with the images as they are before they leave; None
            where it is made of them.
        others: What that index names beside images.
        home: The name that the store has for it, where that is another one.
    """

    images: tuple[Image, ...]
    name: Reference
    index: Index | None = None
    others: tuple[Manifest, ...] = ()
    home: Reference | None = None

    @classmethod
    def of(cls, store: Store, row: ImageName, name: Reference) -> Shipment:
        """What a name of the store stands for: its index as it is, where all that it names is here."""
        index = store.names.list_of(row)
        if index is None or not all(
            store.blobs.has(entry.digest) and entry.media_type not in INDEXES for entry in index.manifests
        ):
            return cls(images=store.names.images_of(row), name=name)
        images = tuple(store.names.of_index(row.index))
        return cls(images=images, name=name, index=index, others=tuple(store.names.others_of(index)))

    def with_images(self, images: tuple[Image, ...]) -> Shipment:
        """The same with the images as they leave."""
        if self.index is None:
            return replace(self, images=images)
        renewed = {
            old.digest: replace(
                entry, media_type=new.manifest.media_type, digest=new.digest, size=len(new.manifest.raw)
            )
            for old, new in zip(self.images, images, strict=True)
            if (entry := self.index.find(old.digest))
        }
        return replace(self, images=images, index=self.index.with_replaced(renewed))


@dataclass(slots=True)
class _Sent:
    """What became of one layer.

    Attributes:
        blob: As it leaves, once that is known.
        there: Repositories that have it, as names without tag.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    blob: Descriptor | None = None
    there: set[str] = field(default_factory=set)


class Pusher:
    """Everything that one operation pushes. Safe for several threads; `stop` it where it did not end well."""

    def __init__(
        self,
        store: Store,
        registry: Callable[[], Registry],
        packer: Packer,
        puller: Puller,
        progress: Progress,
        *,
        jobs: int,
        wish: Wish = USUAL,
        annotations: Annotations = NO_ANNOTATIONS,
    ) -> None:
        """Speaks to nobody yet.

        Args:
            annotations: What is added to every image that `push` sends.
        """
        self._store = store
        self._registry = registry
        self._packer = packer
        self._wish = wish
        self._annotations = annotations
        self._forms = Forms(store, puller, packer, wish)
        self._puller = puller
        self._progress = progress
        self._jobs = jobs
        self._goals: Mapping[int, tuple[Reference, ...]] = {}
        self._background = Background(LAYERS_BESIDE)
        self._stop = Stop()
        self._lock = threading.Lock()
        self._layers: dict[LayerKey, _Sent] = {}
        self._failed = False
        self._alone = False

    # ---- beside a build ----------------------------------------------------------------------

    def plan(self, graph: BuildGraph, tags: Mapping[str, Sequence[Reference]]) -> None:
        """Says where the layers of each node go.

        Args:
            tags: The names of each target, by its stage.
        """
        goals: dict[int, dict[Reference, None]] = {}
        for target in graph.targets:
            for number in graph.chain(target.node):
                goals.setdefault(number, {}).update(dict.fromkeys(tags.get(target.stage, ())))
        self._goals = {number: tuple(names) for number, names in goals.items() if names}

    def offer(self, node: int, diff_id: str) -> None:
        """Takes the layer of a step that has ended; sends it soon if it is sure to be in an image."""
        names = self._goals.get(node)
        if names:
            self._background.add(partial(self._send_early, diff_id, names))

    def _send_early(self, diff_id: str, names: Sequence[Reference]) -> None:
        """One layer, in a thread of its own. A failure is for `push` to meet again, and to tell."""
        if self._failed:
            return
        try:
            made = self._forms.built(diff_id)
            if made is not None:
                self._send((diff_id, ""), names, lambda: made)
        except (ImgError, OSError, KeyboardInterrupt, Stopped) as error:
            self._failed = True
            self._progress(Note(level="debug", text=f"layers are pushed at the end: {error}"))

    # ---- images ------------------------------------------------------------------------------

    def push(self, shipments: Sequence[Shipment]) -> dict[str, str]:
        """Sends images, all at once: blobs first, and then every document, tags last.

        A blob of a base that is not in the store is fetched only where the destination has it neither in its
        own repository nor in one that it can be mounted from. A push that breaks leaves no name that leads to
        half an image.

        Returns:
            For each name, the digest that the registry has now: of the index, where there are several images.
        Raises:
            RegistryError, StoreError, DigestMismatch.
        """
        self._background.stop()
        self._alone = True
        try:
            packed = [self._annotated(shipment) for shipment in self._send_blobs(shipments)]
            digests = self._each(packed, self._send_documents)
        except BaseException:
            self.stop()
            raise
        for shipment in packed:
            name = shipment.home or shipment.name
            if shipment.index is not None:
                for image in shipment.images:
                    self._store.blobs.put(image.manifest.raw)
                self._store.names.put_list(shipment.index, name)
            else:
                self._store.names.put(shipment.images[0], name)
        return {str(s.name): digest for s, digest in zip(packed, digests, strict=True)}

    def _send_blobs(self, shipments: Sequence[Shipment]) -> list[Shipment]:
        """Sends all layers and configs; gives the images with their layers as they were sent."""
        names: dict[LayerKey, dict[Reference, None]] = {}
        makers: dict[LayerKey, Make] = {}
        owners: dict[str, Image] = {}
        configs: dict[tuple[str, str], Callable[[], None]] = {}
        for shipment in shipments:
            for image in shipment.images:
                for position, layer in enumerate(image.layers):
                    if self._wish.leaves_out(layer.descriptor):
                        continue
                    key = self._forms.key(layer)
                    names.setdefault(key, {})[shipment.name] = None
                    makers.setdefault(key, partial(self._forms.blob, image, position))
                    owners.setdefault(layer.digest, image)
                config = (shipment.name.name, image.id)
                configs.setdefault(config, partial(self._send_config, image, shipment.name))
        tasks: list[Callable[[], None]] = [
            partial(self._send, key, tuple(names[key]), make, owners) for key, make in makers.items()
        ]
        self._each([*tasks, *configs.values(), *self._loose(shipments)], _call)

        def packed(image: Image) -> Image:
            kept = ((self._layers.get(self._forms.key(layer)), layer) for layer in image.layers)
            return with_blobs(
                image, [sent.blob if sent and sent.blob else layer.descriptor for sent, layer in kept]
            )

        return [s.with_images(tuple(packed(image) for image in s.images)) for s in shipments]

    def _annotated(self, shipment: Shipment) -> Shipment:
        """The documents as they leave, with an index where there are several."""
        index = shipment.index or (index_of(shipment.images) if len(shipment.images) > 1 else None)
        images, index = self._annotations.on(shipment.images, index)
        return replace(shipment, images=images, index=index)

    def _loose(self, shipments: Sequence[Shipment]) -> list[Callable[[], None]]:
        """What sends the blobs of manifests that are no images: as they are, from wherever they are."""
        wanted = {
            (shipment.name.name, blob.digest): partial(self._send_whole, blob, (), {}, shipment.name)
            for shipment in shipments
            for manifest in shipment.others
            for blob in (manifest.config, *manifest.layers)
        }
        return list(wanted.values())

    def _send_config(self, image: Image, name: Reference) -> None:
        config = image.manifest.config
        self._registry().push_blob(
            name,
            config,
            lambda: self._store.blobs.open(config.digest),
            stop=self._stop,
            progress=self._progress,
        )

    def _send_documents(self, shipment: Shipment) -> str:
        """The manifests of one name; of several, the index after them. Gives the last one's digest."""
        registry, name = self._registry(), shipment.name
        if shipment.index is None:
            manifest = shipment.images[0].manifest
            return registry.push_manifest(name, manifest.raw, manifest.media_type)
        for manifest in (*(image.manifest for image in shipment.images), *shipment.others):
            own = replace(name, tag="", digest=manifest.digest)
            registry.push_manifest(own, manifest.raw, manifest.media_type)
        return registry.push_manifest(name, shipment.index.raw, shipment.index.media_type)

    # ---- one layer ---------------------------------------------------------------------------

    def _send(
        self,
        key: LayerKey,
        names: Sequence[Reference],
        make: Make,
        owners: Mapping[str, Image] | None = None,
    ) -> None:
        """Sees to it that the repositories of these names have one layer.

        Args:
            key: What it is known by: those of equal layers are equal.
            owners: Images by the digests of their layers, for blobs that have to be fetched first.
        """
        with self._lock:
            sent = self._layers.setdefault(key, _Sent())
        with sent.lock:
            if sent.blob is None:
                made = make()
                if isinstance(made, Packing):
                    sent.there |= self._send_growing(made, names)
                    made = made.result()
                sent.blob = made
            blob = sent.blob
            # One repository of each registry first: the others of it can mount the blob from there.
            left = [name for name in _once(names, lambda name: name.name) if name.name not in sent.there]
            homes = {Reference.parse(there).registry for there in sent.there}
            first = _once((n for n in left if n.registry not in homes), lambda name: name.registry)
            for some in (first, [name for name in left if name not in first]):
                self._each(some, partial(self._send_whole, blob, sent.there, owners or {}))
                sent.there.update(name.name for name in some)
        for name in names:
            self._store.layers.remember_blob(key[0], blob, source=name.name)

    def _send_growing(self, packing: Packing, names: Sequence[Reference]) -> set[str]:
        """Sends a blob while it is made to one repository of each registry; gives those that have it."""
        there: set[str] = set()

        def one(name: Reference) -> None:
            try:
                if self._registry().push_growing(name, packing, stop=self._stop, progress=self._progress):
                    there.add(name.name)
            except (ImgError, OSError) as error:
                # Whatever it is: the blob is sent once more when it is whole, and then it counts.
                text = f"{name.registry} takes no blob in parts, it is sent when it is whole: {error}"
                self._progress(Note(level="debug", text=text))

        self._each(_once(names, lambda name: name.registry), one)
        return there

    def _send_whole(
        self, blob: Descriptor, there: Iterable[str], owners: Mapping[str, Image], name: Reference
    ) -> None:
        known = (*there, *self._store.layers.sources_of(blob.digest))
        origins = sorted({Reference.parse(source) for source in known}, key=str)
        mounts = (o.repository for o in origins if o.registry == name.registry)

        def open_blob() -> BinaryIO:
            self._puller.blobs(owners.get(blob.digest), [blob])
            return self._store.blobs.open(blob.digest)

        self._registry().push_blob(
            name,
            blob,
            open_blob,
            mount_from=tuple(repository for repository in mounts if repository != name.repository),
            stop=self._stop,
            progress=self._progress,
        )

    # ---- inside ------------------------------------------------------------------------------

    def _each(self, tasks: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """Works on all of them at once; raises the first error, which ends the others."""
        done: dict[int, R] = {}

        def one(numbered: tuple[int, T], halt: Stop) -> None:
            with halt.calling(self._halt):
                done[numbered[0]] = work(numbered[1])

        if len(tasks) == 1:
            return [work(tasks[0])]
        if tasks:
            in_parallel(list(enumerate(tasks)), one, self._jobs, self._stop)
        return [done[number] for number in range(len(tasks))]

    def _halt(self) -> None:
        """Ends what is under way; beside a build, whose steps would end as well, it is left to its end."""
        if self._alone:
            _core.stop_everything(True)  # taken back by `stop`
            self._stop.set()
            self._puller.stop()

    def stop(self) -> None:
        """Ends everything that is under way, and waits for that a moment."""
        self._background.stop()
        self._stop.set()
        self._packer.stop()
        self._background.drain(STOP_SECONDS)


def _call(work: Callable[[], None]) -> None:
    work()


def _once(names: Iterable[Reference], by: Callable[[Reference], str]) -> list[Reference]:
    """The first name of each kind."""
    found: dict[str, Reference] = {}
    for name in names:
        found.setdefault(by(name), name)
    return list(found.values())
