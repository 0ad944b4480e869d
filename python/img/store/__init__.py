"""`Store`: everything that `img` keeps on disk, under one root (DESIGN D3).

    <root>/img.db          names, layers, cache records (SQLite)
    <root>/oci/            blobs, as a valid OCI image layout
    <root>/blocks/         which compressed blocks stand where in the blobs
    <root>/layers/         extracted layers, by diff ID
    <root>/work/           work in progress, each folder held by its process
    <root>/memo/           file digests of build contexts
    <root>/cache-mounts/   folders of RUN --mount=type=cache
    <root>/listings/       lists of the files that steps copied
    <root>/fingerprints/   of the files of layers that a COPY made: what a later COPY may share
    <root>/private.key     what keyed digests of secrets are made with
    <root>/remote/         files and repositories that builds fetched
    <root>/claims/         which steps are running, each held by its process
    <root>/logs/           what builds left: their records, and the logs of their steps

Many processes may use one store at once. What a store's folders are owned by depends on the id
mapping that they were written under, so that mapping is recorded and another one refused.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from img.errors import DiskFull, StoreError, StoreVersionError
from img.oci import Image
from img.progress import Progress, silent
from img.store.blobs import BlobStore
from img.store.blocks import BlockIndexes
from img.store.builds import BuildRow, BuildStore
from img.store.cache_copy import CacheRow, CacheShape
from img.store.cache_mounts import CacheLease, CacheMounts
from img.store.claims import Claim, Claims
from img.store.database import Database
from img.store.doubts import Doubts
from img.store.fingerprints import Fingerprints, SharedLayer
from img.store.gc import Collector, Pruned
from img.store.images import ImageName, ImageStore, index_of, main_of, near_names
from img.store.layers import LayerRecord, LayerStore, ground
from img.store.listings import Listings
from img.store.private_key import private_key
from img.store.records import CacheRecord, RecordStore
from img.store.remotes import RemoteArea
from img.store.tokens import new_build_id, new_snapshot_id
from img.store.work import WorkArea, WorkFolder

if TYPE_CHECKING:
    from img.store.check import Checker

__all__ = [
    "BuildRow",
    "BuildStore",
    "CacheLease",
    "CacheMounts",
    "CacheRecord",
    "CacheRow",
    "CacheShape",
    "Claim",
    "Claims",
    "Fingerprints",
    "ImageName",
    "LayerRecord",
    "Listings",
    "Pruned",
    "RemoteArea",
    "SharedLayer",
    "Store",
    "WorkFolder",
    "ground",
    "index_of",
    "main_of",
    "near_names",
    "new_build_id",
    "new_snapshot_id",
    "private_key",
]

_FOLDERS = (
    "oci", "blocks", "layers", "work", "memo", "cache-mounts", "listings", "fingerprints", "remote", "claims",
    "logs",
)  # fmt: skip


class Store:
    """One store, open. Use it in a `with` block, or `close` it."""

    def __init__(self, root: str | Path, *, mapping: str | None = None, progress: Progress = silent) -> None:
        """Opens the store at `root`, creating it where there is none.

        Args:
            mapping: The id mapping of this process where it may read or write layer folders, as
                text; None for uses that touch names and blobs alone.
            progress: Told of what a power cut took (`store.doubts`).
        Raises:
            StoreVersionError: a newer `img` wrote it, or it was written under another mapping.
            StoreError: the folder cannot be used.
            DiskFull: no space to create it.
        """
        self.root = Path(root).absolute()
        try:
            # The layers hold set-user-id programs: nobody else has business in here.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self.blobs = BlobStore(self.root / "oci")
            self.blocks = BlockIndexes(self.root / "blocks", self.blobs)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(str(self.root)) from error
            raise StoreError(
                f"cannot use {self.root} as a store: {error.strerror}",
                hint="give another folder with --state DIR",
            ) from error
        self._database = Database(self.root / "img.db")
        self._lease: WorkFolder | None = None
        doubts = Doubts(self._database, self.root / "img.lock", progress)
        self.layers = LayerStore(self._database, self.root / "layers")
        self.records = RecordStore(self._database)
        self.listings = Listings(self.root / "listings")
        self.fingerprints = Fingerprints(self.root / "fingerprints")
        self.names = ImageStore(self._database, self.blobs, progress)
        self.work = WorkArea(self.root / "work")
        self.cache_mounts = CacheMounts(self.root / "cache-mounts")
        self.remotes = RemoteArea(self.root / "remote")
        self.claims = Claims(self.root / "claims")
        self.builds = BuildStore(self._database, self.root / "logs", self.work)
        if mapping is not None:
            self._adopt(mapping)
        doubts.begin(self.blobs, self._take_aside)
        self._distrust(doubts, readable=mapping is not None)

    def _take_aside(self, since: float) -> None:
        """Removes what a power cut may have spoilt and what costs little to have again."""
        self.remotes.drop_since(since)
        self.blobs.renew_layout()

    def _distrust(self, doubts: Doubts, *, readable: bool) -> None:
        """Has what is in doubt looked at before it is used: documents of images now, the rest later."""
        if not doubts.any():
            return
        self.blobs.distrust(doubts)
        if readable:
            self.layers.distrust(doubts, self.blobs)
        if self.blobs.look_at_small():
            self.names.refresh()

    def _adopt(self, mapping: str) -> None:
        """Records the id mapping of the first writer, and refuses another."""
        with self._database.transaction():
            rows = self._database.rows("SELECT value FROM meta WHERE key='mapping'")
            known = str(rows[0][0]) if rows else ""
            written = self._database.rows("SELECT 1 FROM layers LIMIT 1") or self.cache_mounts.any()
            if known and known != mapping and written:
                raise StoreVersionError(
                    f"layers written under the id mapping [{known}]",
                    f"this process's mapping [{mapping}]",
                    str(self.root),
                )
            if known != mapping:
                self._database.change("INSERT OR REPLACE INTO meta VALUES ('mapping', ?)", (mapping,))

    def lease(self) -> WorkFolder:
        """The work folder that says that this process uses the store; made at the first call."""
        if self._lease is None:
            self._lease = self.work.begin()
        return self._lease

    def release_lease(self) -> None:
        """Says that this process uses nothing of the store any more.

        A collection calls it, so that it does not spare what it has just looked at itself.
        """
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def checker(self, *, quick: bool = False, repair: bool = False, progress: Progress = silent) -> Checker:
        """What looks this store through."""
        from img.store.check import Checker  # seldom wanted

        return Checker(
            root=self.root,
            database=self._database,
            blobs=self.blobs,
            layers=self.layers,
            names=self.names,
            records=self.records,
            work=self.work,
            progress=progress,
            quick=quick,
            repair=repair,
        )

    @property
    def collector(self) -> Collector:
        """What prunes this store."""
        return Collector(
            database=self._database,
            blobs=self.blobs,
            blocks=self.blocks,
            layers=self.layers,
            records=self.records,
            listings=self.listings,
            fingerprints=self.fingerprints,
            names=self.names,
            work=self.work,
            cache_mounts=self.cache_mounts,
            remotes=self.remotes,
            claims=self.claims,
            builds=self.builds,
        )

    def images(self) -> Iterator[tuple[str, Image]]:
        """Walks over all named images: full name, and the image."""
        for row in self.names.all():
            if row.named and not row.bare:
                yield row.name, self.names.load(row.manifest)

    def close(self) -> None:
        """Gives up the lease and closes the database; safe to call twice."""
        self.release_lease()
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
