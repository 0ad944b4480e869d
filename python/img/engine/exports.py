"""`Exports`: the caches that `--cache-to` names: what they are to say, and the blobs that go there meanwhile.

Layers are compressed and sent by threads of their own as steps end; the documents are written at the end,
also of a build that failed. A cache that fails is given up; whether that fails the build, its spec says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

from img.amounts import human_size
from img.builder import SharedLost
from img.builder.key import CacheKey
from img.cache import CacheBackend, CacheIndex, CacheSpec, SharedMount, SharedRecord
from img.engine.asking import CacheQuestion, may_pass
from img.engine.background import Background
from img.engine.imports import Imports
from img.engine.packing import MEDIA_TYPES, Packer, Source, how_made
from img.errors import CacheError, ImgError
from img.oci import Descriptor
from img.oci.descriptor import LAYERS
from img.progress import Note, Progress, Transfer
from img.registry.stop import Stop
from img.store import CacheRecord, Store
from img.values import dataclass, field, replace

THREADS = 4
"""Layers that are compressed or sent at once."""

STOP_SECONDS = 5.0
"""How long work that was stopped is waited for."""


@dataclass(slots=True)
class Export:
    """One cache that is written.

    Attributes:
        home: `registry/repository` of its blobs, or empty.
        sending: Layers whose blobs are on their way, or there.
        later: Layers that are sent at the end, since they may still come to this machine until then.
        blobs: Blobs that are there, by diff ID.
        mounts: Cache mounts that are there, by key.
        chunks: Chunks that its document names, by digest; None where it was not looked at.
        error: Why it was given up, or None.
    """

    spec: CacheSpec
    backend: CacheBackend
    home: str = ""
    sending: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    mounts: dict[str, SharedMount] = field(default_factory=dict)
    chunks: frozenset[str] | None = None
    error: CacheError | None = None

    def wants(self, mount_id: str) -> bool:
        """Whether a cache mount is to travel with it."""
        return "all" in self.spec.mounts or mount_id in self.spec.mounts


class Exports:
    """All of them. Safe for several threads.

    Attributes:
        records: What they will say, by key.
    """

    def __init__(
        self, store: Store, caches: Sequence[Export], progress: Progress, packer: Packer | None = None
    ) -> None:
        """Sends nothing yet.

        Args:
            packer: Makes the blobs; one that is shared makes none twice.
        """
        self._packer = packer or Packer(store, progress)
        self._store = store
        self._caches = caches
        self._progress = progress
        self.records: dict[str, SharedRecord] = {}
        self._background = Background(THREADS)
        self._lock = threading.Lock()
        self._layer_locks: dict[str, threading.Lock] = {}

    # ---- while the build goes on -------------------------------------------------------------

    def questions(self) -> list[CacheQuestion]:
        """Whether those may be written whose errors count, where that can be asked beforehand."""
        return [
            CacheQuestion(repository=cache.home, ask=partial(self._ask, cache))
            for cache in self._caches
            if cache.home and not cache.spec.ignore_error
        ]

    def _ask(self, cache: Export, stop: Stop) -> None:
        from img.cache.registry import RegistryCache  # as open as the spec of one made it

        assert isinstance(cache.backend, RegistryCache)
        try:
            cache.backend.check(stop)
        except CacheError as error:
            if (cause := error.__cause__) is not None and may_pass(cause):
                raise cause from error
            self._give_up(cache, error)
            raise

    def offer(
        self, keys: Sequence[CacheKey], record: CacheRecord, title: str, *, on_chain: bool, here: bool
    ) -> None:
        """Takes a step into the documents, and sends its layer.

        Args:
            on_chain: The layer is one of an image's own; `mode=min` sends no others.
            here: The layer is in the store, and was seen.
        """
        plain = SharedRecord(
            key="",
            diff_id=record.diff_id,
            content=record.content,
            tar_bytes=record.tar_bytes,
            created=record.created,
            title=title,
        )
        with self._lock:
            for key in keys:
                self.records[key.digest] = replace(plain, key=key.digest, inputs=key.text)
        for cache in self._caches:
            if not record.diff_id or not (on_chain or cache.spec.max_mode):
                continue
            if here:
                self._send_soon(cache, record.diff_id)
            else:
                with self._lock:
                    cache.later.add(record.diff_id)

    def begin_again(self) -> None:
        """Forgets the steps of results that were given up; what was sent stays."""
        with self._lock:
            self.records.clear()
            for cache in self._caches:
                cache.later.clear()

    def _send_soon(self, cache: Export, diff_id: str) -> None:
        with self._lock:
            if diff_id in cache.sending or cache.error is not None:
                return
            cache.sending.add(diff_id)
            cache.later.discard(diff_id)
        self._background.add(lambda: self._send(cache, diff_id))

    def _send(self, cache: Export, diff_id: str) -> None:
        """One layer, in a thread of its own."""
        try:
            blob = self._blob(cache.spec, diff_id)
            if blob is not None:
                self._put(cache, blob, lambda: self._store.blobs.open(blob.digest))
                if cache.home:
                    self._store.layers.remember_blob(diff_id, blob, source=cache.home)
                with self._lock:
                    cache.blobs[diff_id] = blob
        except KeyboardInterrupt:
            # The build ends the work of the extension in all threads when a step fails: tried again.
            with self._lock:
                cache.sending.discard(diff_id)
                cache.later.add(diff_id)
        except (ImgError, OSError) as error:
            self._give_up(cache, error)

    def _put(self, cache: Export, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        if cache.error is not None or cache.backend.has(blob):
            return
        cache.backend.put(blob, open_blob)
        if cache.spec.kind != "registry":  # whose client tells of it itself
            self._progress(
                Transfer(action="push", digest=blob.digest, done_bytes=blob.size, total_bytes=blob.size)
            )

    def _give_up(self, cache: Export, error: BaseException) -> None:
        with self._lock:
            if cache.error is None:
                cache.error = (
                    error if isinstance(error, CacheError) else CacheError(str(cache.spec), str(error))
                )

    def _blob(self, spec: CacheSpec, diff_id: str) -> Descriptor | None:
        """The blob of a layer, made now if need be; None where the layer is gone."""
        with self._lock:
            lock = self._layer_locks.setdefault(diff_id, threading.Lock())
        with lock:
            wanted = MEDIA_TYPES[spec.compression]
            forms = [blob for blob, _ in self._store.layers.blobs_of(diff_id) if blob.media_type in LAYERS]
            known = [blob for blob in forms if self._store.blobs.has(blob.digest)]
            same = [blob for blob in known if blob.media_type == wanted]
            if not spec.force_compression and known:
                return (same or known)[0]
            if same and spec.level is None:
                return same[0]
            made = self._store.layers.made_of(diff_id)
            fitting = {blob.digest for blob, how in made if how == how_made(spec.compression, spec.level)}
            exact = [blob for blob in same if blob.digest in fitting]
            if exact:
                return exact[0]
            layer = self._store.layers.find(diff_id)
            if layer is None:
                return None
            return self._packer.pack(Source.of(layer), spec.compression, level=spec.level)

    # ---- cache mounts ------------------------------------------------------------------------

    def wants_mount(self, mount_id: str) -> bool:
        """Whether a cache mount is to travel with one of the caches."""
        return any(cache.wants(mount_id) for cache in self._caches)

    def wanted_mounts(self) -> frozenset[str]:
        """What `mounts=` of the caches says: ids, and `all`."""
        return frozenset(word for cache in self._caches for word in cache.spec.mounts)

    def chunks_there(self, mount_id: str) -> frozenset[str]:
        """The chunks, by digest, that all caches which want a cache mount name already."""
        found: frozenset[str] | None = None
        for cache in self._caches:
            if cache.wants(mount_id) and cache.error is None:
                if cache.chunks is None:
                    index = self._earlier(cache)
                    mounts = index.mounts if index else ()
                    cache.chunks = frozenset(chunk.digest for mount in mounts for chunk in mount.chunks)
                found = cache.chunks if found is None else found & cache.chunks
        return found or frozenset()

    def offer_mount(self, mount: SharedMount, open_chunk: Callable[[Descriptor], BinaryIO]) -> None:
        """Sends a cache mount's chunks to the caches that it travels with, whose documents name it."""
        for cache in self._caches:
            if cache.wants(mount.id):
                left = {chunk.digest for chunk in mount.chunks}
                for chunk in {chunk.digest: chunk for chunk in mount.chunks}.values():
                    task = partial(self._send_chunk, cache, mount, chunk, left, open_chunk)
                    self._background.add(task)

    def _send_chunk(
        self,
        cache: Export,
        mount: SharedMount,
        chunk: Descriptor,
        left: set[str],
        open_chunk: Callable[[Descriptor], BinaryIO],
    ) -> None:
        """One chunk, in a thread of its own; with the last one that was `left`, the mount is there."""
        try:
            self._put(cache, chunk, partial(open_chunk, chunk))
            with self._lock:
                left.discard(chunk.digest)
                if not left:
                    cache.mounts[mount.key] = mount
        except (ImgError, OSError, KeyboardInterrupt) as error:
            self._give_up(cache, error)

    # ---- at the end --------------------------------------------------------------------------

    def finish(self, imports: Imports, *, failed: bool) -> None:
        """Sends what is left, and writes the documents.

        Args:
            imports: The caches that were asked: they may have what is to be written.
            failed: The build did: what the caches said before stays beside what this build says.
        Raises:
            CacheError: a cache could not be written whose errors count.
        """
        if not self._caches:
            return
        self._background.drain()
        for cache in self._caches:
            for diff_id in sorted(cache.later):
                bring = None if failed else imports.bring
                self._background.add(partial(self._send_late, cache, diff_id, imports, bring))
        self._background.drain()
        self._add_kin(imports.all())
        for cache in self._caches:
            if cache.error is None:
                try:
                    self._write(cache, failed=failed)
                except CacheError as error:
                    self._give_up(cache, error)
        self._tell()

    def _send_late(
        self,
        cache: Export,
        diff_id: str,
        imports: Imports,
        bring: Callable[[Sequence[str]], None] | None,
    ) -> None:
        """A layer that need not come to this machine where the cache has it already.

        Args:
            bring: Fetches it, or None after a failure, which ended all that was fetched.
        """
        try:
            there = next((blob for blob in imports.blobs_of(diff_id) if cache.backend.has(blob)), None)
        except CacheError as error:
            self._give_up(cache, error)
            return
        if there is not None:
            with self._lock:
                cache.blobs[diff_id] = there
            return
        if bring is not None and not imports.sound([diff_id]):
            try:
                bring([diff_id])
            except (SharedLost, CacheError):
                return  # nobody needed it here; its record goes without
        if self._store.layers.find(diff_id) is not None:
            self._send(cache, diff_id)

    def _add_kin(self, known: Sequence[SharedRecord]) -> None:
        """Adds the other keys of the same steps: who was found by one of them did not ask for the others.

        Args:
            known: What other caches say.
        """
        runs = {(r.created, r.diff_id, r.content): r for r in self.records.values() if r.created}
        mine = self._store.records.of_runs(sorted({created for created, _, _ in runs}))
        kin: list[CacheRecord | SharedRecord] = [*mine, *known]
        for other in kin:
            run = runs.get((other.created, other.diff_id, other.content))
            if run is not None and other.inputs and other.key not in self.records:
                self.records[other.key] = replace(run, key=other.key, inputs=other.inputs)

    def _write(self, cache: Export, *, failed: bool) -> None:
        """Writes one document, unless the cache says the same already."""
        index = CacheIndex(
            records=tuple(replace(r, layer=cache.blobs.get(r.diff_id)) for r in self.records.values()),
            mounts=tuple(cache.mounts.values()),
        )
        if failed and not (index.records or index.mounts):
            return
        before = self._before(cache)
        earlier = CacheIndex.from_bytes(before) if before and not cache.spec.reset else None
        if earlier is not None:
            # A step that did not run used no cache mount: what is there of it stays.
            new = {mount.id for mount in index.mounts}
            kept = tuple(mount for mount in earlier.mounts if mount.id not in new)
            index = replace(index, mounts=(*index.mounts, *kept))
            if failed:
                index = CacheIndex.joined((index, replace(earlier, mounts=())))
        document = index.to_bytes()
        if document == before and not (cache.spec.reset or cache.spec.ages):
            self._note("info", f"the cache is as it was: {cache.spec}")
            return
        cache.backend.write(document, index.blobs)
        size = human_size(sum(blob.size for blob in index.blobs))
        counts = f"{len(index.records)} records, {len(index.blobs)} blobs, {size}"
        self._note("info", f"exported cache to {cache.spec}: {counts}")

    def _earlier(self, cache: Export) -> CacheIndex | None:
        """What the cache says now, if that can be read."""
        before = self._before(cache)
        return CacheIndex.from_bytes(before) if before else None

    def _before(self, cache: Export) -> bytes | None:
        """What the cache says now; what cannot be read is replaced."""
        try:
            return cache.backend.read()
        except CacheError:
            return None

    def _tell(self) -> None:
        """Says which caches could not be written; raises where that counts."""
        for cache in self._caches:
            if cache.error is not None and cache.spec.ignore_error:
                self._note("warning", f"this cache is not written: {cache.spec}: {cache.error.reason}")
        for cache in self._caches:
            if cache.error is not None and not cache.spec.ignore_error:
                raise cache.error

    def drain(self) -> None:
        """Waits until nothing is on its way any more."""
        self._background.drain()

    def stop(self) -> None:
        """Ends everything, and waits for that a moment."""
        self._background.stop()
        for cache in self._caches:
            cache.backend.stop()
        self._background.drain(STOP_SECONDS)

    def close(self) -> None:
        """Lets go of every cache."""
        self._background.stop()
        for cache in self._caches:
            cache.backend.close()

    def _note(self, level: str, text: str) -> None:
        self._progress(Note(level=level, text=text))
