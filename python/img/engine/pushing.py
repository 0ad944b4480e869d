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
from img.engine.asking import Questions
from img.engine.background import Background
from img.engine.forms import Forms, LayerKey, with_blobs
from img.engine.packing import STOP_SECONDS, USUAL, Packer, Packing, Wish
from img.engine.pulling import Puller
from img.engine.requests import ManifestFormat
from img.engine.tally import Tally
from img.engine.trees import Tree
from img.errors import ImgError
from img.oci import Descriptor, Image, Index, Layer, Manifest, Reference
from img.oci.descriptor import INDEXES
from img.oci.rewrite import rewrite_index, rewrite_manifest
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
        tree: What the name stands for, where all of that leaves as it is.
        listed: Else the index that it shall stand for, with the images as they are before they leave; None
            where it is made of them.
        others: What that index names beside images.
        form: In which documents they leave; None for those that they have.
        home: The name that the store has for it, where that is another one.
        index: What the name leads to, where that is an index; made of the others.
    """

    images: tuple[Image, ...]
    name: Reference
    tree: Tree | None = None
    listed: Index | None = None
    others: tuple[Manifest, ...] = ()
    form: ManifestFormat | None = None
    home: Reference | None = None
    index: Index | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", self._index())

    @classmethod
    def of(cls, store: Store, row: ImageName, name: Reference) -> Shipment:
        """What a name of the store stands for: its index as it is, where all that it names is here."""
        index = store.names.list_of(row)
        if index is None or not all(
            store.blobs.has(entry.digest) and entry.media_type not in INDEXES for entry in index.manifests
        ):
            return cls(images=store.names.images_of(row), name=name)
        images = tuple(store.names.of_index(row.index))
        return cls(images=images, name=name, listed=index, others=tuple(store.names.others_of(index)))

    def _index(self) -> Index | None:
        if self.tree is not None:
            return self.tree.top if isinstance(self.tree.top, Index) else None
        if self.listed is not None:
            return rewrite_index(self.listed, form=self.form)
        return rewrite_index(index_of(self.images), form=self.form) if len(self.images) > 1 else None

    @property
    def documents(self) -> tuple[Manifest | Index, ...]:
        """Everything that is sent once the blobs are there; what the name leads to comes last."""
        if self.tree is not None:
            return self.tree.documents
        manifests = (*(image.manifest for image in self.images), *self.others)
        return (*manifests, self.index) if self.index is not None else manifests

    def with_images(self, images: tuple[Image, ...]) -> Shipment:
        """The same with the images as they leave."""
        if self.listed is None:
            return replace(self, images=images)
        pairs = zip(self.images, images, strict=True)
        entries = {old.digest: new.manifest.descriptor for old, new in pairs}
        return replace(self, images=images, listed=rewrite_index(self.listed, entries=entries))


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
        asked: Questions | None = None,
    ) -> None:
        """Speaks to nobody yet.

        Args:
            annotations: What is added to every image that `push` sends.
            asked: Asks beside a build whether pushes are allowed.
        """
        self._store = store
        self._registry = registry
        self._packer = packer
        self._wish = wish
        self._annotations = annotations
        self._asked = asked
        self.forms = Forms(store, puller, packer, wish)
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
        self._tally = Tally()

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
            made = self.forms.built(diff_id)
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
            self._refuse_early(shipments)
            packed = [self._annotated(shipment) for shipment in self._send_blobs(shipments)]
            digests = self._each(packed, self._send_documents)
        except BaseException:
            self.stop()
            raise
        for shipment in packed:
            self._name(shipment)
        self._progress(self._tally.sum([shipment.name for shipment in packed]))
        return {str(s.name): digest for s, digest in zip(packed, digests, strict=True)}

    def deposit(self, images: Sequence[Image], name: Reference) -> tuple[Image, ...]:
        """Sends images to a repository under no tag, for a list that will name them; gives them as they left.

        Raises:
            As `push`.
        """
        self._alone = True
        try:
            shipments = [Shipment(images=tuple(images), name=name)]
            self._refuse_early(shipments)
            (packed,) = self._send_blobs(shipments)
            for image in packed.images:
                own = replace(name, tag="", digest=image.digest)
                self._registry().push_manifest(own, image.manifest.raw, image.manifest.media_type)
        except BaseException:
            self.stop()
            raise
        self._keep_documents(packed.images)
        self._progress(self._tally.sum([name]))
        return packed.images

    def _name(self, shipment: Shipment) -> None:
        """Has the store call by the name what the registry calls by it now."""
        self._keep_documents(shipment.images)
        name = shipment.home or shipment.name
        if shipment.index is not None:
            self._store.names.put_list(shipment.index, name)
        else:
            self._store.names.put(shipment.images[0], name)

    def _keep_documents(self, images: Sequence[Image]) -> None:
        """Has the store hold the documents of images as the registry has them."""
        for image in images:
            self._store.blobs.put(image.manifest.raw)
            self._store.blobs.put(image.config_raw)

    def _refuse_early(self, shipments: Sequence[Shipment]) -> None:
        """Asks whether a push is allowed at all, where it would be found out after much work."""
        slow = (s.name for s in shipments if not all(self.forms.ready(image) for image in s.images))
        self._each(_once(slow, lambda name: name.name), self._check_allowed)

    def _check_allowed(self, name: Reference) -> None:
        if self._asked is None or not self._asked.settled(name, self._stop):
            self._registry().check_push(name, stop=self._stop)

    def _send_blobs(self, shipments: Sequence[Shipment]) -> list[Shipment]:
        """Sends all layers and configs; gives the images with their layers as they were sent."""
        names: dict[LayerKey, dict[Reference, None]] = {}
        makers: dict[LayerKey, Make] = {}
        owners: dict[str, Image] = {}
        others: dict[tuple[str, str], Callable[[], None]] = {}
        for shipment in shipments:
            for image in shipment.images:
                for position, layer in enumerate(image.layers):
                    if self._wish.leaves_out(layer.descriptor):
                        continue
                    key = self.forms.key(layer)
                    names.setdefault(key, {})[shipment.name] = None
                    makers.setdefault(key, partial(self.forms.blob, image, position))
                    owners.setdefault(layer.digest, image)
            known = {layer.digest for image in shipment.images for layer in image.layers}
            named = shipment.tree.blobs if shipment.tree else [i.manifest.config for i in shipment.images]
            for blob in named:
                if blob.digest not in known:
                    task = partial(self._send_stored, blob, shipment.name)
                    others.setdefault((shipment.name.name, blob.digest), task)
            for blob in (blob for each in shipment.others for blob in (each.config, *each.layers)):
                # Of a manifest that is no image: from wherever it is.
                task = partial(self._send_whole, blob, (), {}, shipment.name)
                others.setdefault((shipment.name.name, blob.digest), task)
        tasks: list[Callable[[], None]] = [
            partial(self._send, key, tuple(names[key]), make, owners) for key, make in makers.items()
        ]
        self._each([*tasks, *others.values()], _call)

        return [s.with_images(tuple(self._packed(i, s) for i in s.images)) for s in shipments]

    def _annotated(self, shipment: Shipment) -> Shipment:
        if not self._annotations.all:
            return shipment
        images, index = self._annotations.on(shipment.images, shipment.index)
        return replace(shipment, images=images, listed=index)

    def _packed(self, image: Image, shipment: Shipment) -> Image:
        """An image with its layers as they were sent, in the documents that were asked for."""
        packed = with_blobs(image, [self._sent_as(layer) for layer in image.layers])
        if shipment.form is None:
            return packed
        turned = replace(packed, manifest=rewrite_manifest(packed.manifest, form=shipment.form))
        if turned.digest != packed.digest:
            form = {"oci": "OCI", "docker": "Docker"}[shipment.form]
            text = (
                f"{shipment.name.familiar} leaves in {form}'s form: {packed.digest} is {turned.digest} there"
            )
            self._progress(Note(level="info", text=text))
        return turned

    def _sent_as(self, layer: Layer) -> Descriptor:
        """The blob that a layer left as; one that was kept, or stayed, as its own manifest describes it."""
        key = self.forms.key(layer)
        sent = self._layers.get(key)
        return layer.descriptor if key[1] or sent is None or sent.blob is None else sent.blob

    def _send_stored(self, blob: Descriptor, name: Reference) -> None:
        """Sends what is no image's layer, and in the store: a config, an attestation."""
        self._registry().push_blob(
            name, blob, lambda: self._store.blobs.open(blob.digest), stop=self._stop, progress=self._progress
        )

    def _send_documents(self, shipment: Shipment) -> str:
        """The documents of one name; gives the digest of what it leads to."""
        registry, name = self._registry(), shipment.name
        *below, top = shipment.documents
        for document in below:
            own = replace(name, tag="", digest=document.digest)
            registry.push_manifest(own, document.raw, document.media_type)
        return registry.push_manifest(name, top.raw, top.media_type)

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
                with self._tally.busy():
                    sent = self._registry().push_growing(
                        name, packing, stop=self._stop, progress=self._progress
                    )
                if sent:
                    there.add(name.name)
                    self._tally.add("sent", packing.result().size)
            except (ImgError, OSError) as error:
                # Whatever it is: the blob is sent once more when it is whole, and then it counts.
                text = f"{name.registry} takes no blob in parts, it is sent when it is whole: {error}"
                self._progress(Note(level="debug", text=text))

        self._each(_once(names, lambda name: name.registry), one)
        return there

    def _send_whole(
        self, blob: Descriptor, there: Iterable[str], owners: Mapping[str, Image], name: Reference
    ) -> None:
        known = (*sorted(there), *sorted(self._store.layers.sources_of(blob.digest)))
        origins = map(Reference.parse, known)
        mounts = (o.repository for o in origins if o.registry == name.registry)

        def open_blob() -> BinaryIO:
            self._puller.blobs(owners.get(blob.digest), [blob])
            return self._store.blobs.open(blob.digest)

        with self._tally.busy():
            upload = self._registry().push_blob(
                name,
                blob,
                open_blob,
                mount_from=tuple(repository for repository in mounts if repository != name.repository),
                stop=self._stop,
                progress=self._progress,
            )
        self._tally.add(upload.value, blob.size)

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
