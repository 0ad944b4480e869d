"""`Lists`: indexes that are put together by hand, out of images that are here or in registries.

A list is an index in the store under a name, as a build for several platforms leaves one. Of an image that a
registry has, only its documents are brought here; where its layers are is remembered, and the push mounts or
copies them. `img manifest` calls it; `pushing` sends lists as it sends images.
Source: OCI image-spec v1.1, image-index.md; podman-manifest(1) and docker's `manifest` for what verbs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from img.engine.requests import ManifestFormat
from img.engine.trees import MAX_DOCUMENTS
from img.errors import BlobNotFound, ImageNotFound, InvalidDocument, InvalidReference, NotFound, UsageError
from img.oci import Descriptor, ImageConfig, Index, Manifest, Platform, Reference, is_digest, parse
from img.oci.descriptor import DOCKER_LIST, INDEXES, OCI_INDEX
from img.registry import Registry
from img.registry.faults import absent
from img.registry.search import MAX_DEPTH, Search
from img.store import ImageName, Store
from img.values import dataclass, field, replace

if TYPE_CHECKING:
    from img.engine.pushing import Shipment

_REMOTE = "docker://"
"""Before a name: the registry is asked, even if the store has an image of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """What a list shall say of an image, in place of what the image says of itself.

    Fields that are empty change nothing.

    Attributes:
        annotations: Of the entry; they are added, or replace others of the same name.
    """

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    def platform(self, known: Platform | None) -> Platform | None:
        """The platform of an entry, changed."""
        names = ("os", "architecture", "variant", "os_version", "os_features", "features")
        given = {name: value for name in names if (value := getattr(self, name))}
        if not given:
            return known
        changed = replace(known or Platform("", ""), **given)
        if not (changed.os and changed.architecture):
            raise UsageError(
                "a platform has an operating system and an architecture", hint="give --os and --arch"
            )
        return changed

    def on(self, entry: Descriptor) -> Descriptor:
        """An entry, changed."""
        return replace(
            entry,
            platform=self.platform(entry.platform),
            annotations={**entry.annotations, **self.annotations},
        )


class Lists:
    """The lists of one store. No layer is fetched."""

    def __init__(self, store: Store, registry: Callable[[], Registry]) -> None:
        """Reads nothing yet."""
        self._store = store
        self._registry = registry

    # ---- what is in a list -------------------------------------------------------------------

    def create(
        self,
        name: str,
        images: Sequence[str] = (),
        *,
        amend: bool = False,
        everything: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Makes a list, or adds to one that is there; see `Client.create_list`."""
        reference = Reference.parse(name)
        if reference.digest:
            raise UsageError(f"{name} names a digest; a list gets a name:tag")
        row = self._row(str(reference))
        if row is not None and not amend:
            raise UsageError(
                f"{reference.familiar} is there already",
                hint=f"--amend adds to a list; img rm {reference.familiar} takes the name away",
            )
        index = self._list(str(reference))[1] if row is not None else Index.make(())
        if annotations:
            index = index.with_annotations(annotations)
        for image in images:
            for entry in self._bring(image, everything=everything, wanted=None):
                index = _added(index, entry)
        return self._keep(index, reference)

    def add(self, name: str, image: str, change: EntryChange, *, everything: bool = False) -> str:
        """Adds an image to a list; see `Client.add_to_list`."""
        row, index = self._list(name)
        if everything and change != EntryChange(annotations=change.annotations):
            raise UsageError("images of all platforms keep each its own", hint="add them one by one")
        wanted = None if everything else change.platform(Platform.host())
        for entry in self._bring(image, everything=everything, wanted=wanted):
            index = _added(index, change.on(entry))
        return self._keep(index, Reference.parse(row.name))

    def annotate(
        self,
        name: str,
        image: str,
        change: EntryChange,
        *,
        annotations: Mapping[str, str] | None = None,
        subject: str = "",
    ) -> str:
        """Changes what a list says of an image, or of itself; see `Client.annotate_list`."""
        row, index = self._list(name)
        if image:
            entry = self._entry(index, image)
            index = index.with_replaced({entry.digest: change.on(entry)})
        elif change != EntryChange():
            raise UsageError("a platform is an image's, not the list's", hint="name the image after the list")
        if annotations:
            index = index.with_annotations(annotations)
        if subject:
            index = index.with_subject(self.describe(subject))
        return self._keep(index, Reference.parse(row.name))

    def remove(self, name: str, images: Sequence[str]) -> str:
        """Takes images out of a list; see `Client.remove_from_list`."""
        row, index = self._list(name)
        for entry in [self._entry(index, image) for image in images]:
            index = index.without(entry.digest)
        return self._keep(index, Reference.parse(row.name))

    # ---- looking -----------------------------------------------------------------------------

    def inspect(self, name: str) -> Manifest | Index:
        """What a name stands for: a list that is here, else what its registry has; see `Client.manifest`."""
        text = name.removeprefix(_REMOTE)
        row = self._row(text) if text == name else None
        index = None
        if row is not None and _meant(row, text) == row.index:
            index = self._store.names.list_of(row)
        return index or self._registry().manifest(Reference.parse(text))

    def members(self, name: str, index: Index) -> Iterator[tuple[Descriptor, Manifest | Index]]:
        """The entries of what `inspect` gave, and what each points at."""
        reference = self._reference(name)
        for entry in index.manifests:
            yield entry, self._read(reference, entry.digest)[0]

    def describe(self, name: str) -> Descriptor:
        """What points at the manifest of a name (`docker://` asks its registry, whatever is here).

        Raises:
            NotFound: there is none.
        """
        row = self._row(name)
        if row is not None:
            return self._document(_meant(row, name)).descriptor
        reference = Reference.parse(name.removeprefix(_REMOTE))
        found = self._registry().head(reference)
        if found is None:
            raise absent(reference)
        return found

    def index(self, name: str) -> tuple[ImageName, Index]:
        """A list that is here, and its row.

        Raises:
            ImageNotFound. UsageError: the name is an image's.
        """
        return self._list(name)

    # ---- leaving -----------------------------------------------------------------------------

    def shipment(self, name: str, *, dest: str = "", form: ManifestFormat | None = None) -> Shipment:
        """What pushes a list; see `Engine.push_list`."""
        from img.engine.pushing import Shipment

        row, index = self._list(name)
        home = Reference.parse(row.name)
        found = Shipment.of(self._store, row, Reference.parse(dest) if dest else home)
        if found.listed is None:
            raise UsageError(
                f"the store has only some of what {home.familiar} names",
                hint=f"img manifest create --all NAME {_REMOTE}{home.familiar} makes a list of all of it",
            )
        index = index.with_media_type({"oci": OCI_INDEX, "docker": DOCKER_LIST}[form]) if form else index
        return replace(found, listed=index, home=home)

    # ---- inside ------------------------------------------------------------------------------

    def _keep(self, index: Index, name: Reference) -> str:
        self._store.names.put_list(index, name)
        return index.digest

    def _row(self, text: str) -> ImageName | None:
        if text.startswith(_REMOTE):
            return None
        try:
            return self._store.names.row(text)
        except ImageNotFound:
            return None

    def _list(self, name: str) -> tuple[ImageName, Index]:
        row = self._store.names.row(name)
        index = self._store.names.list_of(row)
        if index is None or _meant(row, name) != row.index:
            raise UsageError(f"{name} is an image, not a list", hint="img manifest create makes a list")
        return row, index

    def _reference(self, name: str) -> Reference:
        """The name that a registry would know; of an ID, that of its row."""
        row = self._row(name)
        return Reference.parse(row.name if row is not None and row.named else name.removeprefix(_REMOTE))

    def _document(self, digest: str) -> Manifest | Index:
        return parse(self._store.blobs.read(digest), where=digest)

    def _entry(self, index: Index, text: str) -> Descriptor:
        """The entry that a digest, its beginning, or the name of an image means."""
        digits = text.removeprefix("sha256:")
        fitting = [e for e in index.manifests if len(digits) >= 4 and e.hex.startswith(digits)]
        if not fitting and not is_digest(text):
            digests = self._digests(text)
            fitting = [entry for entry in index.manifests if entry.digest in digests]
        if len(fitting) == 1:
            return fitting[0]
        has = ", ".join(f"{e.digest[:19]}{f' ({e.platform})' if e.platform else ''}" for e in index.manifests)
        raise UsageError(
            f"{text} is {'several entries' if fitting else 'no entry'} of the list",
            hint=f"it has {has or 'none'}",
        )

    def _digests(self, name: str) -> set[str]:
        """The digest of a name's manifest, or those of all that its index names."""
        row = self._row(name)
        if row is not None:
            found = self._document(_meant(row, name))
        else:
            found = self._registry().manifest(Reference.parse(name.removeprefix(_REMOTE)))
        return {e.digest for e in found.manifests} if isinstance(found, Index) else {found.digest}

    # ---- bringing documents ------------------------------------------------------------------

    def _bring(self, name: str, *, everything: bool, wanted: Platform | None) -> list[Descriptor]:
        """Brings the documents of an image here, or those of all that a name stands for; gives its entries.

        Args:
            wanted: The platform that is taken of several; None for this machine's.
        """
        reference, row = self._reference(name), self._row(name)
        if row is not None:
            document, fresh = self._document(_meant(row, name)), False
        else:
            document, fresh = self._registry().manifest(reference), True
        if isinstance(document, Manifest):
            return [self._described(reference, document, document.descriptor, fresh=fresh)]
        if everything:
            entries = list(self._flat(reference, document, set()))
        else:
            entries = [self._chosen(reference, document, wanted or Platform.host())]
        return [self._brought(reference, entry) for entry in entries]

    def _chosen(self, reference: Reference, index: Index, platform: Platform) -> Descriptor:
        search = Search(platform, lambda digest: self._read(reference, digest)[0])
        found = search.within(index)
        if found is None:
            offered = ", ".join(sorted({str(p) for p in search.offered})) or "nothing that names its platform"
            raise NotFound(
                f"{reference.familiar} has no image for {platform}",
                hint=f"on offer: {offered}; --all takes every one",
            )
        return index.find(found.digest) or found.descriptor

    def _flat(
        self, reference: Reference, index: Index, seen: set[str], depth: int = MAX_DEPTH
    ) -> Iterator[Descriptor]:
        """The entries of an index, and in the place of an index within it, that one's; each once."""
        for entry in index.manifests:
            if entry.digest in seen:
                continue
            seen.add(entry.digest)
            if len(seen) > MAX_DOCUMENTS:
                raise InvalidDocument(reference.familiar, f"it names more than {MAX_DOCUMENTS} manifests")
            if entry.media_type not in INDEXES:
                yield entry
                continue
            inner = self._read(reference, entry.digest)[0]
            if depth <= 1 or not isinstance(inner, Index):
                raise InvalidDocument(
                    reference.familiar, f"indexes within one another, deeper than {MAX_DEPTH}"
                )
            yield from self._flat(reference, inner, seen, depth - 1)

    def _read(self, reference: Reference, digest: str) -> tuple[Manifest | Index, bool]:
        """A document of a repository, and whether its registry had to be asked."""
        try:
            return self._document(digest), False
        except BlobNotFound:
            return self._registry().manifest(reference, digest), True

    def _brought(self, reference: Reference, entry: Descriptor) -> Descriptor:
        document, fresh = self._read(reference, entry.digest)
        if not isinstance(document, Manifest):
            raise InvalidDocument(
                reference.familiar, f"{entry.digest} is announced as a manifest, and is an index"
            )
        return self._described(reference, document, entry, fresh=fresh)

    def _described(
        self, reference: Reference, manifest: Manifest, entry: Descriptor, *, fresh: bool
    ) -> Descriptor:
        """Keeps the documents of a manifest, and where its blobs are; gives its entry, with its platform."""
        self._store.blobs.put(manifest.raw)
        source = reference.name if fresh else ""
        if not manifest.is_image:
            # These blobs are nobody's layers: each is known as the plain one that it is.
            for blob in (manifest.config, *manifest.layers):
                self._store.layers.remember_blob(blob.digest, blob, source=source)
            return (
                entry
                if entry.platform or entry.artifact_type
                else replace(entry, artifact_type=manifest.kind)
            )
        config = self._config(reference, manifest)
        for diff_id, layer in zip(config.diff_ids, manifest.layers, strict=True):
            if fresh:
                self._store.layers.remember_blob(diff_id, layer, source=source)
        return entry if entry.platform else replace(entry, platform=_platform(config))

    def _config(self, reference: Reference, manifest: Manifest) -> ImageConfig:
        where = f"config of {reference.familiar}"
        if self._store.blobs.has(manifest.config.digest):
            raw = self._store.blobs.read(manifest.config.digest)
        else:
            raw = self._registry().document(reference, manifest.config)
        config = ImageConfig.from_bytes(raw, where=where)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidDocument(
                where, f"{len(manifest.layers)} layers in the manifest, {len(config.diff_ids)} in the config"
            )
        self._store.blobs.put(raw)
        return config


def _meant(row: ImageName, text: str) -> str:
    """The digest of what a text means by whose row it was found: its index, or one image of that."""
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return row.manifest
    whole = reference.digest == row.index if reference.digest else str(reference) == row.name
    return row.index if row.index and whole else row.manifest


def _platform(config: ImageConfig) -> Platform:
    """What an image runs on, with what only lists say of it elsewhere."""
    return Platform.from_json(dict([*config.extra.items(), *config.platform.to_json().items()]))


def _added(index: Index, entry: Descriptor) -> Index:
    """A list with one more entry, in the place of the one that said the same of itself: it is out of date.

    Two entries for one platform are kept where their annotations tell them apart.
    """
    if index.find(entry.digest) is None and entry.platform is not None and entry.platform.os != "unknown":
        for old in index.manifests:
            same = (old.platform, old.artifact_type) == (entry.platform, entry.artifact_type)
            if same and dict(old.annotations) == dict(entry.annotations):
                # Those that are the old image compressed in another way are out of date with it.
                alike = {d.digest for d in index.variants(old)} - {old.digest}
                kept = [d for d in index.manifests if d.digest not in alike]
                return index.with_entries(kept).with_replaced({old.digest: entry})
    return index.with_manifest(entry)
