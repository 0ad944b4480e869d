"""`StoredSource` and `StoredTarget`: images in img's own store.

A target takes blobs and documents and extracts nothing: what needs the layers does that when it needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from img.errors import InvalidDocument, StoreError, Unsupported
from img.oci import Descriptor, Index, Reference
from img.places.archive import main_image
from img.places.place import About, Cargo, Document, Source, sent_into
from img.progress import Progress
from img.registry import Sink, Stop, Upload
from img.store import Store, main_of

_PIECE_BYTES = 1 << 20


class StoredSource:
    """An image of the store, of which every blob is here."""

    verbatim = True

    def __init__(self, store: Store, root: Document, documents: Mapping[str, Document], name: str) -> None:
        """Takes what the engine found.

        Args:
            documents: What the root names, by digest.
            name: As it is shown.
        """
        self._store = store
        self._root = root
        self._documents = dict(documents)
        self._name = name
        self.where = f"img:{name}"

    def homes(self, digest: str) -> Sequence[Reference]:
        """As `Source.homes`: where it came from, or went to."""
        return sorted({Reference.parse(s) for s in self._store.layers.sources_of(digest)}, key=str)

    @property
    def names(self) -> tuple[Reference, ...]:
        """As `Source.names`."""
        name = Reference.read(self._name)
        return (name,) if name and name.tag else ()

    def root(self) -> Document:
        """As `Source.root`."""
        return self._root

    def document(self, descriptor: Descriptor) -> Document:
        """As `Source.document`."""
        found = self._documents.get(descriptor.digest)
        if found is None:
            raise StoreError(f"the store has no {descriptor.digest} of {self._name}", hint="pull it again")
        return found

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        """As `Source.pour`."""
        from img.progress import Meter

        meter = Meter(progress, "copy", blob.digest, blob.size)
        with self._store.blobs.open(blob.digest) as file:
            file.seek(sink.offset)
            while piece := file.read(_PIECE_BYTES):
                stop.check()
                sink.write(piece)
                meter.at(sink.offset)
        meter.finished("fetched")

    def about(self, digest: str) -> Sequence[About]:
        """As `Source.about`: the store keeps none."""
        return ()

    def close(self) -> None:
        """The store is the caller's."""


class StoredTarget:
    """Names in the store."""

    def __init__(self, store: Store, names: Sequence[Reference | None]) -> None:
        """Touches nothing yet.

        Args:
            names: What the image is called; None leaves it to its ID.
        """
        self._store = store
        self._names = tuple(names)
        self.where = ", ".join(f"img:{name.familiar}" if name else "img's store" for name in names)
        self.id = ""

    def begin(self, cargo: Cargo, source: Source) -> None:
        """As `Target.begin`: the store keeps images alone."""
        if main_image(cargo) is None:
            raise Unsupported("anything but an image in img's store", "oci:PATH takes it")

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """As `Target.has`."""
        return all(self._store.blobs.has(blob.digest) for blob in (document.descriptor, *blobs))

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """As `Target.blob`."""
        if self._store.blobs.has(blob.digest):
            return Upload.PRESENT
        sink = self._store.blobs.sink(blob)
        return sent_into(sink, blob, source, stop=stop, progress=progress)

    def document(self, document: Document) -> None:
        """As `Target.document`, with where its layers can be had again."""
        self._store.blobs.put(document.raw)

    def about(self, about: About) -> None:
        """As `Target.about`: the store shows none."""

    def finish(self, root: Document) -> None:
        """As `Target.finish`."""
        names = self._store.names
        self._store.blobs.put(root.raw)
        if isinstance(root, Index):
            images = tuple(names.of_index(root.digest))
            if not images:
                raise InvalidDocument(root.digest, "it has no image in it that can be kept")
        else:
            images = (names.load(root.digest),)
        for image in images:
            if len(image.config.diff_ids) != len(image.manifest.layers):
                what = f"{len(image.manifest.layers)} layers, but {len(image.config.diff_ids)} in the config"
                raise InvalidDocument(image.digest, what)
            for layer in image.layers:
                self._store.layers.remember_blob(layer.diff_id, layer.descriptor, source="")
        index = root.raw if isinstance(root, Index) else b""
        for name in self._names:
            self.id = names.put(main_of(images), name, index=index)

    def abort(self) -> None:
        """Blobs that are there go with the next `img prune`, or help the next copy."""
