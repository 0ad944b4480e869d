"""`CopyRequest`, and `Copying`: opens the places that a copy is between, and has them copied.

Between registries, archives and layouts no namespace is entered and no store is opened. An image of the store
may have layers without a blob, which are made first (`Forms`); only that needs the namespace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from img.engine.requests import Compression, PullWish
from img.errors import UsageError
from img.oci import Manifest, Platform, Reference
from img.oci.location import ARCHIVES, Location
from img.places.copier import Change, Copier, Selection
from img.places.place import Document, Source, Target
from img.progress import Progress, Transferred
from img.registry import Stop
from img.values import dataclass

if TYPE_CHECKING:
    from img.engine import Engine
    from img.engine.forms import Forms
    from img.places.files import Files
    from img.store import Store

Format = Literal["", "oci", "docker"]
"""Which forms documents have; empty leaves them as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """What is copied, and where to.

    Attributes:
        source: A place, as `img.oci.location` reads it.
        targets: Several get the same image.
        platforms: Of an index, which images; empty for all.
        form: Rewrites documents as OCI's or as docker's.
        compression: Compresses layers that are not so; `level` of it, and `force` those that are.
        preserve_digests: Refuse whatever would change a digest.
        referrers: Signatures and the like come along.
        foreign: Layers that their maker wants to be had from elsewhere come along.
        cwd: Folder that paths are relative to.
    """

    source: str
    targets: tuple[str, ...]
    platforms: tuple[str, ...] = ()
    form: Format = ""
    compression: Compression | None = None
    level: int | None = None
    force: bool = False
    preserve_digests: bool = False
    referrers: bool = False
    foreign: bool = False
    cwd: str = "."

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CopyRequest:
        """Makes a request again from plain data (`asdict`), as it crosses a process boundary."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What a copy came to.

    Attributes:
        digest: Of what every target has under its name now: an index, or one manifest.
        media_type: What that is.
        targets: The places, in full.
        sent: Blobs that were sent, counted for each target; `mounted` were taken over from another repository
            of its registry, `present` were there.
        sent_bytes: Of those that were sent.
        referrers: Documents about the image that came along.
        id: The image's ID where the store is a target; else empty.
    """

    digest: str
    media_type: str
    targets: tuple[str, ...]
    sent: int = 0
    mounted: int = 0
    present: int = 0
    sent_bytes: int = 0
    referrers: int = 0
    id: str = ""


class Places:
    """Opens places for one operation; they are closed with `held`."""

    def __init__(self, engine: Engine, progress: Progress, held: ExitStack, *, cwd: str, jobs: int) -> None:
        """Opens nothing yet."""
        self._engine = engine
        self._progress = progress
        self._held = held
        self._cwd = Path(cwd)
        self._jobs = jobs

    def source(self, location: Location, forms: Callable[[], Forms] | None = None) -> Source:
        """The image that a location means.

        Args:
            forms: What makes the blobs of layers that have none, for an image of the store.
        Raises:
            UsageError, InvalidDocument, NotFound, ImageNotFound: there is none.
        """
        source = self._open(location, forms)
        self._held.callback(source.close)
        return source

    def _open(self, location: Location, forms: Callable[[], Forms] | None) -> Source:
        if location.transport == "docker":
            from img.places.remote import RemoteSource

            return RemoteSource(self._engine.registry, _reference(location))
        if location.transport == "img":
            return self._stored(location, forms)
        opened = self.files(location)
        if location.transport == "docker-archive":
            from img.places.docker_archive import open_docker_archive

            return open_docker_archive(opened, location)
        if location.transport == "dir":
            from img.places.folder import FolderSource

            return FolderSource(opened)
        from img.places.layout import LayoutSource

        return LayoutSource(opened, location)

    def files(self, location: Location) -> Files:
        """The files of an archive or a folder.

        Raises:
            UsageError: it is not there. InvalidDocument: it is no archive.
        """
        from img.places.files import Folder, open_archive

        path = self._path(location)
        if location.transport in ARCHIVES:
            files = open_archive(path, self.scratch)
            self._held.callback(files.close)
            return files
        if not path.is_dir():
            hint = f"did you mean oci-archive:{location.path}?" if path.is_file() else ""
            raise UsageError(f"there is no folder {location.path}", hint=hint)
        return Folder(path)

    def _stored(self, location: Location, forms: Callable[[], Forms] | None) -> Source:
        from img.places.stored import StoredSource

        store, name = self.store(), _reference(location)
        row = store.names.row(name.familiar)
        images = store.names.images_of(row)
        kept = [forms().packed(image) for image in images] if forms is not None else list(images)
        documents: dict[str, Document] = {image.digest: image.manifest for image in kept}
        whole = store.names.whole_index(row.index) if row.index and tuple(kept) == tuple(images) else {}
        root: Document = kept[0].manifest
        if whole:
            documents.update(whole)
            root = documents[row.index]
        elif len(kept) > 1:
            from img.store import index_of

            root = index_of(kept)
        return StoredSource(store, root, documents, name.familiar)

    def target(self, locations: Sequence[Location]) -> Target:
        """One place, under one name or (in a registry's repository, or the store) several."""
        first = locations[0]
        if first.transport == "docker":
            from img.places.remote import RemoteTarget

            return RemoteTarget(self._engine.registry, [_reference(each) for each in locations])
        if first.transport == "img":
            from img.places.stored import StoredTarget

            names = [_reference(each) for each in locations]
            for name in names:
                if name.digest:
                    raise UsageError(f"img:{name.familiar} names a digest; a tag is name:tag")
            return StoredTarget(self.store(), names)
        _check_target(first)
        path = self._path(first)
        if first.transport == "oci":
            from img.places.layout import LayoutTarget

            return LayoutTarget(path, first.ref)
        if first.transport == "dir":
            from img.places.folder import FolderTarget

            return FolderTarget(path)
        from img.places.archive import ArchiveTarget

        docker = first.transport == "docker-archive"
        return ArchiveTarget(path, docker=docker, ref=first.ref, name=first.reference)

    def store(self) -> Store:
        """The store, in use by this process until it ends."""
        self._engine.store.lease()
        return self._engine.store

    def _path(self, location: Location) -> Path:
        return self._cwd / Path(location.path).expanduser()

    def scratch(self) -> Path:
        """An empty folder, which goes with the operation."""
        work = self._held.enter_context(self._engine.store.work.begin())
        return work.folder("archive")


class Copying:
    """One copy."""

    def __init__(self, engine: Engine, request: CopyRequest, progress: Progress, *, jobs: int) -> None:
        """Reads the request.

        Raises:
            InvalidReference: a place is none. UsageError: the request contradicts itself.
        """
        self._engine = engine
        self._request = request
        self._progress = progress
        self._jobs = jobs
        self.source = Location.parse(request.source)
        self.targets = [Location.parse(text) for text in request.targets]
        self._platforms = tuple(Platform.parse(text) for text in request.platforms)
        if not self.targets:
            raise UsageError("a copy needs a place to go to")
        changed = request.form or request.compression or request.force or request.level is not None
        if request.preserve_digests and changed:
            raise UsageError("--preserve-digests and what changes a digest contradict each other")

    def run(self, forms: Callable[[], Forms]) -> CopyResult:
        """Copies.

        Raises:
            As `Copier.copy`.
        """
        request = self._request
        with ExitStack() as held:
            places = Places(self._engine, self._progress, held, cwd=request.cwd, jobs=self._jobs)
            source = places.source(self.source, forms)
            targets = [places.target(group) for group in _grouped(self.targets)]
            copier = Copier(self._progress, jobs=self._jobs)
            held.callback(copier.stop)
            selection = Selection(
                platforms=self._platforms, foreign=request.foreign, referrers=request.referrers
            )
            started = time.monotonic()
            done = copier.copy(source, targets, selection, self._change(source, places))
        self._progress(
            Transferred(
                action="copy",
                name=self.source.familiar,
                moved=done.sent,
                moved_bytes=done.sent_bytes,
                mounted=done.mounted,
                present=done.present,
                seconds=time.monotonic() - started,
            )
        )
        return CopyResult(
            digest=done.root.digest,
            media_type=done.root.media_type,
            targets=tuple(str(target) for target in self.targets),
            sent=done.sent,
            mounted=done.mounted,
            present=done.present,
            sent_bytes=done.sent_bytes,
            referrers=done.about,
            id=next((str(target.id) for target in targets if hasattr(target, "id")), ""),
        )

    def _change(self, source: Source, places: Places) -> Change | None:
        """What is done to the image on its way; None for nothing."""
        from img.engine.packing import Wish
        from img.places.change import Changing, Wanted

        request = self._request
        Wish.read(request.compression or "", request.level, force=request.force)
        compression = request.compression
        if not source.verbatim:
            if request.preserve_digests:
                raise UsageError(f"{source.where} has no manifest, so one is made, whose digest is new")
            # No digest is lost, and only these two take plain layers for what is usual.
            plain = all(target.transport in ("docker-archive", "img") for target in self.targets)
            compression = compression or (None if plain else "gzip")
        wanted = Wanted(form=request.form, compression=compression, level=request.level, force=request.force)
        if wanted == Wanted():
            return None
        return Changing(wanted, places.scratch, self._progress)


# ---- reading a place without copying --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The documents of an image.

    Attributes:
        root: What the place has under the name: an index, or a manifest.
        manifest: The image's, of one platform.
        config: Its config; of another artifact, whatever it has in its place.
    """

    root: bytes
    manifest: bytes
    config: bytes
    digest: str


def look_at(engine: Engine, place: str, platform: str, progress: Progress) -> Looked:
    """Reads the documents of an image, wherever it is.

    Raises:
        NotFound: there is none, or none for the platform. As `Source`.
    """
    from img.places.choose import choose
    from img.places.supply import read_small

    with ExitStack() as held:
        places = Places(engine, progress, held, cwd=".", jobs=1)
        source = places.source(Location.parse(place))
        root = source.root()
        wanted = Platform.parse(platform) if platform else Platform.host()
        manifest = choose(root, (wanted,), source.document, source.where)
        assert isinstance(manifest, Manifest)  # of one platform
        config = read_small(source, manifest.config, Stop())
    return Looked(root=root.raw, manifest=manifest.raw, config=config, digest=root.digest)


def take_in(engine: Engine, place: str, wish: PullWish, progress: Progress) -> str:
    """Copies an image that is in no registry into the store; gives the name that it has there."""
    location = Location.parse(place)
    if location.transport == "img":
        return str(_reference(location))
    with ExitStack() as held:
        places = Places(engine, progress, held, cwd=".", jobs=1)
        names = places.source(location).names
    name = str(names[0]) if names else _made_name(location)
    platforms = () if wish.all_platforms else wish.platforms or (str(Platform.host()),)
    request = CopyRequest(source=place, targets=(f"img:{name}",), platforms=platforms)
    engine.copy(request)
    return name


def _made_name(location: Location) -> str:
    """A name for an image that has none: after its file or folder, on no registry."""
    stem = Path(location.path).name.partition(".")[0].lower()
    tag = location.ref if location.ref and Reference.read(f"localhost/x:{location.ref}") else "latest"
    name = f"localhost/{stem}:{tag}"
    return name if Reference.read(name) else f"localhost/image:{tag}"


def load_layout(engine: Engine, folder: Path, progress: Progress) -> list[str]:
    """Takes every image of a layout into the store; gives their names, or IDs where unnamed."""
    from img.places.files import Folder
    from img.places.layout import LayoutSource, entries_of, full_names
    from img.places.stored import StoredTarget

    files = Folder(folder)
    files.where = str(folder)
    loaded = []
    engine.store.lease()
    for entry in entries_of(files):
        names = full_names(entry)
        source = LayoutSource(files, Location(transport="oci", path=str(folder), digest=entry.digest))
        target = StoredTarget(engine.store, names or (None,))
        Copier(progress, jobs=4).copy(source, [target], Selection())
        loaded += [str(name) for name in names] or [target.id]
    return loaded


def _grouped(locations: Sequence[Location]) -> list[list[Location]]:
    """Those that one target stands for: names in one repository, or in the store."""
    groups: dict[str, list[Location]] = {}
    for location in dict.fromkeys(locations):
        key = str(location)
        if location.transport == "docker":
            key = f"docker://{_reference(location).name}"
        elif location.transport == "img":
            key = "img:"
        groups.setdefault(key, []).append(location)
    return list(groups.values())


def _reference(location: Location) -> Reference:
    assert location.reference is not None  # a registry and the store have no other way to name an image
    return location.reference


def _check_target(location: Location) -> None:
    if location.number is not None or location.digest:
        raise UsageError(
            f"{location} is one image that is there; a copy goes to a name",
            hint=f"write {location.transport}:{location.path}:NAME",
        )
