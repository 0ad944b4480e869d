"""`Pulls`: what `img pull` does: names, tags of a repository, platforms of each.

`Engine` makes one for each operation. `Puller` does the work for each image; what is decided here is which
images those are, what a name stands for afterwards, and what is said of it. A name gets its new meaning at
the very end: a pull that fails leaves it to what it meant before.
"""

from __future__ import annotations

from collections.abc import Sequence

from img.engine.packing import plain_layer
from img.engine.pulling import Puller
from img.engine.requests import PullResult, PullWish
from img.engine.trees import Tree, read_tree, repository_of
from img.errors import InvalidDocument, NotFound, Unsupported, UsageError
from img.oci import Descriptor, Image, Index, Manifest, Platform, Reference
from img.oci.descriptor import DOCKER_CONFIG, OCI_CONFIG
from img.progress import Note, Progress, Transfer, Transferred
from img.registry import Registry, Stop, in_parallel
from img.store import Store, main_of
from img.values import replace

NAMES_AT_ONCE = 3
"""Images that are brought at once; the layers of each come side by side, too."""

_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})


class Pulls:
    """One pull of one name or several."""

    def __init__(self, store: Store, puller: Puller, progress: Progress, wish: PullWish) -> None:
        """Does nothing yet.

        Raises:
            UsageError: the wish contradicts itself, or names no platform.
        """
        if wish.all_platforms and wish.platforms:
            raise UsageError("all platforms, and some of them: say one of the two")
        self._store = store
        self._puller = puller
        self._progress = progress
        self._wish = wish
        self._platforms = tuple(dict.fromkeys(Platform.parse(p) for p in wish.platforms))

    def pull(self, names: Sequence[str]) -> list[PullResult]:
        """Pulls images, several at once; the first error ends the others.

        A name that was there before one failed keeps what it means now.
        """
        references = list(dict.fromkeys(Reference.parse(name) for name in names))
        return self._each([(reference, False) for reference in references])

    def pull_tags(self, names: Sequence[str], registry: Registry) -> list[PullResult]:
        """Pulls every tag of repositories; one that is no image for the platform is told of and left out.

        Raises:
            UsageError: a name has a tag or a digest. NotFound: no such repository, or it has no image.
        """
        found: list[tuple[Reference, bool]] = []
        for name in names:
            reference = repository_of(name, "img pull")
            tags = registry.tags(reference)
            if not tags:
                raise NotFound(f"{reference.familiar_name} has no tags")
            found += [(replace(reference, tag=tag), True) for tag in tags]
        results = self._each(found)
        if not results:
            raise NotFound(f"no tag of {', '.join(names)} is an image for the platform")
        return results

    def _each(self, wanted: Sequence[tuple[Reference, bool]]) -> list[PullResult]:
        done: dict[Reference, PullResult] = {}

        def one(task: tuple[Reference, bool], halt: Stop) -> None:
            reference, skippable = task
            with halt.calling(self._puller.stop):
                try:
                    done[reference] = self._one(reference)
                except (NotFound, Unsupported, InvalidDocument) as error:
                    if not skippable:
                        raise
                    text = f"{reference.familiar} is left out: {error}"
                    self._progress(Note(level="warning", text=text))

        in_parallel(list(wanted), one, NAMES_AT_ONCE, None)
        return [done[reference] for reference, _ in wanted if reference in done]

    # ---- one name ----------------------------------------------------------------------------

    def _one(self, reference: Reference) -> PullResult:
        if self._wish.all_platforms:
            return self._whole(reference)
        if len(self._platforms) > 1:
            return self._several(reference)
        wanted = self._platforms[0] if self._platforms else Platform.host()
        located = self._puller.locate(reference, wanted, policy=self._wish.policy)
        image = located.image
        if not wanted.accepts(image.platform):
            text = f"{reference.familiar} is for {image.platform}, not for {wanted}"
            self._progress(Note(level="warning", text=text))
        snapshot = self._bring(reference, image)
        self._puller.name(located, reference)
        index = located.digest if located.digest != image.digest else ""
        return self._result(reference, image, (image,), index=index, snapshot=snapshot)

    def _several(self, reference: Reference) -> PullResult:
        """The images of some platforms, which the name then stands for together, by the index they are of."""
        first, *others = self._platforms
        located = self._puller.locate(reference, first, policy=self._wish.policy)
        pinned = reference.with_digest(located.digest)
        rest = [self._puller.locate(pinned, platform) for platform in others]
        images = tuple({each.image.digest: each.image for each in (located, *rest)}.values())
        blobs = [layer for image in images for layer in image.manifest.layers]
        return self._together(reference, images, located.digest, blobs)

    def _whole(self, reference: Reference) -> PullResult:
        """Everything that a name stands for; an attestation is brought as it is."""
        locator = self._puller.locator
        top = locator.meaning(reference, policy=self._wish.policy)
        tree = read_tree(top, lambda digest: locator.document(reference, digest))
        images = self._images(reference, tree)
        if not images:
            raise NotFound(f"{reference.familiar} has no image")
        return self._together(reference, images, top.digest, tree.blobs)

    def _images(self, reference: Reference, tree: Tree) -> tuple[Image, ...]:
        unknown = {
            descriptor.digest
            for document in tree.documents
            if isinstance(document, Index)
            for descriptor in document.manifests
            if descriptor.platform is not None and descriptor.platform.os == "unknown"
        }
        manifests: list[Manifest] = [
            manifest
            for manifest in tree.manifests
            if manifest.digest not in unknown and manifest.config.media_type in _CONFIGS
        ]
        locator, source = self._puller.locator, "" if reference.digest else reference.name
        return tuple(locator.image(reference, manifest, source=source) for manifest in manifests)

    def _together(
        self, reference: Reference, images: tuple[Image, ...], stands: str, blobs: Sequence[Descriptor]
    ) -> PullResult:
        """Brings images, of which one is extracted, and further blobs; names them by their index."""
        main = main_of(images)
        for image in images:
            self._puller.comes_from(image, reference)
        snapshot = self._bring(reference, main)
        self._puller.bring(reference, blobs)
        index = stands if stands != main.digest else ""
        self._store.names.put(main, reference, index=self._store.blobs.read(index) if index else b"")
        return self._result(reference, main, images, index=index, snapshot=snapshot)

    def _bring(self, reference: Reference, image: Image) -> str:
        """Brings the layers of an image; gives the identity of the top one, empty where none is extracted."""
        before, name = self._puller.moved(reference), reference.familiar
        for layer in self._puller.here_of(image, extracted=self._wish.extract):
            digest, size = layer.digest, layer.size
            self._progress(
                Transfer(
                    action="pull",
                    digest=digest,
                    done_bytes=size,
                    total_bytes=size,
                    name=name,
                    kind="present",
                )
            )
        if self._wish.extract:
            records = self._puller.layers(image)
            kept = [layer.descriptor for layer in image.layers if not plain_layer(layer)]
            self._puller.bring(reference, kept)
            snapshot = records[-1].snapshot if records else image.id
        else:
            self._puller.bring(reference, image.manifest.layers)
            snapshot = ""
        if self._puller.moved(reference) == before:
            self._progress(Transferred(action="pull", name=name, present=len(image.layers)))
        return snapshot

    def _result(
        self, reference: Reference, image: Image, images: Sequence[Image], *, index: str, snapshot: str
    ) -> PullResult:
        blobs, size = self._puller.moved(reference)
        return PullResult(
            reference=str(reference),
            digest=image.digest,
            id=image.id,
            snapshot=snapshot,
            size=image.size,
            index=index,
            platforms=_by_platform(images),
            fetched=blobs,
            fetched_bytes=size,
        )


def _by_platform(images: Sequence[Image]) -> dict[str, str]:
    """Digests by platform; of variants of one image, that of the first."""
    found: dict[str, str] = {}
    for each in images:
        found.setdefault(str(each.platform), each.digest)
    return found
