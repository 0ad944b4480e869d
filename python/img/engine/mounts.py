"""`TravellingMounts`: the cache mounts that a build gets from other machines and gives to them.

`builder.perform.mounts` has a cache filled at its first use and tells which ones were used; `building` has
those written out at the end. `engine.sharing` knows the caches that they travel with. Folders go as chunks,
which are the same for the same content: what did not change is neither compressed nor sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from img import _core
from img.amounts import human_size
from img.cache import SharedMount
from img.cache.index import CHUNK_MEDIA_TYPE
from img.engine.sharing import SharedCaches
from img.errors import CacheError, DigestMismatch, LayerError, SizeMismatch
from img.oci import Descriptor
from img.oci.descriptor import is_digest
from img.progress import Note, Progress
from img.store import CacheLease, Store, WorkFolder
from img.store.cache_copy import Chunks, write_chunks
from img.values import dataclass

THREADS = 4
"""Chunks that are fetched at once."""

Fetch = Callable[[Descriptor, Callable[[Descriptor], _core.BlobSink]], bool]
"""Fetches a chunk into a sink and finishes it; False where it cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    """A copy of a cache that this build used."""

    mount_id: str
    key: str
    copy: Path


class TravellingMounts:
    """The cache mounts of one build, as far as they travel. Thread-safe."""

    def __init__(self, store: Store, shared: SharedCaches, work: WorkFolder, progress: Progress) -> None:
        """Fetches nothing yet.

        Args:
            work: Holds the chunks until the caches were written: it ends after `shared`.
        """
        self._store = store
        self._shared = shared
        self._work = work
        self._progress = progress
        self._used: dict[str, _Used] = {}
        self._broken: set[str] = set()
        self._lock = threading.Lock()

    # ---- what the builder asks ---------------------------------------------------------------

    def bring(self, mount_id: str, key: str, folder: Path) -> bool:
        """Fills the empty folder of a cache with what a shared cache carries of it."""
        mount = _carried(self._shared.mounts(), mount_id, key)
        if mount is None or mount.key in self._broken:
            return False
        with _spool(self._work, "bring") as spool:
            try:
                chunks = bring_mount(mount, folder, spool, self._shared.fetch_chunk)
            except (LayerError, SizeMismatch, DigestMismatch) as error:
                self._broken.add(mount.key)
                self._say("warning", f"the cache mount {mount_id} is not what a cache says: {error}")
                chunks = None
        if chunks is None:
            _core.remove_tree(str(folder))
            folder.mkdir()
            return False
        write_chunks(folder.parent, chunks)
        size = sum({chunk.digest: chunk.size for chunk in mount.chunks}.values())
        self._say("info", f"the cache mount {mount_id} came from a shared cache: {human_size(size)}")
        return True

    def used(self, mount_id: str, key: str, copy: Path) -> None:
        """Tells of the copy of a cache that a step is about to use."""
        with self._lock:
            self._used[key] = _Used(mount_id=mount_id, key=key, copy=copy)

    # ---- at the build's end ------------------------------------------------------------------

    def offer(self, known: Collection[str]) -> None:
        """Hands the caches that were used to those that want them, also after a failure.

        Args:
            known: Ids of all cache mounts of the plan.
        """
        for mount_id in self._shared.wanted_mounts():
            if mount_id != "all" and mount_id not in known:
                text = f"--cache-to: no step of this build has a cache mount {mount_id!r}"
                self._say("warning", text)
        for used in sorted(self._used.values(), key=lambda one: one.key):
            if self._shared.wants_mount(used.mount_id):
                self._offer(used)

    def _offer(self, used: _Used) -> None:
        there = self._shared.chunks_there(used.mount_id)
        spool = self._work.folder(f"mount-{used.key}")
        with self._held(used) as lease:
            if lease is None:
                return
            chunked = Chunking(lease, spool, there)
            mount = chunked.mount(used.mount_id, used.key)
        for path in chunked.left_out:
            self._say("warning", f"the cache mount {used.mount_id} goes without {path}: it is being written")
        if not chunked.entries:
            return
        self._say("info", f"the cache mount {used.mount_id} goes to a shared cache: {chunked}")
        opener = _Opener(spool, lambda: self._again(used, spool))
        self._shared.offer_mount(mount, opener.open)

    @contextmanager
    def _held(self, used: _Used) -> Iterator[CacheLease | None]:
        """A copy of a cache, to be read; None where it has left."""

        def waiting() -> None:
            self._say("info", f"waiting for the cache {used.mount_id}, which another build is using")

        lease = self._store.cache_mounts.hold(used.copy, waiting)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.close()

    def _again(self, used: _Used, spool: Path) -> None:
        """Makes every chunk, also those that were thought to be there."""
        with self._held(used) as lease:
            if lease is not None:
                _core.chunk_folder(str(lease.data), str(spool), known={})

    def _say(self, level: str, text: str) -> None:
        self._progress(Note(level=level, text=text))


class Chunking:
    """A cache's folder, cut into chunks; `chunks.json` of its copy is up to date afterwards.

    Attributes:
        entries: Objects in the folder.
        left_out: Files that somebody was writing to.
    """

    def __init__(self, lease: CacheLease, spool: Path, there: Collection[str]) -> None:
        """Cuts it.

        Args:
            spool: Empty folder for the chunks that are not `there`, each under its hexadecimal digest.
            there: Digests of chunks that nobody needs.
        """
        known = {content: blob for content, blob in lease.chunks().items() if blob[0] in there}
        made = _core.chunk_folder(str(lease.data), str(spool), known=known)
        write_chunks(lease.path, {chunk.content: (chunk.digest, chunk.size) for chunk in made.chunks})
        self._made = made
        self._shape = lease.shape
        status = lease.data.stat()
        self._root = f"{status.st_uid}:{status.st_gid}:{status.st_mode & 0o7777:o}"
        self.entries = made.entries
        self.left_out = made.left_out

    def mount(self, mount_id: str, key: str) -> SharedMount:
        """What a document says of it."""
        chunks = tuple(
            Descriptor(media_type=CHUNK_MEDIA_TYPE, digest=chunk.digest, size=chunk.size)
            for chunk in self._made.chunks
        )
        return SharedMount(
            id=mount_id,
            key=key,
            chunks=chunks,
            total_bytes=self._made.total_bytes,
            shape=self._shape,
            root=self._root,
        )

    def __str__(self) -> str:
        """How much there is, and how much of it is new."""
        sizes = {chunk.digest: (chunk.size, chunk.known) for chunk in self._made.chunks}
        new = [size for size, known in sizes.values() if not known]
        return f"{human_size(sum(new))} in {len(new)} of {len(sizes)} chunks are new"


class _Opener:
    """Opens chunks; one that is not in the spool, since a cache has lost it, is made once more."""

    def __init__(self, spool: Path, again: Callable[[], None]) -> None:
        self._spool = spool
        self._again: Callable[[], None] | None = again
        self._lock = threading.Lock()

    def open(self, chunk: Descriptor) -> BinaryIO:
        path = self._spool / chunk.hex
        with self._lock:
            if not path.exists() and self._again is not None:
                self._again()
                self._again = None
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            reason = "it has lost a chunk of a cache mount, which has changed meanwhile"
            raise CacheError("a shared cache", reason, hint="build again") from error


def bring_mount(mount: SharedMount, folder: Path, spool: Path, fetch: Fetch) -> Chunks | None:
    """Fetches a cache mount's chunks, and unpacks them into the empty folder `folder`.

    Returns:
        What is known of its chunks from now on; None where one cannot be had.
    Raises:
        LayerError, SizeMismatch: what came is no folder; `folder` may hold a part of it.
    """
    if not mount.chunks or not all(is_digest(chunk.digest) for chunk in mount.chunks):
        raise LayerError(f"the cache mount {mount.id}", "its chunks have no digests")

    def sink(chunk: Descriptor) -> _core.BlobSink:
        return _core.BlobSink(str(spool / chunk.hex), digest=chunk.digest, size=chunk.size)

    once = {chunk.digest: chunk for chunk in mount.chunks}
    with ThreadPoolExecutor(min(THREADS, len(once))) as pool:
        try:
            if not all(pool.map(lambda chunk: fetch(chunk, sink), once.values())):
                return None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    paths = [str(spool / chunk.hex) for chunk in mount.chunks]
    contents = _core.unpack_chunks(paths, str(folder), total_bytes=mount.total_bytes)
    found = zip(contents, mount.chunks, strict=False)
    return {content: (chunk.digest, chunk.size) for content, chunk in found}


def _carried(mounts: Collection[SharedMount], mount_id: str, key: str) -> SharedMount | None:
    """The cache mount that is the one which is wanted; one that has no key is known by its id."""
    same = [mount for mount in mounts if mount.key == key]
    named = [mount for mount in mounts if not mount.key and mount.id == mount_id]
    return next(iter([*same, *named]), None)


@contextmanager
def _spool(work: WorkFolder, name: str) -> Iterator[Path]:
    """A folder for chunks on their way in."""
    path = work.folder(f"{name}-{threading.get_ident()}")
    try:
        yield path
    finally:
        _core.remove_tree(str(path))
