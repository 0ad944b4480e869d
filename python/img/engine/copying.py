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

from img.engine.requests import Compression
from img.errors import UsageError
from img.oci import Platform, Reference
from img.oci.location import ARCHIVES, Location
from img.places.copier import Change, Copier, Selection
from img.places.place import Document, Source, Target
from img.progress import Progress, Transferred
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

            return RemoteSource(self._engine.registry, reference_of(location))
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

        store, name = self.store(), reference_of(location)
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

            return RemoteTarget(self._engine.registry, [reference_of(each) for each in locations])
        if first.transport == "img":
            from img.places.stored import StoredTarget

            names = [reference_of(each) for each in locations]
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
            said = {"a form": request.form, "a compression": request.compression or request.force}
            what = next((name for name, given in said.items() if given), "a compression level")
            raise UsageError(
                f"{what} changes digests, and they are to be preserved", hint="leave out one of the two"
            )

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


def _grouped(locations: Sequence[Location]) -> list[list[Location]]:
    """Those that one target stands for: names in one repository, or in the store."""
    groups: dict[str, list[Location]] = {}
    for location in dict.fromkeys(locations):
        key = str(location)
        if location.transport == "docker":
            key = f"docker://{reference_of(location).name}"
        elif location.transport == "img":
            key = "img:"
        groups.setdefault(key, []).append(location)
    return list(groups.values())


def reference_of(location: Location) -> Reference:
    """The name in a registry or in the store."""
    assert location.reference is not None  # a registry and the store have no other way to name an image
    return location.reference


def _check_target(location: Location) -> None:
    if location.number is not None or location.digest:
        raise UsageError(
            f"{location} is one image that is there; a copy goes to a name",
            hint=f"write {location.transport}:{location.path}:NAME",
        )
