"""Garbage collection: what may go, and how it goes.

Kept are: what a named image needs; what a cache record used lately needs (the cache policy), and
what was fetched from the network and used lately; what any running process may be using, that is,
everything used since the oldest live lease began; cache mounts that somebody holds, or used
lately; and the records of builds that ended lately. A layer leaves by one rename inside the write lock
and is deleted afterwards, so that a build never sees half a layer. What is reported as freed is what
the disk gave back.
"""

from __future__ import annotations

import time

from img import _core
from img.errors import BlobNotFound, InvalidDocument, UsageError
from img.oci import Image
from img.progress import Meter, Progress, silent
from img.store.blobs import BlobStore
from img.store.blocks import BlockIndexes
from img.store.builds import BuildStore
from img.store.cache_mounts import CacheMounts
from img.store.claims import Claims
from img.store.database import Database
from img.store.fingerprints import Fingerprints
from img.store.images import ImageStore
from img.store.layers import LayerRecord, LayerStore, ground
from img.store.listings import Listings
from img.store.records import RecordStore
from img.store.remotes import RemoteArea
from img.store.work import WorkArea, WorkFolder
from img.values import dataclass, field

KEEP_SECONDS = 7 * 24 * 3600.0
"""The cache policy: a record that was used within this time stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a collection did. `freed_bytes` is what the disk gave back; `builds` counts records."""

    layers: tuple[LayerRecord, ...] = ()
    blobs: int = 0
    cache_mounts: int = 0
    builds: int = 0
    freed_bytes: int = 0


@dataclass(slots=True)
class Needed:
    """What named images need: layers as (diff ID, chain ID below) and blobs by digest."""

    layers: set[tuple[str, str]] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)

    def add(self, image: Image) -> None:
        """Adds all that an image needs."""
        self.blobs |= {image.digest, image.id, *(layer.digest for layer in image.manifest.layers)}
        ids = image.config.diff_ids
        for position, diff_id in enumerate(ids):
            self.layers |= {(diff_id, ""), (diff_id, ground(ids[:position]))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """The parts of a store that a collection looks at."""

    database: Database
    blobs: BlobStore
    blocks: BlockIndexes
    layers: LayerStore
    records: RecordStore
    listings: Listings
    fingerprints: Fingerprints
    names: ImageStore
    work: WorkArea
    cache_mounts: CacheMounts
    remotes: RemoteArea
    claims: Claims
    builds: BuildStore

    def needed(self, *, unnamed: bool = True) -> Needed:
        """What images need; `unnamed` counts those that only an ID names."""
        needed = Needed()
        for row in self.names.all():
            if row.named or unnamed:
                needed.blobs |= {row.manifest, row.config}
                if row.index:
                    needed.blobs.update(self.names.reach(row.index))
                try:
                    for image in self.names.images_of(row):
                        needed.add(image)
                    needed.add(self.names.load(row.manifest))
                except (BlobNotFound, InvalidDocument, UsageError):
                    continue  # it holds no image, or is damaged: others must be freed all the same
        return needed

    def prune(
        self,
        *,
        everything: bool = False,
        unnamed: bool = True,
        keep_seconds: float = KEEP_SECONDS,
        progress: Progress = silent,
    ) -> Pruned:
        """Frees what nothing needs.

        Args:
            everything: Leaves named images only: the whole build cache goes too, every cache mount that
                nobody holds, and the record of every build that is not running.
            unnamed: Images that only an ID names go, too.
            keep_seconds: The cache policy, where not `everything`.
            progress: Is told of the bytes that the disk gave back so far.
        """
        freed = self.work.sweep()
        self.claims.sweep()
        in_use_since = self.work.oldest_lease()
        if unnamed:
            self.names.drop_unnamed(updated_before=in_use_since)
        self.names.all()  # what is lost of them goes now: not inside the transaction
        with self.work.begin() as trash:
            limit = in_use_since if everything else min(in_use_since, time.time() - keep_seconds)
            # Rows first, for good: what follows deletes what they name.
            with self.database.lasting():
                self.records.drop(unused_since=limit)
                gone = self._retire(trash_since=in_use_since, trash=trash)
            blobs, blob_bytes = self._drop_blobs(in_use_since)
            now = time.time()
            unused_since = now + 1 if everything else now - keep_seconds
            caches = self.cache_mounts.prune(unused_since=unused_since, trash=trash)
            # Not the trash folder itself: its blocks were taken by this very collection.
            freed = self._remove(freed + blob_bytes, trash, progress)
        freed += self.fingerprints.drop(keep={layer.diff_id for layer in self.layers.all()})
        freed += self.listings.drop(keep=self.records.listings(), written_before=in_use_since)
        builds, log_bytes = self.builds.prune(ended_before=unused_since)
        freed += log_bytes + self._drop_leftovers(in_use_since) + self.remotes.drop(unused_since=limit)
        return Pruned(layers=tuple(gone), blobs=blobs, cache_mounts=caches, builds=builds, freed_bytes=freed)

    def _remove(self, freed: int, trash: WorkFolder, progress: Progress) -> int:
        """Removes what is in the trash; gives the bytes of disk that came back, `freed` among them."""
        meter = Meter(progress, "prune", str(self.work.root.parent), 0)
        for path in trash.path.iterdir():
            meter.at(freed)
            freed += _core.remove_tree(str(path))
        meter.finished("removed", freed)
        return freed

    def _retire(self, *, trash_since: float, trash: WorkFolder) -> list[LayerRecord]:
        """Takes unneeded layers out of the store."""
        needed = self.needed()
        cached = self.records.layers_in_use()
        gone = []
        for record in self.layers.all():
            kept = (record.diff_id, record.parents) in needed.layers or record.diff_id in cached
            if not kept and record.used < trash_since:
                self.layers.retire(record, trash)
                gone.append(record)
        self.layers.retire_strays(trash)
        return gone

    def _drop_blobs(self, since: float) -> tuple[int, int]:
        """Removes blobs that no image needs, if nobody used them since a time."""
        needed = self.needed().blobs
        count = freed = 0
        for digest, stat in self.blobs.all():
            if digest not in needed and max(stat.st_atime, stat.st_mtime) < since:
                freed += self.blobs.remove(digest)
                count += 1
        return count, freed + self.blocks.sweep()

    def _drop_leftovers(self, since: float) -> int:
        """Removes half-written blobs whose writers are dead. Gives bytes of disk that came back."""
        freed = 0
        for path in list(self.blobs.leftovers()):
            try:
                stat = path.stat()
                if stat.st_mtime < since - 60 and not self.work.live():
                    path.unlink()
                    freed += stat.st_blocks * 512
            except FileNotFoundError:
                continue
        return freed
