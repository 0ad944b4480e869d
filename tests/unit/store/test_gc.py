"""Collection: frees what nothing needs, says truly how much, and touches nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from img.oci import Reference, chain_id
from img.store import CacheRecord, Store

from .conftest import Start, diff_id_of, hear, image_of, say, succeed
from .test_layers import publish

MIB = 1 << 20


def on_disk(root: Path) -> int:
    """Bytes of disk below a folder, as du counts them; the database aside."""
    command = ["du", "-s", "--block-size=512", "--exclude=img.db*", str(root)]
    return int(subprocess.check_output(command, text=True).split()[0]) * 512


def prune(store: Store, **options: Any) -> tuple[int, set[str]]:
    """Collects as the engine does: without a lease of its own. Gives bytes, and diff IDs of layers."""
    store.release_lease()
    pruned = store.collector.prune(**options)
    return pruned.freed_bytes, {record.diff_id for record in pruned.layers}


def test_what_it_says_it_freed_is_what_the_disk_got_back(store: Store) -> None:
    publish(store, "unneeded", size=3 * MIB)
    store.blobs.put(b"\1" * MIB)
    abandoned = store.root / "work" / ("0" * 16)
    abandoned.mkdir()
    (abandoned / "half").write_bytes(b"\1" * MIB)
    half = store.root / "oci" / "blobs" / "sha256" / ".half.0"
    half.write_bytes(b"\1" * MIB)
    os.utime(half, (1, 1))
    store.release_lease()
    before = on_disk(store.root)
    freed, gone = prune(store, everything=True)
    assert gone == {diff_id_of("unneeded")}
    assert freed >= 6 * MIB
    assert abs(before - on_disk(store.root) - freed) <= 16 << 10  # folders' own blocks


def test_what_a_named_image_needs_is_never_touched(store: Store) -> None:
    image = image_of(store, "base", "top")
    store.names.put(image, Reference.parse("app"))
    publish(store, "base")
    publish(store, "top", settled_on=chain_id([diff_id_of("base")]))
    publish(store, "top", "elsewhere", settled_on=chain_id([diff_id_of("other")]))
    store.blobs.put(b"unneeded")
    _, gone = prune(store, everything=True)
    assert gone == {diff_id_of("top")}  # the one that was settled on another base
    assert store.names.get("app") == image
    for position, layer in enumerate(image.layers):
        assert store.blobs.has(layer.digest)
        assert store.layers.find(layer.diff_id, image.config.diff_ids[:position]) is not None
    assert len(list(store.blobs.all())) == 4


def test_the_cache_policy_keeps_what_was_used_lately_and_everything_takes_it_too(store: Store) -> None:
    publish(store, "step")
    store.records.put(CacheRecord(key="k", inputs="{}", diff_id=diff_id_of("step")))
    assert prune(store) == (0, set())
    assert store.records.find("k") is not None
    _, gone = prune(store, everything=True)
    assert gone == {diff_id_of("step")}
    assert store.records.find("k") is None


def test_a_record_that_nobody_used_for_long_goes_with_its_layer(store: Store) -> None:
    publish(store, "step")
    store.records.put(CacheRecord(key="k", inputs="{}", diff_id=diff_id_of("step")))
    store.release_lease()
    store.collector.prune(keep_seconds=0)
    assert store.records.find("k") is None
    assert store.layers.all() == []


def test_an_image_without_a_name_goes_unless_it_is_to_stay(store: Store) -> None:
    store.names.put(image_of(store, "a"), None)
    prune(store, unnamed=False)
    assert len(store.names.all()) == 1
    prune(store)
    assert store.names.all() == []
    assert list(store.blobs.all()) == []


def test_what_a_living_process_may_be_using_stays_until_it_ends(start: Start, store: Store) -> None:
    user = start("""
store = Store(root)
store.lease()
print("begun", flush=True)
sys.stdin.readline()
print(store.layers.find(sys.argv[1]).path, store.blobs.has(sys.argv[2]), flush=True)
sys.stdin.readline()
""", diff_id_of("used"), store.blobs.put(b"used"))  # fmt: skip
    publish(store, "used")
    publish(store, "unused")
    unused = store.blobs.put(b"unused")
    os.utime(store.blobs.path(unused), (1, 1))
    database = store.collector.database
    database.change("UPDATE layers SET used=1")
    assert hear(user) == "begun"
    say(user)
    path, has = hear(user).split()
    assert has == "True"
    _, gone = prune(store, everything=True)
    assert gone == {diff_id_of("unused")}
    assert Path(path).is_dir()
    assert not store.blobs.path(unused).exists()
    os.kill(user.pid, signal.SIGKILL)
    user.wait()
    _, gone = prune(store, everything=True)
    assert gone == {diff_id_of("used")}


def test_processes_that_work_beside_sweeps_never_lose_their_folders(start: Start, root: Path) -> None:
    Store(root).close()
    worker = """
print("ready", flush=True)
sys.stdin.readline()
area = Store(root).work
for turn in range(150):
    with area.begin() as work:
        (work.path / "file").write_text("x")
        assert (work.path / "file").read_text() == "x"
        assert work.path in area.live()
"""
    sweeper = """
print("ready", flush=True)
sys.stdin.readline()
store = Store(root)
for turn in range(400):
    store.work.sweep()
"""
    processes = [start(worker), start(worker), start(sweeper)]
    assert [hear(process) for process in processes] == ["ready"] * 3
    for process in processes:
        say(process)
    for process in processes:
        succeed(process)
    assert list((root / "work").iterdir()) == []


def test_a_sweep_takes_what_the_dead_left_and_nothing_of_the_living(start: Start, store: Store) -> None:
    code = """
work = Store(root).work.begin()
(work.path / "file").write_bytes(b"x" * 100000)
print(work.path, flush=True)
sys.stdin.readline()
"""
    living, dead = start(code), start(code)
    alive, left = Path(hear(living)), Path(hear(dead))
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    assert store.work.live() == [alive]
    assert store.work.sweep() >= 100_000
    assert (alive / "file").exists()
    assert not left.exists()
    assert not left.with_suffix(".lock").exists()


def test_the_oldest_lease_is_that_of_the_longest_living_process(start: Start, store: Store) -> None:
    before = time.time()
    assert store.work.oldest_lease() >= before
    other = start('Store(root).lease(); print("begun", flush=True); sys.stdin.readline()')
    assert hear(other) == "begun"
    since = store.work.oldest_lease()
    with store.work.begin():
        assert store.work.oldest_lease() == since
    assert before - 1 < since < time.time()
