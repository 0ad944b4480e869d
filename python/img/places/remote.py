"""`RemoteSource` and `RemoteTarget`: images in a registry.

Blobs go from one to the other as they come, through `Supply`; those of the same registry are mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from img.errors import InvalidDocument, NotFound, RegistryError
from img.oci import Descriptor, Reference
from img.places.place import About, Cargo, Document, Source, cosign_tags
from img.places.supply import Supply
from img.progress import Progress
from img.registry import Registry, Sink, Stop, Upload
from img.values import replace

_MOST_REFERRERS = 4096
"""Documents about one other that are read."""


class RemoteSource:
    """One image in a registry."""

    verbatim = True

    def __init__(self, registry: Callable[[], Registry], reference: Reference) -> None:
        """Asks nobody yet."""
        self._registry = registry
        self._reference = reference
        self.where = reference.familiar

    def homes(self, digest: str) -> Sequence[Reference]:
        """As `Source.homes`."""
        return (self._reference,)

    @property
    def names(self) -> tuple[Reference, ...]:
        """Its name, where that is a tag."""
        return (replace(self._reference, digest=""),) if self._reference.tag else ()

    def root(self) -> Document:
        """As `Source.root`."""
        return self._registry().manifest(self._reference)

    def document(self, descriptor: Descriptor) -> Document:
        """As `Source.document`."""
        return self._registry().manifest(self._reference, descriptor.digest)

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        """As `Source.pour`; a connection that breaks is taken up again from where the sink stands."""
        self._registry().blob(self._reference, blob, sink, stop=stop, progress=progress)

    def about(self, digest: str) -> Sequence[About]:
        """As `Source.about`: what the registry lists, and what cosign has under its tags."""
        registry = self._registry()
        entries = registry.referrers(self._reference, digest)
        if len(entries) > _MOST_REFERRERS:
            what = f"{self.where}@{digest}"
            raise InvalidDocument(what, f"more than {_MOST_REFERRERS} documents refer to it")
        found = [About(document=registry.manifest(self._reference, entry.digest)) for entry in entries]
        for tag in cosign_tags(digest):
            try:
                document = registry.manifest(replace(self._reference, tag=tag, digest=""))
            except NotFound:
                continue
            found.append(About(document=document, tag=tag))
        return found

    def close(self) -> None:
        """Nothing of its own is open: the client is the caller's."""


class RemoteTarget:
    """A repository, and the tags in it that the image gets."""

    def __init__(self, registry: Callable[[], Registry], names: Sequence[Reference]) -> None:
        """Asks nobody yet.

        Args:
            names: Of one repository.
        """
        self._registry = registry
        self._names = tuple(names)
        self._name = names[0]
        self._beside: tuple[Reference, ...] = ()
        self.where = ", ".join(name.familiar for name in names)

    @property
    def name(self) -> Reference:
        """The repository, by one of its names."""
        return self._name

    def come_after(self, others: Sequence[RemoteTarget]) -> None:
        """Says which targets have each blob before it is wanted here."""
        self._beside = tuple(other.name for other in others)

    def begin(self, cargo: Cargo, source: Source) -> None:
        """As `Target.begin`: a name by digest is that of the root, or a mistake."""
        from img.errors import DigestMismatch

        # What is there already is not sent: a mirror, which nothing is sent to, must not be asked for that.
        self._registry().ask_directly(self._name)
        for name in self._names:
            if name.digest and name.digest != cargo.root.digest:
                raise DigestMismatch(f"image for {name.familiar}", name.digest, cargo.root.digest)

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """As `Target.has`. A registry takes no manifest of which it lacks a blob."""
        own = replace(self._name, tag="", digest=document.digest)
        try:
            found = self._registry().head(own)
        except NotFound:
            return False
        except RegistryError as error:
            if error.status in (401, 403):  # who may push here need not be allowed to read
                return False
            raise
        return found is not None and found.digest == document.digest

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """As `Target.blob`."""
        homes = (*self._beside, *source.homes(blob.digest))
        near = (home.repository for home in homes if home.registry == self._name.registry)
        supply = Supply(source, blob, stop)
        try:
            return self._registry().push_blob(
                self._name,
                blob,
                supply.open,
                mount_from=tuple(dict.fromkeys(name for name in near if name != self._name.repository)),
                stop=stop,
                progress=progress,
            )
        finally:
            supply.close()

    def document(self, document: Document) -> None:
        """As `Target.document`: under its digest."""
        own = replace(self._name, tag="", digest=document.digest)
        self._registry().push_manifest(own, document.raw, document.media_type)

    def about(self, about: About) -> None:
        """As `Target.about`: a registry lists what has a subject; cosign asks for a tag."""
        name = replace(self._name, tag=about.tag, digest="" if about.tag else about.document.digest)
        self._registry().push_manifest(name, about.document.raw, about.document.media_type)

    def finish(self, root: Document) -> None:
        """As `Target.finish`: under every tag."""
        for name in self._names:
            self._registry().push_manifest(name, root.raw, root.media_type)

    def abort(self) -> None:
        """Blobs that are there help the next copy; nothing names them."""
