"""What a power cut leaves: what was published last is looked at once, under the next boot, and not before."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from img import _core
from img.oci import Descriptor, Reference, sha256
from img.oci.descriptor import OCI_LAYER
from img.progress import Event, Note
from img.store import LayerRecord, Store

from .conftest import Start, hear, image_of, say, succeed

LARGE = b"x" * (5 << 20)
"""Larger than any document of an image: looked at when it is asked for."""

WRITTEN = 1_700_000_000
"""When every file of a layer was written, seconds since 1970: a layer's digest has the second in it."""

Open = Callable[[], Store]


@pytest.fixture
def said() -> list[str]:
    """What the store warned of."""
    return []


@pytest.fixture
def reopen(root: Path, said: list[str]) -> Iterator[Open]:
    """Opens the store as a process of the present boot does that may read layers."""
    opened: list[Store] = []

    def tell(event: Event) -> None:
        if isinstance(event, Note) and event.level == "warning":
            said.append(event.text)

    def begin() -> Store:
        opened.append(Store(root, mapping="root", progress=tell))
        return opened[-1]

    yield begin
    for store in opened:
        store.close()


def another_boot(root: Path) -> None:
    """Makes the store one that was last used before the machine went down."""
    with sqlite3.connect(root / "img.db") as database:
        assert database.execute("UPDATE meta SET value='another sound' WHERE key='boot'").rowcount == 1
    database.close()


def doubts(root: Path) -> list[str]:
    """What is written down as doubtful."""
    database = sqlite3.connect(root / "img.db")
    rows = database.execute("SELECT key FROM meta WHERE key LIKE 'doubt %'").fetchall()
    database.close()
    return [key.removeprefix("doubt ") for (key,) in rows]


def age(root: Path, seconds: float) -> None:
    """Makes the published layers, and the blobs, this much older; signs of life stay."""
    with sqlite3.connect(root / "img.db") as database:
        database.execute("UPDATE layers SET created=created-?", (seconds,))
    database.close()
    for path in (root / "oci" / "blobs" / "sha256").iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def layer(store: Store, word: str, *, pulled: bool = False) -> LayerRecord:
    """Publishes a layer with one file, as a build does, or as a pull; the same word gives the same layer."""
    folder = store.lease().folder(f"making-{word}")
    (folder / "file").write_text(word * 1000)
    os.utime(folder / "file", (WRITTEN, WRITTEN))
    packed = _core.pack_layer(str(folder))
    return store.layers.publish(
        folder,
        diff_id=packed.diff_id,
        tar_bytes=packed.uncompressed_size,
        content="" if pulled else packed.content_digest,
        snapshot=packed.diff_id if pulled else "",
        trash=store.lease(),
    )


def empty_files(folder: Path) -> None:
    """Leaves a folder's files as a file system does that had not written them yet."""
    for path in folder.rglob("*"):
        if path.is_file():
            times = path.stat()
            os.truncate(path, 0)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_under_the_same_boot_nothing_is_in_doubt(reopen: Open, root: Path, said: list[str]) -> None:
    record = layer(reopen(), "a")
    empty_files(record.path)
    again = reopen()
    assert again.layers.find(record.diff_id) is not None
    assert (doubts(root), said) == ([], [])


def test_a_damaged_layer_is_dropped_and_a_sound_one_is_kept(
    reopen: Open, root: Path, said: list[str]
) -> None:
    with reopen() as store:
        broken, sound = layer(store, "a"), layer(store, "b")
    empty_files(broken.path)
    another_boot(root)
    store = reopen()
    assert len(doubts(root)) == 2
    assert store.layers.find(sound.diff_id) is not None
    assert store.layers.find(broken.diff_id) is None
    assert [record.diff_id for record in store.layers.all()] == [sound.diff_id]
    assert doubts(root) == []
    assert [broken.diff_id in text for text in said] == [True]
    assert store.layers.find(layer(store, "a").diff_id) is not None


def test_a_layer_whose_times_were_lost_is_damaged_too(reopen: Open, root: Path) -> None:
    with reopen() as store:
        record = layer(store, "a")
    os.utime(record.path / "file", (5, 5))
    another_boot(root)
    assert reopen().layers.find(record.diff_id) is None


def test_nothing_is_looked_at_twice(reopen: Open, root: Path, said: list[str]) -> None:
    with reopen() as store:
        record = layer(store, "a")
        digest = store.blobs.put(LARGE)
    another_boot(root)
    with reopen() as store:
        assert store.layers.find(record.diff_id) is not None
        assert store.blobs.has(digest)
    # From here on a look would find damage.
    empty_files(record.path)
    os.truncate(store.blobs.path(digest), 0)
    again = reopen()
    assert again.layers.find(record.diff_id) is not None
    assert again.blobs.has(digest)
    assert said == []


def test_what_nobody_asked_for_stays_in_doubt_over_another_boot(reopen: Open, root: Path) -> None:
    with reopen() as store:
        record = layer(store, "a")
    for _ in range(2):
        another_boot(root)
        reopen().close()
        layer(reopen(), "later")
        age(root, 3600)
    empty_files(record.path)
    assert reopen().layers.find(record.diff_id) is None


def test_what_is_older_than_the_last_minutes_is_trusted(reopen: Open, root: Path) -> None:
    with reopen() as store:
        old, digest = layer(store, "old"), store.blobs.put(LARGE)
    age(root, 121)
    with reopen() as store:
        new = layer(store, "new")
    another_boot(root)
    reopen()
    assert doubts(root) == [f"layer {new.diff_id} "]
    assert reopen().layers.find(old.diff_id) is not None
    assert reopen().blobs.has(digest)


def test_a_large_blob_is_looked_at_when_it_is_asked_for(reopen: Open, root: Path, said: list[str]) -> None:
    with reopen() as store:
        broken, sound = store.blobs.put(LARGE), store.blobs.put(LARGE + b"y")
    os.truncate(store.blobs.path(broken), 0)
    os.truncate(
        store.blobs.path(broken), len(LARGE)
    )  # as XFS and ext4 may leave it: zeros of the right length
    another_boot(root)
    store = reopen()
    assert not store.blobs.has(broken)
    with store.blobs.open(sound) as file:
        assert file.read() == LARGE + b"y"
    assert [broken in text for text in said] == [True]
    assert store.blobs.put(LARGE) == broken and store.blobs.has(broken)


def test_an_image_whose_document_is_lost_loses_its_name_and_others_keep_theirs(
    reopen: Open, root: Path, said: list[str]
) -> None:
    with reopen() as store:
        lost, kept = image_of(store, "a", label="lost"), image_of(store, "a", label="kept")
        store.names.put(lost, Reference.parse("lost"))
        store.names.put(kept, Reference.parse("kept"))
    os.truncate(store.blobs.path(lost.id), 0)
    another_boot(root)
    store = reopen()
    assert [name for name, _ in store.images()] == ["docker.io/library/kept:latest"]
    assert any("docker.io/library/lost:latest" in text for text in said)
    index = (root / "oci" / "index.json").read_text()
    assert "kept" in index and "lost" not in index
    assert doubts(root) == []


def test_a_process_that_reads_no_layers_leaves_them_to_one_that_does(reopen: Open, root: Path) -> None:
    with reopen() as store:
        record = layer(store, "a")
    empty_files(record.path)
    another_boot(root)
    with Store(root) as names_only:
        assert names_only.layers.find(record.diff_id) is not None
    assert reopen().layers.find(record.diff_id) is None


def test_a_pulled_layer_is_extracted_anew_where_its_blob_is_here(
    reopen: Open, root: Path, said: list[str]
) -> None:
    with reopen() as store:
        record = layer(store, "a", pulled=True)
        blob = store.blobs.put(LARGE)
        descriptor = Descriptor(media_type=OCI_LAYER, digest=blob, size=len(LARGE))
        store.layers.remember_blob(record.diff_id, descriptor, source="")
    another_boot(root)
    assert reopen().layers.find(record.diff_id) is None
    assert said == []


def test_a_pulled_layer_without_a_blob_is_judged_by_its_content(reopen: Open, root: Path) -> None:
    for damaged in (False, True):
        with reopen() as store:
            record = layer(store, "a", pulled=True)
            assert layer(store, "a").content.startswith("blake3:")  # a build made it again
        if damaged:
            empty_files(record.path)
        another_boot(root)
        assert (reopen().layers.find(record.diff_id) is None) == damaged


def test_a_doubtful_layer_gives_way_to_one_that_was_just_made(reopen: Open, root: Path) -> None:
    with reopen() as store:
        record = layer(store, "a")
    empty_files(record.path)
    another_boot(root)
    store = reopen()
    assert (layer(store, "a").path / "file").read_text() == "a" * 1000
    assert doubts(root) == []


def test_a_layer_that_was_pruned_leaves_no_doubt(reopen: Open, root: Path) -> None:
    with reopen() as store:
        record = layer(store, "a")
    another_boot(root)
    with reopen() as store:
        store.collector.prune(everything=True)
    assert not record.path.exists()
    assert doubts(root) == []


def test_a_store_from_before_boots_were_noted_is_looked_at_once(reopen: Open, root: Path) -> None:
    with reopen() as store:
        record = layer(store, "a")
    with sqlite3.connect(root / "img.db") as database:
        database.execute("DELETE FROM meta WHERE key='boot'")
    database.close()
    empty_files(record.path)
    assert reopen().layers.find(record.diff_id) is None


def test_entries_of_the_web_that_were_used_last_are_fetched_again(reopen: Open, root: Path) -> None:
    with reopen() as store:
        with store.remotes.entry("http", "old") as old, store.remotes.entry("http", "new") as new:
            (old / "data").touch()
            (new / "data").touch()
        layer(store, "a")
    os.utime(old.with_suffix(".lock"), (1, 1))
    another_boot(root)
    reopen()
    assert (old / "data").exists()
    assert not new.exists()


def test_of_several_processes_one_looks_and_all_agree(root: Path, start: Start) -> None:
    with Store(root, mapping="root") as store:
        broken, sound = layer(store, "a"), layer(store, "b")
    empty_files(broken.path)
    another_boot(root)
    code = """
print("ready", flush=True)
sys.stdin.readline()
said = []
with Store(root, mapping="root", progress=said.append) as store:
    broken, sound = (store.layers.find(diff_id) for diff_id in sys.argv[1:])
print(broken is None, sound is not None, len(said))
"""
    processes = [start(code, broken.diff_id, sound.diff_id) for _ in range(5)]
    assert [hear(process) for process in processes] == ["ready"] * 5
    for process in processes:
        say(process)
    answers = [succeed(process).split() for process in processes]
    assert [answer[:2] for answer in answers] == [["True", "True"]] * 5
    assert sum(int(answer[2]) for answer in answers) == 1
    assert doubts(root) == []


def test_the_digest_of_a_blob_is_what_decides(reopen: Open, root: Path) -> None:
    with reopen() as store:
        digest = store.blobs.put(LARGE)
    store.blobs.path(digest).write_bytes(b"y" + LARGE[1:])
    assert sha256(store.blobs.path(digest).read_bytes()) != digest
    another_boot(root)
    assert not reopen().blobs.has(digest)
