"""What a check of a store finds, and that a repair takes it away so that it comes again."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from img import _core
from img.errors import StoreError
from img.oci import Index, Reference
from img.store import Store
from img.store.check import StoreReport

from .conftest import image_of

NAME = Reference.parse("app:1")


@pytest.fixture
def built(root: Path) -> str:
    """A store with an image, and a layer that was built; the layer's diff ID."""
    with Store(root, mapping="the tests'") as store:
        store.names.put(image_of(store, "one", "two"), NAME)
        with store.work.begin() as work:
            folder = work.folder("upper")
            (folder / "file").write_bytes(b"\1" * 100)
            packed = _core.pack_layer(str(folder))
            store.layers.publish(
                folder, diff_id=packed.diff_id, tar_bytes=100, content=packed.content_digest, trash=work
            )
    return packed.diff_id


def look(root: Path, *, quick: bool = False, repair: bool = False) -> StoreReport:
    with Store(root, mapping="the tests'") as store:
        return store.checker(quick=quick, repair=repair).run()


def kinds(report: StoreReport) -> list[str]:
    return [defect.kind for defect in report.defects]


def test_a_sound_store_is_told_so(root: Path, built: str) -> None:
    report = look(root)
    assert report.sound and not report.defects
    assert (report.images, report.blobs, report.layers) == (1, 4, 1)
    assert report.bytes > 100


def test_a_blob_that_rotted_is_found_and_taken_away(root: Path, built: str) -> None:
    blob = next(p for p in (root / "oci/blobs/sha256").iterdir() if p.read_bytes() == b"one")
    blob.write_bytes(b"0ne")
    report = look(root)
    assert kinds(report) == ["blob"] and not report.sound and "--repair" in report.defects[0].remedy
    assert blob.exists()
    assert kinds(look(root, repair=True)) == ["blob"] and not blob.exists()
    assert look(root).sound


def test_a_document_that_rotted_takes_the_name_with_it(root: Path, built: str) -> None:
    with Store(root) as store:
        manifest = store.names.row("app:1").manifest
    path = root / "oci/blobs/sha256" / manifest.removeprefix("sha256:")
    path.write_bytes(path.read_bytes().replace(b"}", b"]"))
    assert {"blob", "image"} <= set(kinds(look(root, quick=True)))
    look(root, repair=True)
    with Store(root) as store:
        assert store.names.find(NAME) is None
    assert look(root).sound


@pytest.mark.parametrize("quick", [False, True])
def test_a_layer_whose_folder_is_gone_is_found(root: Path, built: str, quick: bool) -> None:
    shutil.rmtree(root / "layers" / built.removeprefix("sha256:"))
    report = look(root, quick=quick)
    assert [(d.kind, d.name) for d in report.defects] == [("layer", built)]


def test_a_layer_with_other_files_is_found_and_taken_away(root: Path, built: str) -> None:
    folder = root / "layers" / built.removeprefix("sha256:")
    (folder / "file").write_bytes(b"\2" * 100)
    assert look(root, quick=True).sound
    assert [(d.kind, d.name) for d in look(root).defects] == [("layer", built)]
    look(root, repair=True)
    assert not folder.exists() and look(root).sound


def test_a_layer_that_was_pulled_is_compared_with_its_blob(root: Path) -> None:
    from tests.support.layout import Item, digest_of, tar_of

    tar = tar_of([Item(path="file", data=b"content")])
    with Store(root, mapping="the tests'") as store:
        digest, diff_id = store.blobs.put(tar), digest_of(tar)
        with store.work.begin() as work:
            folder = work.folder("layer")
            _core.apply_layer(str(store.blobs.path(digest)), str(folder), diff_id=diff_id)
            record = store.layers.publish(
                folder, diff_id=diff_id, tar_bytes=len(tar), snapshot=diff_id, trash=work
            )
        from img.oci import Descriptor
        from img.oci.descriptor import OCI_LAYER

        blob = Descriptor(media_type=OCI_LAYER, digest=digest, size=len(tar))
        store.layers.remember_blob(diff_id, blob, source="")
    assert look(root).sound
    (record.path / "file").write_bytes(b"CONTENT")
    assert kinds(look(root)) == ["layer"]


def test_an_index_that_was_spoilt_is_written_again(root: Path, built: str) -> None:
    (root / "oci/index.json").write_text("{")
    assert kinds(look(root, quick=True)) == ["layout"]
    look(root, quick=True, repair=True)
    assert look(root).sound and "app:1" in (root / "oci/index.json").read_text()


def test_what_dead_processes_left_is_no_damage(root: Path, built: str) -> None:
    (root / "work/dead").mkdir()
    (root / "layers/stray").mkdir()
    (root / "oci/blobs/sha256/.half").write_bytes(b"x")
    report = look(root)
    assert report.sound and kinds(report) == ["leftover"] * 3
    look(root, repair=True)
    assert look(root).defects == ()


def test_a_record_whose_layer_is_gone_is_found(root: Path, built: str) -> None:
    with sqlite3.connect(root / "img.db") as database:
        database.execute(
            "INSERT INTO records (key, inputs, diff_id, content, tar_bytes, created, used) "
            "VALUES ('k', '{}', 'sha256:gone', '', 0, 'RUN true', 0)"
        )
    assert kinds(look(root)) == ["record"]
    look(root, repair=True)
    assert look(root).records == 0


def test_a_database_that_is_damaged_is_told_and_not_repaired(root: Path, built: str) -> None:
    with sqlite3.connect(root / "img.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA writable_schema=ON")
        # An index that has no entry for the row of its table.
        database.execute("UPDATE sqlite_master SET rootpage=(SELECT rootpage FROM sqlite_master WHERE "
                         "name='records_by_title') WHERE name='layers_by_content'")  # fmt: skip
    report = look(root)
    assert kinds(report)[0] == "database" and not report.sound
    with pytest.raises(StoreError, match="damaged"):
        look(root, repair=True)


def test_a_list_that_holds_no_image_is_sound_and_no_repair_forgets_it(root: Path, built: str) -> None:
    with Store(root, mapping="the tests'") as store:
        store.names.put_list(Index.make(()), Reference.parse("list:1"))
    assert look(root).sound
    look(root, repair=True)
    with Store(root, mapping="the tests'") as store:
        assert store.names.list_of(store.names.row("list:1")) == Index.make(())
