"""What every kind of shared cache does, whatever stores it. Source: `img.cache.backend`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO

import pytest
from img.cache import CacheBackend, CacheIndex, SharedRecord
from img.cache.index import MEDIA_TYPE
from img.errors import CacheError
from img.oci import Descriptor, sha256
from img.oci.descriptor import OCI_LAYER_GZIP

from tests.suites.cache.conftest import Storage

BLOB = b"some bytes of a layer" * 1000


class Bucket:
    """A sink that keeps what it takes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Refusing:
    """A sink that finds something wrong at once."""

    def write(self, data: bytes) -> None:
        raise DigestWrong


class DigestWrong(Exception):
    """What the refusing sink finds."""


def descriptor(data: bytes) -> Descriptor:
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(data), size=len(data))


def put(backend: CacheBackend, data: bytes) -> Descriptor:
    backend.put(descriptor(data), lambda: BytesIO(data))
    return descriptor(data)


def document(*blobs: Descriptor, word: str = "") -> bytes:
    records = tuple(
        SharedRecord(
            key=blob.hex,
            diff_id=blob.digest,
            content=f"blake3:{blob.hex}",
            title=word,
            layer=blob,
        )
        for blob in blobs
    )
    return CacheIndex(records=records).to_bytes()


def write(backend: CacheBackend, *blobs: Descriptor, word: str = "") -> bytes:
    raw = document(*blobs, word=word)
    backend.write(raw, list(blobs))
    return raw


def fetched(backend: CacheBackend, blob: Descriptor) -> bytes:
    bucket = Bucket()
    backend.fetch(blob, bucket)
    return bucket.data


def test_an_empty_storage_has_no_document(storage: Storage) -> None:
    assert storage.reader().read() is None


def test_what_was_written_is_read_elsewhere(storage: Storage) -> None:
    writer = storage.writer()
    raw = write(writer, put(writer, BLOB))
    writer.close()
    reader = storage.reader()
    assert reader.read() == raw
    assert fetched(reader, descriptor(BLOB)) == BLOB


def test_a_document_that_names_no_blob_is_one(storage: Storage) -> None:
    raw = write(storage.writer())
    assert storage.reader().read() == raw


def test_a_later_document_replaces_the_earlier_one(storage: Storage) -> None:
    writer = storage.writer()
    blob = put(writer, BLOB)
    write(writer, blob, word="one")
    raw = write(writer, blob, word="two")
    assert storage.reader().read() == raw


def test_the_same_document_may_be_written_again(storage: Storage) -> None:
    writer = storage.writer()
    blob = put(writer, BLOB)
    raw = write(writer, blob)
    assert write(storage.writer(), blob) == raw
    assert storage.reader().read() == raw


def test_a_blob_is_there_once_it_was_put(storage: Storage) -> None:
    writer = storage.writer()
    assert not writer.has(descriptor(BLOB))
    put(writer, BLOB)
    assert writer.has(descriptor(BLOB))


def test_a_blob_may_be_put_twice(storage: Storage) -> None:
    writer = storage.writer()
    put(writer, BLOB)
    blob = put(storage.writer(), BLOB)
    write(writer, blob)
    assert fetched(storage.reader(), blob) == BLOB


def test_an_empty_blob_is_one(storage: Storage) -> None:
    writer = storage.writer()
    blob = put(writer, b"")
    write(writer, blob)
    assert fetched(storage.reader(), blob) == b""


def test_a_blob_that_is_not_there_is_an_error_that_names_the_cache(storage: Storage) -> None:
    write(storage.writer())
    with pytest.raises(CacheError) as caught:
        fetched(storage.reader(), descriptor(BLOB))
    assert caught.value.cache == str(storage.spec("from"))
    assert caught.value.reason


def test_what_a_sink_finds_wrong_comes_out_as_it_is(storage: Storage) -> None:
    writer = storage.writer()
    write(writer, put(writer, BLOB))
    with pytest.raises(DigestWrong):
        storage.reader().fetch(descriptor(BLOB), Refusing())


def test_several_threads_may_put_and_fetch(storage: Storage) -> None:
    writer = storage.writer()
    datas = [f"blob {n} ".encode() * 5000 for n in range(8)]
    _in_threads([lambda data=data: put(writer, data) for data in (*datas, *datas)])
    write(writer, *(descriptor(data) for data in datas))
    reader = storage.reader()
    got: dict[bytes, bytes] = {}

    def take(data: bytes) -> None:
        got[data] = fetched(reader, descriptor(data))

    _in_threads([lambda data=data: take(data) for data in datas])
    assert got == {data: data for data in datas}


def test_a_document_of_a_thousand_records_comes_back(storage: Storage) -> None:
    writer = storage.writer()
    blob = put(writer, BLOB)
    records = tuple(
        SharedRecord(
            key=f"{n:064x}",
            diff_id=blob.digest,
            content=f"blake3:{blob.hex}",
            inputs="x" * 5000,
            layer=blob,
        )
        for n in range(1000)
    )
    raw = CacheIndex(records=records).to_bytes()
    writer.write(raw, [blob])
    assert storage.reader().read() == raw
    assert len(raw) > 4 << 20


def test_a_stopped_cache_ends_with_an_error(storage: Storage) -> None:
    writer = storage.writer()
    blob = put(writer, BLOB)
    write(writer, blob)
    reader = storage.reader()
    reader.stop()
    with pytest.raises(CacheError):
        fetched(reader, blob)


def test_it_may_be_closed_twice(storage: Storage) -> None:
    writer = storage.writer()
    put(writer, BLOB)
    writer.close()
    writer.close()


def test_opening_speaks_to_nothing(storage: Storage) -> None:
    storage.reader().close()
    assert storage.spec("from").kind == storage.spec("to").kind


def test_the_media_type_has_the_version_of_the_document() -> None:
    assert MEDIA_TYPE.endswith(".v1+json")


def _in_threads(calls: Sequence[object]) -> None:
    errors: list[BaseException] = []

    def run(call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
