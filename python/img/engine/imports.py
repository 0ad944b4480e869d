"""`Imports`: the caches that `--cache-from` names: their records, and the layers that are brought from them.

Only the documents are read at first, once, and at the first question that the store cannot answer. A layer
comes when somebody needs its files. Nothing that a cache says of a layer is believed before the layer was
unpacked and digested here; a cache that says something else is left out, as one that fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from img import _core
from img.builder import SharedLost
from img.cache import CacheBackend, CacheIndex, CacheSpec, SharedMount, SharedRecord
from img.cache.index import MAX_INDEX_BYTES
from img.errors import CacheError, LayerError, StoreError
from img.oci import Descriptor
from img.oci.descriptor import LAYERS
from img.progress import Note, Progress, Transfer
from img.store import LayerRecord, Store

PATIENCE_SECONDS = 30.0
"""A cache whose document takes longer to come is left out."""

Word = tuple[str, int]
"""What is said of a layer beside its name: content digest, and size of its tar."""

_FAULTS = (CacheError, StoreError, LayerError, OSError)
"""What taking a layer from a cache may end with: wrong digests, hostile archives, a disk that they filled."""


@dataclass(slots=True)
class Import:
    """One cache that is asked.

    Attributes:
        home: `registry/repository` of its blobs, or empty.
        records: What it says, by key.
        layers: The records whose layers it holds, by diff ID.
        words: What it says of each layer, by diff ID.
        gone: It failed or lied, and is asked no more.
        lent: Something that it says is part of results.
    """

    spec: CacheSpec
    backend: CacheBackend
    home: str = ""
    records: dict[str, SharedRecord] = field(default_factory=dict)
    layers: dict[str, SharedRecord] = field(default_factory=dict)
    words: dict[str, set[Word]] = field(default_factory=dict)
    mounts: tuple[SharedMount, ...] = ()
    gone: bool = False
    lent: bool = False

    def take(self, index: CacheIndex) -> None:
        """Takes over what its document says."""
        self.records = {record.key: record for record in index.records}
        self.layers = {record.diff_id: record for record in index.records if record.layer}
        for record in index.records:
            self.words.setdefault(record.diff_id, set()).add(_word(record))
        self.mounts = index.mounts


class Imports:
    """All of them, in the order in which they are asked. Safe for several threads."""

    def __init__(
        self,
        store: Store,
        caches: Sequence[Import],
        progress: Progress,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Asks nobody yet.

        Args:
            patience: Seconds within which a cache's document must have come.
        """
        self._store = store
        self._caches = caches
        self._progress = progress
        self._patience = patience
        self._lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._read = False
        self._layer_locks: dict[str, threading.Lock] = {}
        self._said: dict[str, set[Word]] = {}
        self._seen: dict[str, Word] = {}
        self._needed: set[str] = set()
        self._fatal: CacheError | None = None
        self._stopped = False

    # ---- documents ---------------------------------------------------------------------------

    def present(self) -> list[Import]:
        """The caches that are still asked, their documents read."""
        if not self._caches:
            return []
        with self._read_lock:
            if not self._read:
                self._read = True
                self._read_all()
        return [cache for cache in self._caches if not cache.gone]

    def _read_all(self) -> None:
        """Reads the documents side by side, for as long as the patience lasts."""
        answers = [_Answer(cache.backend.read) for cache in self._caches]
        deadline = time.monotonic() + self._patience
        for cache, answer in zip(self._caches, answers, strict=True):
            try:
                self._take(cache, answer.wait(deadline))
            except CacheError as error:
                self.leave(cache, error)
            except TimeoutError:
                late = f"no answer within {self._patience:g} seconds"
                self.leave(cache, CacheError(str(cache.spec), late))

    def _take(self, cache: Import, raw: bytes | None) -> None:
        if raw is None:
            self._note("info", f"there is no cache yet: {cache.spec}")
            return
        index = CacheIndex.from_bytes(raw) if len(raw) <= MAX_INDEX_BYTES else None
        if index is None:
            raise CacheError(str(cache.spec), "what it holds is no cache that this img reads")
        cache.take(index)
        count = len(cache.records)
        self._note("info", f"importing cache from {cache.spec}: {count} record{'' if count == 1 else 's'}")

    def leave(self, cache: Import, error: Exception) -> None:
        """Leaves a cache out from now on.

        Raises:
            CacheError: its errors count.
        """
        with self._lock:
            if cache.gone:
                return
            cache.gone = True
        if self._stopped:  # by the build's own end: the cache is not to blame
            return
        cache.backend.stop()
        reason = error.reason if isinstance(error, CacheError) else str(error)
        if not cache.spec.ignore_error:
            hint = error.hint if isinstance(error, CacheError) else ""
            self._fatal = CacheError(str(cache.spec), reason, hint)
            raise self._fatal from error
        self._note("warning", f"this cache is left out: {cache.spec}: {reason}")

    # ---- records -----------------------------------------------------------------------------

    def find(self, key: str) -> SharedRecord | None:
        """The first cache's record under a key; from then on its word is part of results.

        Raises:
            CacheError, SharedLost.
        """
        for cache in self.present():
            record = cache.records.get(key)
            if record is not None and self._usable(cache, record):
                cache.lent = True
                if record.diff_id:
                    with self._lock:
                        self._said.setdefault(record.diff_id, set()).add(_word(record))
                return record
        return None

    def _usable(self, cache: Import, record: SharedRecord) -> bool:
        """Whether a record may be a hit: its layer is here or in a cache, or nobody needed it so far."""
        if not record.diff_id:
            return True
        layer = self._store.layers.find(record.diff_id)
        if layer is not None:
            if layer.content == layer.diff_id:  # pulled, and not looked into so far
                return True
            self._seen[record.diff_id] = (layer.content, layer.tar_bytes)
            if self._seen[record.diff_id] == _word(record):
                return True
            self._lied(cache, record.diff_id)
            return False
        return record.diff_id not in self._needed or bool(self._holders(record.diff_id))

    def _holders(self, diff_id: str) -> list[tuple[Import, SharedRecord]]:
        return [(cache, cache.layers[diff_id]) for cache in self.present() if diff_id in cache.layers]

    def _lied(self, cache: Import, diff_id: str) -> None:
        """Leaves a cache out whose word was found wrong; results that stand on its word are given up."""
        lent = cache.lent
        self.leave(cache, CacheError(str(cache.spec), f"layer {diff_id} is not what its record says"))
        if lent:
            raise SharedLost(f"{cache.spec} lied")

    def sound(self, diff_ids: Sequence[str]) -> bool:
        """Tells whether nothing of these layers is a cache's word alone."""
        with self._lock:
            return all(self._said.get(i, set()) <= {self._seen.get(i)} for i in diff_ids if i in self._said)

    def begin_again(self) -> None:
        """Forgets what was lent to results that were given up.

        Raises:
            CacheError: they were given up for a cache whose errors count.
        """
        if self._fatal is not None:
            raise self._fatal
        with self._lock:
            self._said.clear()
            for cache in self._caches:
                cache.lent = False

    def all(self) -> list[SharedRecord]:
        """Every record of the caches that were read and are still asked."""
        return [record for cache in self._caches if not cache.gone for record in cache.records.values()]

    # ---- layers ------------------------------------------------------------------------------

    def bring(self, diff_ids: Sequence[str]) -> None:
        """Brings the layers that are a cache's word alone, side by side.

        Raises:
            CacheError, SharedLost.
        """
        missing = [diff_id for diff_id in dict.fromkeys(diff_ids) if not self.sound([diff_id])]
        if len(missing) < 2:
            for diff_id in missing:
                self._bring(diff_id)
            return
        from concurrent.futures import ThreadPoolExecutor, wait

        with ThreadPoolExecutor(min(4, len(missing))) as pool:
            done = [pool.submit(self._bring, diff_id) for diff_id in missing]
            try:
                wait(done)
            except BaseException:  # an interrupt: what is on its way ends
                self.stop()
                raise
        errors = [error for future in done if (error := future.exception()) is not None]
        # What ends the build counts for more than what begins the solve again.
        errors.sort(key=lambda error: isinstance(error, SharedLost))
        if errors:
            raise errors[0]

    def _bring(self, diff_id: str) -> None:
        """Sees one layer with our own eyes: here already, or fetched now."""
        with self._lock:
            lock = self._layer_locks.setdefault(diff_id, threading.Lock())
        with lock:
            if self.sound([diff_id]):
                return
            if diff_id not in self._seen:
                layer = self._store.layers.find(diff_id)
                self._seen[diff_id] = self._digested(layer) if layer else self._fetch_any(diff_id)
        for cache in self.present():
            if not cache.words.get(diff_id, set()) <= {self._seen[diff_id]}:
                self._lied(cache, diff_id)
        if not self.sound([diff_id]):  # whoever said it was left out meanwhile
            raise SharedLost(f"layer {diff_id} is not what results stand on")

    def _digested(self, layer: LayerRecord) -> Word:
        """What a layer of the store is; one that was pulled is digested now."""
        if layer.content != layer.diff_id:
            return layer.content, layer.tar_bytes
        packed = _core.pack_layer(str(layer.path), clamp_mtime=layer.clamp)
        return packed.content_digest, packed.uncompressed_size

    def _fetch_any(self, diff_id: str) -> Word:
        """Fetches a layer from the first cache that gives it."""
        failed = False
        for cache, record in self._holders(diff_id):
            try:
                return self._fetch(cache, record)
            except _FAULTS as error:
                failed = True
                self.leave(cache, error)
        if not failed:
            with self._lock:
                self._needed.add(diff_id)
        raise SharedLost(f"no cache gives layer {diff_id}")

    def _fetch(self, cache: Import, record: SharedRecord) -> Word:
        """Fetches, verifies, unpacks, digests and publishes one layer."""
        blob = record.layer
        assert blob is not None
        if blob.media_type not in LAYERS:
            raise LayerError(record.diff_id, f"a layer of type {blob.media_type}")
        with self._store.work.begin() as work:
            folder = work.folder("layer")
            sink = self._store.blobs.sink(blob, extract_to=folder, diff_id=record.diff_id)
            stats = self._pour(cache, blob, sink)
            packed = _core.pack_layer(str(folder))
            seen = (packed.content_digest, packed.uncompressed_size)
            if stats is None or stats.pending or packed.diff_id != record.diff_id or seen != _word(record):
                raise LayerError(record.diff_id, "it is not what the cache's record says")
            self._store.layers.publish(
                folder, diff_id=record.diff_id, tar_bytes=seen[1], content=seen[0], trash=work
            )
        plain = Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size)
        self._store.layers.remember_blob(record.diff_id, plain, source=cache.home)
        return seen

    def _pour(self, cache: Import, blob: Descriptor, sink: _core.BlobSink) -> _core.ApplyStats | None:
        """Fetches a blob into a sink and finishes it; of one that fails, nothing is left."""
        try:
            cache.backend.fetch(blob, sink)
            stats = sink.finish()
        except BaseException:
            sink.abort()
            raise
        if cache.spec.kind != "registry":  # whose client tells of it itself
            self._progress(
                Transfer(action="pull", digest=blob.digest, done_bytes=blob.size, total_bytes=blob.size)
            )
        return stats

    def blobs_of(self, diff_id: str) -> list[Descriptor]:
        """The blobs of a layer that the caches name."""
        return [record.layer for _, record in self._holders(diff_id) if record.layer]

    # ---- cache mounts ------------------------------------------------------------------------

    def mounts(self) -> tuple[SharedMount, ...]:
        """The cache mounts in the caches, each once: all of them, or those that `mounts=` names."""
        found: dict[str, SharedMount] = {}
        for cache in self.present():
            for mount in cache.mounts:
                wanted = cache.spec.mounts or ("all",)
                if "all" in wanted or mount.id in wanted:
                    found.setdefault(mount.key, mount)
        return tuple(found.values())

    def fetch_chunk(self, chunk: Descriptor, open_sink: Callable[[Descriptor], _core.BlobSink]) -> bool:
        """Fetches a chunk of a mount into a sink and finishes it; False where no cache gives it."""
        for cache in self.present():
            if any(chunk in mount.chunks for mount in cache.mounts):
                try:
                    self._pour(cache, chunk, open_sink(chunk))
                    return True
                except _FAULTS as error:
                    self.leave(cache, error)
        return False

    def stop(self) -> None:
        """Ends all transfers soon, for good."""
        self._stopped = True
        for cache in self._caches:
            cache.backend.stop()

    def close(self) -> None:
        """Lets go of every cache."""
        for cache in self._caches:
            cache.backend.close()

    def _note(self, level: str, text: str) -> None:
        self._progress(Note(level=level, text=text))


class _Answer:
    """An answer that comes in a thread of its own; one that never comes keeps nobody waiting."""

    def __init__(self, ask: Callable[[], bytes | None]) -> None:
        self._ask = ask
        self._done = threading.Event()
        self._value: bytes | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._ask()
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            self._error = error
        finally:
            self._done.set()

    def wait(self, deadline: float) -> bytes | None:
        """Gives the answer, or raises what asking raised.

        Raises:
            TimeoutError: it did not come in time.
        """
        while not self._done.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._done.wait(min(0.2, left))  # a slice: a signal's handler runs between two waits
        if self._error is not None:
            raise self._error
        return self._value


def _word(record: SharedRecord) -> Word:
    """What a record says of its layer beside its name."""
    return record.content, record.tar_bytes
