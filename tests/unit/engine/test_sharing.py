"""What goes on beside a build: layers leave while it runs, and nobody is waited for without end."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from img import _core
from img.builder import SharedLost
from img.builder.key import CacheKey
from img.cache import CacheIndex, Reach, SharedRecord, Sink, open_backend, parse_spec
from img.cache.index import MEDIA_TYPE
from img.cache.manifest import manifest_of
from img.engine.background import Background
from img.engine.exports import Export, Exports
from img.engine.imports import Import, Imports
from img.errors import CacheError, DiskFull
from img.oci import Descriptor, sha256
from img.oci.descriptor import OCI_LAYER_GZIP
from img.progress import Event, Note
from img.registry import Options, Registry
from img.store import CacheRecord, Store

from tests.suites.registry.servers import FaultyRegistry, stall

KEY = CacheKey.make("run", args=["true"])
DEADLINE = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def progress(notes: list[str]) -> Callable[[Event], None]:
    def take(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    return take


class Memory:
    """A storage in memory that can be made to wait, or to fail."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.document: bytes | None = None
        self.came = threading.Event()
        self.stopped = threading.Event()
        self.waits = False
        self.interrupts = 0
        self.fills_the_disk = False
        self.refuses = ""

    def read(self) -> bytes | None:
        return self.document

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        self.document = document

    def has(self, blob: Descriptor) -> bool:
        return blob.digest in self.blobs

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        if self.refuses:
            raise CacheError("memory", self.refuses)
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt  # as every call into the extension then does
        with open_blob() as file:
            self.blobs[blob.digest] = file.read()
        self.came.set()
        if self.waits:
            self.stopped.wait(DEADLINE)
            raise CacheError("memory", "it was stopped")

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        if self.fills_the_disk:
            raise DiskFull("a layer")
        sink.write(self.blobs[blob.digest])

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        pass


def record_of(store: Store, text: str) -> CacheRecord:
    """A step that wrote one file, its layer in the store."""
    folder = store.lease().folder(f"layer-{sha256(text.encode())[-8:]}")
    (folder / "file").write_text(text)
    packed = _core.pack_layer(str(folder))
    layer = store.layers.publish(
        folder,
        diff_id=packed.diff_id,
        tar_bytes=packed.uncompressed_size,
        content=packed.content_digest,
        trash=store.lease(),
    )
    return CacheRecord(
        key=KEY.digest,
        inputs=KEY.text,
        diff_id=layer.diff_id,
        content=layer.content,
        tar_bytes=layer.tar_bytes,
        created="2026-01-02T03:04:05Z",
    )


def export(backend: Memory, text: str = "type=local,dest=memory,mode=max") -> Export:
    return Export(spec=parse_spec(text, "to"), backend=backend)


def offer(exports: Exports, record: CacheRecord) -> None:
    exports.offer([KEY], record, "RUN true", on_chain=True, here=True)


def test_a_layer_leaves_before_the_build_ends(store: Store, progress: Callable[[Event], None]) -> None:
    storage = Memory()
    exports = Exports(store, [export(storage)], progress)
    offer(exports, record_of(store, "a"))
    assert storage.came.wait(DEADLINE)
    assert storage.document is None
    exports.finish(Imports(store, [], progress), failed=False)
    index = CacheIndex.from_bytes(storage.document or b"")
    assert index is not None
    assert [blob.digest for blob in index.blobs] == list(storage.blobs)


def test_a_cache_that_refuses_keeps_no_other_from_being_written(
    store: Store, progress: Callable[[Event], None]
) -> None:
    good, bad = Memory(), Memory()
    bad.refuses = "there is no room"
    exports = Exports(store, [export(bad), export(good)], progress)
    offer(exports, record_of(store, "a"))
    with pytest.raises(CacheError, match="no room"):
        exports.finish(Imports(store, [], progress), failed=False)
    assert good.document is not None
    assert bad.document is None


def test_what_a_failing_step_ended_in_the_extension_is_done_again(
    store: Store, progress: Callable[[Event], None]
) -> None:
    """The builder stops all work of the extension, whoever it is for, and then takes that back."""
    storage = Memory()
    exports = Exports(store, [export(storage)], progress)
    record = record_of(store, "a")
    storage.interrupts = 1
    offer(exports, record)
    exports.drain()
    assert not storage.blobs
    exports.finish(Imports(store, [], progress), failed=True)
    assert len(storage.blobs) == 1


def test_an_interrupt_ends_an_upload_that_hangs(store: Store, progress: Callable[[Event], None]) -> None:
    storage = Memory()
    storage.waits = True
    exports = Exports(store, [export(storage)], progress)
    offer(exports, record_of(store, "a"))
    assert storage.came.wait(DEADLINE)
    exports.stop()
    exports.drain()
    assert storage.stopped.is_set()


def test_work_in_the_background_is_done_by_so_many_threads_at_the_most() -> None:
    background, gate = Background(2), threading.Event()
    names: set[str] = set()
    both = threading.Barrier(2)

    def task() -> None:
        names.add(threading.current_thread().name)
        if not gate.is_set():
            both.wait(DEADLINE)
            gate.set()

    for _ in range(6):
        background.add(task)
    background.drain()
    background.stop()
    assert len(names) == 2


# ---- what is asked -----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    with FaultyRegistry() as running:
        yield running


def offered(server: FaultyRegistry, store: Store, folder: Path) -> tuple[SharedRecord, Descriptor]:
    """Has a registry offer a cache of one layer; gives its record and the document's descriptor."""
    record = record_of(store, "a")
    packed = _core.pack_blob(
        str(store.layers.find(record.diff_id).path),  # type: ignore[union-attr]
        str(folder / "blob"),
        compression="gzip",
    )
    data = (folder / "blob").read_bytes()
    blob = Descriptor(media_type=OCI_LAYER_GZIP, digest=packed.digest, size=len(data))
    shared = SharedRecord(
        key=KEY.digest,
        diff_id=record.diff_id,
        content=record.content,
        tar_bytes=record.tar_bytes,
        created=record.created,
        layer=blob,
    )
    raw = CacheIndex(records=(shared,)).to_bytes()
    config = Descriptor(media_type=MEDIA_TYPE, digest=sha256(raw), size=len(raw))
    manifest, _ = manifest_of(config, [blob])
    server.add(manifest, {blob.digest: data, config.digest: raw}, tag="latest")
    return shared, config


@contextlib.contextmanager
def imports(
    server: FaultyRegistry,
    store: Store,
    progress: Callable[[Event], None],
    *,
    patience: float = 30,
    silence: float = 30,
) -> Iterator[Imports]:
    options = Options(attempts=2, read_seconds=silence, backoff_seconds=0.001)
    with Registry(keychain=None, options=options) as client:
        spec = parse_spec(f"{server.host}/cache", "from")
        backend = open_backend(spec, Reach(registry=lambda: client))
        yield Imports(store, [Import(spec=spec, backend=backend)], progress, patience=patience)


def test_a_layer_is_fetched_when_it_is_needed(
    server: FaultyRegistry, store: Store, tmp_path: Path, progress: Callable[[Event], None]
) -> None:
    shared, _ = offered(server, store, tmp_path)
    with Store(tmp_path / "other") as other, imports(server, other, progress) as asked:
        assert asked.find(KEY.digest) == shared
        assert not asked.sound([shared.diff_id])
        assert other.layers.find(shared.diff_id) is None
        asked.bring([shared.diff_id])
        assert asked.sound([shared.diff_id])
        found = other.layers.find(shared.diff_id)
        assert found is not None
        assert found.content == shared.content


def test_a_document_that_does_not_come_is_waited_for_no_longer_than_the_patience_lasts(
    server: FaultyRegistry,
    store: Store,
    tmp_path: Path,
    progress: Callable[[Event], None],
    notes: list[str],
) -> None:
    offered(server, store, tmp_path)
    started, let_go = threading.Event(), threading.Event()
    server.blobs["latest"] = b"x" * 100
    server.fail("latest", stall(10, started, let_go))
    with imports(server, store, progress, patience=0.2) as asked:
        assert asked.find(KEY.digest) is None
        let_go.set()
    assert any("no answer within 0.2 seconds" in note for note in notes)


def test_a_blob_that_stalls_is_given_up(
    server: FaultyRegistry,
    store: Store,
    tmp_path: Path,
    progress: Callable[[Event], None],
    notes: list[str],
) -> None:
    shared, _ = offered(server, store, tmp_path)
    assert shared.layer is not None
    started, let_go = threading.Event(), threading.Event()
    server.fail(shared.layer.digest, *[stall(10, started, let_go)] * 5)
    with Store(tmp_path / "other") as other, imports(server, other, progress, silence=1) as asked:
        asked.find(KEY.digest)
        with pytest.raises(SharedLost):
            asked.bring([shared.diff_id])
        let_go.set()
        asked.begin_again()
        assert asked.find(KEY.digest) is None
    assert any("silent for 1" in note for note in notes)


def test_a_layer_that_fills_the_disk_is_its_caches_failure(
    store: Store, tmp_path: Path, progress: Callable[[Event], None], notes: list[str]
) -> None:
    storage = Memory()
    exports = Exports(store, [export(storage)], progress)
    record = record_of(store, "a")
    offer(exports, record)
    exports.finish(Imports(store, [], progress), failed=False)
    storage.fills_the_disk = True
    spec = parse_spec("type=local,src=memory", "from")
    with Store(tmp_path / "other") as other:
        asked = Imports(other, [Import(spec=spec, backend=storage)], progress)
        assert asked.find(KEY.digest) is not None
        with pytest.raises(SharedLost):
            asked.bring([record.diff_id])
        assert other.layers.find(record.diff_id) is None
    assert any("left out" in note and "no space left" in note for note in notes)


def test_many_threads_bring_a_layer_once(
    server: FaultyRegistry, store: Store, tmp_path: Path, progress: Callable[[Event], None]
) -> None:
    shared, _ = offered(server, store, tmp_path)
    assert shared.layer is not None
    with Store(tmp_path / "other") as other, imports(server, other, progress) as asked:
        asked.find(KEY.digest)
        threads = [threading.Thread(target=asked.bring, args=([shared.diff_id],)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert asked.sound([shared.diff_id])
    assert len(server.seen("GET", shared.layer.digest)) == 1


def test_a_cache_is_read_once_whoever_asks(
    server: FaultyRegistry, store: Store, tmp_path: Path, progress: Callable[[Event], None]
) -> None:
    _, config = offered(server, store, tmp_path)
    with imports(server, store, progress) as asked:
        threads = [threading.Thread(target=asked.find, args=("0" * 64,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.seen("GET", "latest")) == 1
    assert len(server.seen("GET", config.digest)) == 1


def test_the_mounts_of_a_document_come_as_far_as_they_are_wanted(
    store: Store, progress: Callable[[Event], None]
) -> None:
    storage = Memory()
    chunk = Descriptor(media_type="application/octet-stream", digest=sha256(b"chunk"), size=5)
    storage.blobs[chunk.digest] = b"chunk"
    mounts = [{"id": name, "key": name, "chunks": [chunk.to_json()]} for name in ("pip", "npm")]
    storage.document = json.dumps({"version": 1, "records": [], "mounts": mounts}).encode()
    spec = parse_spec("type=local,src=memory,mounts=pip", "from")
    asked = Imports(store, [Import(spec=spec, backend=storage)], progress)
    assert [mount.id for mount in asked.mounts()] == ["pip"]
    assert asked.fetch_chunk(chunk, store.blobs.sink)
    assert store.blobs.read(chunk.digest) == b"chunk"
    storage.blobs[chunk.digest] = b"other"
    store.blobs.remove(chunk.digest)
    assert not asked.fetch_chunk(chunk, store.blobs.sink)
    assert asked.mounts() == ()
