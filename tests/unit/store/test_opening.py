"""Opening a store: by many at once, of another version, under another mapping, broken."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from img.errors import StoreError, StoreVersionError
from img.oci import Reference
from img.store import CacheRecord, Store
from img.store.database import VERSION, Database

from .conftest import Start, hear, image_of, make_folder, say, succeed


def test_a_new_store_is_a_valid_empty_oci_layout(store: Store) -> None:
    layout = json.loads((store.root / "oci" / "oci-layout").read_bytes())
    index = json.loads((store.root / "oci" / "index.json").read_bytes())
    assert layout == {"imageLayoutVersion": "1.0.0"}
    assert index == {"schemaVersion": 2, "manifests": []}


def test_many_processes_may_create_one_store_and_none_loses_its_name(start: Start, root: Path) -> None:
    code = """
print("ready", flush=True)
sys.stdin.readline()
with Store(root, mapping="root") as store:
    from img.oci import Reference
    store.names.put(image_of(store, "layer " + sys.argv[1]), Reference.parse("app" + sys.argv[1]))
"""
    processes = [start(code, str(number)) for number in range(6)]
    assert [hear(process) for process in processes] == ["ready"] * 6
    for process in processes:
        say(process)
    for process in processes:
        succeed(process)
    names = {f"docker.io/library/app{number}:latest" for number in range(6)}
    with Store(root, mapping="root") as store:
        assert {name for name, _ in store.images()} == names
    index = json.loads((root / "oci" / "index.json").read_bytes())
    assert {m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]} == names


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(root: Path) -> None:
    Store(root).close()
    database = sqlite3.connect(root / "img.db")
    database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    said = f"has format {VERSION + 1}; this img knows format {VERSION}"
    with pytest.raises(StoreVersionError, match=said) as caught:
        Store(root)
    assert "--state" in caught.value.hint
    database = sqlite3.connect(root / "img.db")
    assert database.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    database.close()


def test_layers_written_under_another_mapping_are_refused(root: Path) -> None:
    with Store(root, mapping="0:1000:1,1:100000:65536") as store:
        store.layers.publish(
            make_folder(store, "a"), diff_id="sha256:" + "a" * 64, tar_bytes=1, trash=store.lease()
        )
    with pytest.raises(StoreVersionError, match="mapping"):
        Store(root, mapping="root")
    Store(root, mapping="0:1000:1,1:100000:65536").close()
    Store(root).close()


def test_a_store_without_layers_takes_any_mapping(root: Path) -> None:
    Store(root, mapping="one").close()
    Store(root, mapping="other").close()


@pytest.mark.parametrize("content", [b"this is no database, but long enough to be read as one" * 40])
def test_a_broken_database_file_is_said_in_the_stores_own_words(root: Path, content: bytes) -> None:
    Store(root).close()
    (root / "img.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"img\.db cannot be used: file is not a database") as caught:
        Store(root)
    assert "--state" in caught.value.hint


def test_a_database_that_breaks_off_is_said_when_it_is_used(root: Path) -> None:
    with Store(root) as store:
        for number in range(40):
            store.names.put(image_of(store, str(number)), Reference.parse(f"app{number}"))
    os.truncate(root / "img.db", 8192)
    with pytest.raises(StoreError, match=r"img\.db cannot be used"), Store(root) as store:
        store.names.all()


def test_a_folder_in_place_of_the_database_is_said(root: Path) -> None:
    (root / "img.db").mkdir(parents=True)
    with pytest.raises(StoreError, match="unable to open database file"):
        Store(root)


def test_a_file_in_place_of_the_store_is_said(root: Path) -> None:
    root.write_text("")
    with pytest.raises(StoreError, match=r"cannot use .* as a store"):
        Store(root)


def test_what_a_failed_transaction_changed_is_undone_and_the_next_one_works(store: Store) -> None:
    database = store.collector.database
    image = image_of(store, "a")

    def fail() -> None:
        with database.transaction():
            database.change("INSERT INTO images VALUES ('x', ?, ?, 0, '')", (image.digest, image.id))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.names.all() == []
    store.names.put(image, Reference.parse("app"))
    assert len(store.names.all()) == 1


def test_a_transaction_that_sqlite_undid_by_itself_reports_its_first_error(store: Store) -> None:
    database = store.collector.database

    def fail() -> None:
        with database.transaction():
            database.change("ROLLBACK")  # as SQLite does where the disk is full
            raise RuntimeError("the first")

    with pytest.raises(RuntimeError, match="the first"):
        fail()
    with database.transaction():
        database.change("INSERT INTO meta VALUES ('a', 'b')")
    assert database.rows("SELECT value FROM meta WHERE key='a'") == [("b",)]


_FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    name TEXT PRIMARY KEY, manifest TEXT NOT NULL, config TEXT NOT NULL, updated REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE layers (
    diff_id TEXT NOT NULL, parents TEXT NOT NULL, dir TEXT NOT NULL, snapshot TEXT NOT NULL,
    content TEXT NOT NULL, tar_bytes INTEGER NOT NULL, clamp INTEGER, created REAL NOT NULL,
    used REAL NOT NULL, PRIMARY KEY (diff_id, parents)
) WITHOUT ROWID;
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    source TEXT NOT NULL, PRIMARY KEY (diff_id, digest)
) WITHOUT ROWID;
CREATE TABLE records (
    key TEXT PRIMARY KEY, inputs TEXT NOT NULL, diff_id TEXT NOT NULL, content TEXT NOT NULL,
    tar_bytes INTEGER NOT NULL, created TEXT NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO records VALUES ('k', '{}', 'sha256:aa', 'blake3:bb', 7, '2026-01-01T00:00:00Z', 1e12);
PRAGMA user_version=1;
"""


def test_a_store_of_an_older_format_is_migrated_with_what_it_holds(root: Path) -> None:
    Store(root).close()
    for path in root.glob("img.db*"):
        path.unlink()
    database = sqlite3.connect(root / "img.db")
    database.executescript(_FORMAT_1)
    database.close()
    with Store(root) as store:
        record = store.records.find("k")
        store.names.put(image_of(store, "a"), Reference.parse("app"))
    assert record == CacheRecord(
        key="k", inputs="{}", diff_id="sha256:aa", content="blake3:bb", tar_bytes=7,
        created="2026-01-01T00:00:00Z",
    )  # fmt: skip
    with Store(root) as store:
        assert [row.name for row in store.names.all()] == ["docker.io/library/app:latest"]


def test_what_a_deletion_follows_is_on_the_disk_and_the_rest_is_not_waited_for(root: Path) -> None:
    root.mkdir()
    database = Database(root / "img.db")
    with database.lasting():
        assert database.rows("PRAGMA synchronous") == [(2,)], "full"
        assert database.in_transaction
        database.change("INSERT INTO meta VALUES ('a', 'b')")
    assert database.rows("PRAGMA synchronous") == [(1,)] and not database.in_transaction, "normal"
    with pytest.raises(StoreError), database.lasting():
        database.change("DELETE FROM meta WHERE nonsense")
    assert database.rows("SELECT value FROM meta WHERE key='a'") == [("b",)]
    assert database.rows("PRAGMA synchronous") == [(1,)]
    database.close()
