"""The document of a shared cache: what is written is read again, and whatever else is read is none."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from img.cache import CacheIndex, SharedMount, SharedRecord
from img.oci import Descriptor
from img.oci.descriptor import OCI_LAYER_GZIP

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGEST = HEX.map(lambda text: f"sha256:{text}")
BLOB = st.builds(Descriptor, media_type=st.just(OCI_LAYER_GZIP), digest=DIGEST, size=st.integers(0, 1 << 62))
CREATED = st.sampled_from(["", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456Z"])
PLAIN = st.builds(SharedRecord, key=HEX, created=CREATED, title=st.text(), inputs=st.text())
LAYERED = st.builds(
    SharedRecord,
    key=HEX,
    diff_id=DIGEST,
    content=HEX.map(lambda text: f"blake3:{text}"),
    tar_bytes=st.integers(0, 1 << 62),
    created=CREATED,
    title=st.text(),
    inputs=st.text(),
    layer=st.none() | BLOB,
)
RECORDS = st.lists(PLAIN | LAYERED, unique_by=lambda record: record.key)
MOUNTS = st.lists(
    st.builds(SharedMount, id=st.text(), key=st.text(), chunks=st.lists(BLOB).map(tuple)),
    unique_by=lambda mount: mount.key,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(RECORDS, MOUNTS)
def test_what_is_written_is_read_again(records: list[SharedRecord], mounts: list[SharedMount]) -> None:
    index = CacheIndex(records=tuple(records), mounts=tuple(mounts))
    again = CacheIndex.from_bytes(index.to_bytes())
    assert again is not None
    assert {r.key: r for r in again.records} == {r.key: r for r in records}
    assert {mount.key: mount for mount in again.mounts} == {mount.key: mount for mount in mounts}
    assert again.to_bytes() == index.to_bytes()


@given(RECORDS)
def test_the_order_of_the_records_is_no_part_of_it(records: list[SharedRecord]) -> None:
    one, other = CacheIndex(records=tuple(records)), CacheIndex(records=tuple(reversed(records)))
    assert one.to_bytes() == other.to_bytes()


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_other_bytes_are_no_document(raw: bytes) -> None:
    assert CacheIndex.from_bytes(raw) is None


@given(st.data())
def test_a_document_with_a_field_of_another_kind_is_none_or_is_read_as_it_stands(data: st.DataObject) -> None:
    record = data.draw(LAYERED)
    document = json.loads(CacheIndex(records=(record,)).to_bytes())
    name = data.draw(st.sampled_from(sorted(document["records"][0])))
    document["records"][0][name] = data.draw(JSON)
    read = CacheIndex.from_bytes(json.dumps(document).encode())
    if read is not None:
        assert CacheIndex.from_bytes(read.to_bytes()) == read


def _document(**fields: Any) -> bytes:
    record = {"key": "a" * 64, "diff_id": f"sha256:{'b' * 64}", "content": f"blake3:{'c' * 64}", **fields}
    return json.dumps({"version": 1, "records": [record], "mounts": []}).encode()


def test_what_goes_into_an_image_or_a_path_is_looked_at() -> None:
    assert CacheIndex.from_bytes(_document()) is not None
    for fields in (
        {"created": "yesterday"},
        {"created": "2026-01-02T03:04:05Z\n"},
        {"diff_id": "sha256:../../etc"},
        {"diff_id": f"sha512:{'b' * 64}"},
        {"content": "blake3:"},
        {"content": ""},
        {"key": "A" * 64},
        {"tar_bytes": -1},
        {"tar_bytes": True},
        {"tar_bytes": 1 << 70},
        {"layer": {"mediaType": "x", "digest": "sha256:no", "size": 1}},
    ):
        assert CacheIndex.from_bytes(_document(**fields)) is None, fields


def test_of_two_documents_the_earlier_one_counts() -> None:
    new, old = (SharedRecord(key="a" * 64, title=title) for title in ("new", "old"))
    other = SharedRecord(key="b" * 64)
    joined = CacheIndex.joined((CacheIndex(records=(new,)), CacheIndex(records=(old, other))))
    assert {record.key: record for record in joined.records} == {"a" * 64: new, "b" * 64: other}
