"""`Pushes`: what `img push` does: which images leave under which names, and in which documents.

`Engine` makes one for each operation; `Pusher` sends what is decided here. A name whose index is here with
all that it names goes as it came, attestations and all, unless a layer of it is to leave in another form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from img.engine.annotating import Annotations
from img.engine.forms import Forms
from img.engine.packing import Packer, Wish
from img.engine.pushing import NO_ANNOTATIONS, Pusher, Shipment
from img.engine.requests import ManifestFormat
from img.engine.trees import Tree, read_tree, repository_of
from img.errors import BlobNotFound, ImageNotFound, UsageError
from img.oci import Image, Reference, parse
from img.oci.rewrite import in_form, refuse_zstd
from img.progress import silent
from img.store import ImageName, Store, near_names
from img.values import replace


class Pushes:
    """One push of one name or several."""

    def __init__(
        self,
        store: Store,
        pusher: Pusher,
        forms: Forms,
        *,
        form: ManifestFormat | None = None,
        annotations: Annotations = NO_ANNOTATIONS,
    ) -> None:
        """Does nothing yet.

        Args:
            form: In which documents images leave; None for those that they have.
            annotations: What the pusher adds to them.
        Raises:
            UsageError: the form has no annotations.
        """
        if annotations.all and form == "docker":
            raise UsageError("Docker's documents have no annotations", hint="leave --format docker out")
        self._store = store
        self._pusher = pusher
        self._forms = forms
        self._form = form
        self._annotations = annotations

    def push(self, rows: Mapping[str, ImageName]) -> dict[str, str]:
        """Pushes images under their own names; gives the digest of each in its registry.

        Args:
            rows: What each name stands for; see `rows_of`.
        Raises:
            UsageError, RegistryError, StoreError.
        """
        given = {name: Reference.parse(name) for name in rows}
        once = {reference: rows[name] for name, reference in given.items()}
        shipments = [self._shipment(reference, row) for reference, row in once.items()]
        for shipment in shipments:
            self._annotations.check(several=shipment.index is not None)
        digests = self._pusher.push(shipments)
        return {name: digests[str(reference)] for name, reference in given.items()}

    def _shipment(self, name: Reference, row: ImageName) -> Shipment:
        names = self._store.names
        if name.digest and name.digest == row.manifest:
            images: tuple[Image, ...] = (names.load(row.manifest),)
            return Shipment(images=self._checked(name, images), name=name, form=self._form)
        images = self._checked(name, names.images_of(row))
        if name.digest and self._annotations.all:
            raise UsageError(
                f"an annotation changes what {name.familiar} stands for", hint="name a tag to push to"
            )
        tree = None
        if not self._annotations.all:
            tree = tree_of(self._store, self._forms, row, self._form)
        if name.digest and tree is None:
            raise UsageError(
                f"{name.familiar} stands for an index of which the store has a part alone",
                hint=f"img pull --all-platforms {name.familiar} fetches the rest",
            )
        if tree is not None:
            return Shipment(images=images, name=name, tree=tree, form=self._form)
        return replace(Shipment.of(self._store, row, name), form=self._form)

    def _checked(self, name: Reference, images: tuple[Image, ...]) -> tuple[Image, ...]:
        """Images that can leave in the documents that were asked for, and as what the name says."""
        for image in images if self._form == "docker" else ():
            refuse_zstd(name.familiar, self._forms.media_types(image))
        return images


def tree_of(store: Store, forms: Forms, row: ImageName, form: ManifestFormat | None = None) -> Tree | None:
    """All that a name stands for, where that is an index, is here, and can leave as it came; else None."""
    blobs, images = store.blobs, store.names.images_of(row)
    if not row.index or not all(forms.kept(image) for image in images):
        return None
    try:
        top = parse(blobs.read(row.index), where=row.index)
        tree = read_tree(top, lambda digest: parse(blobs.read(digest), where=digest))
    except BlobNotFound:
        return None
    if form is not None and any(in_form(each, form) is not each for each in tree.documents):
        return None
    known = {layer.digest for image in images for layer in image.layers}
    return tree if all(blob.digest in known or blobs.has(blob.digest) for blob in tree.blobs) else None


def rows_of(store: Store, names: Sequence[str], *, all_tags: bool) -> dict[str, ImageName]:
    """What names stand for in a store; of repositories, every tag that it has.

    Raises:
        ImageNotFound: it has none. UsageError: what should be a repository has a tag.
    """
    if not all_tags:
        return {name: store.names.row(name) for name in names}
    rows = [(Reference.parse(row.name), row) for row in store.names.all() if row.named]
    found: dict[str, ImageName] = {}
    for name in names:
        repository = repository_of(name, "img push")
        tags = {str(own): row for own, row in rows if own.name == repository.name and own.tag}
        if not tags:
            near = map(Reference.parse, near_names(repository, (row for _, row in rows)))
            raise ImageNotFound(name, tuple(dict.fromkeys(other.familiar_name for other in near)))
        found.update(sorted(tags.items()))
    return found


def reads_layers(store: Store, rows: Iterable[ImageName], wish: Wish) -> bool:
    """Tells whether folders of layers have to be read, so that these images can leave."""
    packer = Packer(store, silent)
    images = (image for row in rows for image in store.names.images_of(row))
    return not all(packer.ready(layer, wish) for image in images for layer in image.layers)
