"""Layers: published whole, once, and findable by what they are."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from img.oci import Descriptor, chain_id, sha256
from img.oci.descriptor import OCI_LAYER_GZIP
from img.store import CacheRecord, LayerRecord, Store

from .conftest import Start, diff_id_of, hear, make_folder, say, succeed

BASE, TOP = diff_id_of("base"), diff_id_of("top")


def publish(store: Store, name: str, folder: str = "", size: int = 0, **fields: Any) -> LayerRecord:
    return store.layers.publish(
        make_folder(store, folder or name, size),
        diff_id=diff_id_of(name),
        tar_bytes=512,
        trash=store.lease(),
        **fields,
    )


def test_a_published_layer_is_found_with_its_files(store: Store) -> None:
    record = publish(store, "base", size=7, content="blake3:1", snapshot="me")
    assert store.layers.find(BASE) == store.layers.all()[0]
    assert (record.path / "file").stat().st_size == 7
    assert (record.content, record.snapshot, record.tar_bytes) == ("blake3:1", "me", 512)
    assert store.layers.find(TOP) is None


def test_an_equal_layer_is_kept_once_and_the_earlier_one_stays(store: Store) -> None:
    earlier = publish(store, "base", "one")
    later = publish(store, "base", "two")
    assert (later.path, later.snapshot) == (earlier.path, earlier.snapshot)
    assert len(store.layers.all()) == 1
    assert not (store.lease().path / "two").exists()


def test_an_equal_layer_that_was_settled_stays_where_mounts_may_stand_on_it(store: Store) -> None:
    below = chain_id([BASE])
    earlier = publish(store, "top", "one", settled_on=below)
    inode = (earlier.path / "file").stat().st_ino
    later = publish(store, "top", "two", settled_on=below)
    assert later.path == earlier.path
    assert (later.path / "file").stat().st_ino == inode


def test_a_settled_layer_is_one_for_its_own_parents_only(store: Store) -> None:
    publish(store, "top", settled_on=chain_id([BASE]))
    assert store.layers.find(TOP, [BASE]) is not None
    assert store.layers.find(TOP) is None
    assert store.layers.find(TOP, [diff_id_of("other")]) is None


def test_a_layer_is_found_by_its_content_and_the_oldest_of_equals_is_the_one(store: Store) -> None:
    oldest = publish(store, "base", content="blake3:same")
    publish(store, "top", content="blake3:same")
    found = store.layers.by_content("blake3:same")
    assert found is not None and found.diff_id == oldest.diff_id
    assert store.layers.by_content("blake3:other") is None


def test_a_pulled_layer_learns_its_content_from_the_build_that_made_it_again(store: Store) -> None:
    assert publish(store, "base", "pulled").content == BASE
    assert publish(store, "base", "built", content="blake3:1").content == "blake3:1"
    assert store.layers.by_content("blake3:1") is not None


def test_a_layer_whose_folder_was_lost_is_forgotten_and_can_be_published_again(store: Store) -> None:
    record = publish(store, "base", "one")
    (record.path / "file").unlink()
    record.path.rmdir()
    assert store.layers.find(BASE) is None
    assert store.layers.all() == []
    assert (publish(store, "base", "two").path / "file").exists()


def test_a_folder_without_a_row_is_what_a_dead_process_left_and_gives_way(store: Store) -> None:
    orphan = store.root / "layers" / BASE.removeprefix("sha256:")
    orphan.mkdir()
    (orphan / "half").touch()
    record = publish(store, "base")
    assert record.path == orphan
    assert sorted(path.name for path in record.path.iterdir()) == ["file"]


def test_the_sources_of_a_blob_are_remembered_and_not_lost_to_an_unknown_one(store: Store) -> None:
    blob = Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(b"gz"), size=2)
    store.layers.remember_blob(BASE, blob, source="registry.example.org/app")
    store.layers.remember_blob(BASE, blob, source="")
    assert store.layers.blobs_of(BASE) == [(blob, "registry.example.org/app")]
    assert store.layers.sources_of(blob.digest) == ["registry.example.org/app"]


def test_a_record_is_found_under_its_key_and_a_later_one_replaces_it(store: Store) -> None:
    store.records.put(CacheRecord(key="k", inputs="{}", diff_id=BASE, content="c", tar_bytes=5, created="t"))
    assert store.records.find("k") == CacheRecord(
        key="k", inputs="{}", diff_id=BASE, content="c", tar_bytes=5, created="t"
    )
    store.records.put(CacheRecord(key="k", inputs="{}"))
    assert store.records.layers_in_use() == set()
    assert store.records.find("other") is None


def test_several_processes_that_publish_the_same_layer_all_get_the_one_that_is_kept(
    start: Start, root: Path
) -> None:
    code = """
with Store(root, mapping="x") as store:
    folder = make_folder(store, "mine", 1000)
    print("ready", flush=True)
    sys.stdin.readline()
    record = store.layers.publish(folder, diff_id=sys.argv[1], tar_bytes=1, trash=store.lease())
    assert (record.path / "file").stat().st_size == 1000
    print(record.snapshot, (record.path / "file").stat().st_ino, flush=True)
    sys.stdin.readline()
    assert (record.path / "file").stat().st_size == 1000
"""
    processes = [start(code, BASE) for _ in range(4)]
    assert [hear(process) for process in processes] == ["ready"] * 4
    for process in processes:
        say(process)
    assert len({hear(process) for process in processes}) == 1
    for process in processes:
        say(process)
        succeed(process)
    with Store(root, mapping="x") as store:
        assert len(store.layers.all()) == 1
        assert list((root / "work").iterdir()) == []


def test_kill_9_in_the_middle_of_publishing_leaves_a_sound_store(start: Start, root: Path) -> None:
    code = """
import hashlib
with Store(root, mapping="x") as store:
    print("ready", flush=True)
    for number in range(100000):
        folder = make_folder(store, f"f{number}", 4096)
        name = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
        store.layers.publish(folder, diff_id=name, tar_bytes=1, trash=store.lease())
        print(number, flush=True)
"""
    for turn in range(4):
        process = start(code)
        assert hear(process) == "ready"
        for _ in range(3 + 7 * turn):
            assert hear(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with Store(root, mapping="x") as store:
            rows = store.layers.all()
            assert len(rows) >= 3
            assert all((row.path / "file").stat().st_size == 4096 for row in rows)
            store.collector.prune(everything=True)
            assert list((root / "layers").iterdir()) == []
            assert list((root / "work").iterdir()) == []


def test_garbage_that_a_lease_takes_goes_when_it_ends(root: Path) -> None:
    with Store(root) as store:
        garbage = make_folder(store, "garbage", 5)
        store.lease().take(garbage)
        assert not garbage.exists()
        (kept,) = store.lease().path.iterdir()
        assert (kept / "file").stat().st_size == 5
    assert not kept.exists()


def test_what_was_found_is_used_since_it_was_counted_and_not_before(store: Store) -> None:
    for key in ("found", "other"):
        store.records.put(CacheRecord(key=key, inputs="{}"))
    assert store.records.find("found") is not None
    since = time.time()
    store.records.count_uses()
    store.records.count_uses()  # nothing is left to be counted
    assert store.records.drop(unused_since=since) == 1
    assert (store.records.has("found"), store.records.has("other")) == (True, False)
