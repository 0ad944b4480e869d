"""Blobs: under their digest whole, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from img.errors import BlobNotFound, DigestMismatch, SizeMismatch
from img.oci import Descriptor, sha256
from img.store import Store
from img.store.blobs import write_atomic

DATA = b"some bytes"


def descriptor(**changes: object) -> Descriptor:
    fields: dict[str, object] = {"media_type": "x/y", "digest": sha256(DATA), "size": len(DATA)}
    return Descriptor(**{**fields, **changes})  # type: ignore[arg-type]


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "oci" / "blobs" / "sha256").iterdir())


def test_what_was_put_can_be_read_and_is_put_once(store: Store) -> None:
    digest = store.blobs.put(DATA)
    inode = store.blobs.path(digest).stat().st_ino
    assert store.blobs.put(DATA) == digest == sha256(DATA)
    assert store.blobs.path(digest).stat().st_ino == inode
    assert store.blobs.read(digest) == DATA
    with store.blobs.open(digest) as stream:
        assert stream.read() == DATA
    assert [name for name, _ in store.blobs.all()] == [digest]


def test_a_blob_that_is_not_here_is_an_error_that_names_it(store: Store) -> None:
    missing = sha256(b"missing")
    assert not store.blobs.has(missing)
    assert store.blobs.remove(missing) == 0
    for read in (store.blobs.read, store.blobs.open):
        with pytest.raises(BlobNotFound, match=missing):
            read(missing)


def test_a_sink_publishes_what_is_right(store: Store) -> None:
    sink = store.blobs.sink(descriptor())
    sink.write(DATA[:4])
    assert not store.blobs.has(sha256(DATA))
    sink.write(DATA[4:])
    sink.finish()
    assert store.blobs.read(sha256(DATA)) == DATA


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"digest": sha256(b"other")}, DigestMismatch),
        ({"size": len(DATA) + 1}, SizeMismatch),
        ({"size": len(DATA) - 1}, SizeMismatch),
    ],
)
def test_a_sink_leaves_nothing_of_what_is_wrong(
    wrong: dict[str, object], error: type[Exception], store: Store
) -> None:
    sink = store.blobs.sink(descriptor(**wrong))

    def send() -> None:
        sink.write(DATA)
        sink.finish()

    with pytest.raises(error):
        send()
    sink.abort()
    assert files(store) == []


def test_asking_for_a_blob_counts_as_using_it(store: Store) -> None:
    path = store.blobs.path(store.blobs.put(DATA))
    os.utime(path, (1, 1))
    assert store.blobs.has(sha256(DATA))
    # When it was written is another question (`store.doubts`).
    assert (path.stat().st_atime > 1, path.stat().st_mtime) == (True, 1)


def test_a_removed_blob_gives_its_blocks_back(store: Store) -> None:
    digest = store.blobs.put(b"\1" * 10_000)
    blocks = store.blobs.path(digest).stat().st_blocks
    assert store.blobs.remove(digest) == blocks * 512 >= 10_000


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    versions = [bytes([65 + number]) * 300_000 for number in range(20)]
    write_atomic(path, versions[0])
    seen: set[bytes] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions:
        write_atomic(path, version)
    over.set()
    reader.join()
    assert seen <= set(versions)
    assert list(tmp_path.iterdir()) == [path]
