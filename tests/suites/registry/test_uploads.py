"""Pushes to a registry that errs: a blob is whole there in the end, or the push says why not."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from img.errors import DigestMismatch, RegistryError, StoreError
from img.oci import Reference, sha256
from img.registry import Upload, push

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import Call, Server

Answer = Callable[[Call], None]


class Writable(Server):
    """A registry that can only be written to, with answers in store for the coming PUTs of blobs."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.puts: list[Answer] = []
        self._numbers = itertools.count()

    def serve(self, call: Call) -> None:
        name = call.path.rpartition("/")[2]
        if call.method == "HEAD":
            call.answer(200 if name in self.blobs else 404)
        elif call.method == "POST":
            call.answer(202, b"", {"Location": f"/v2/app/blobs/uploads/{next(self._numbers)}?state=abc"})
        elif "/manifests/" in call.path:
            self.manifests[name] = call.body
            call.answer(201, b"", {"Docker-Content-Digest": sha256(call.body)})
        elif self.puts:
            self.puts.pop(0)(call)
        else:
            self.blobs[call.fields["digest"][0]] = call.body
            call.answer(201)


@pytest.fixture
def writable() -> Iterator[Writable]:
    with Writable() as running:
        yield running


@pytest.fixture
def ref(writable: Writable) -> Reference:
    return Reference.parse(f"{writable.host}/app:v1")


def test_a_blob_travels_in_one_request_with_its_length(
    connect: Connect, writable: Writable, ref: Reference
) -> None:
    bits = make_image(3_000_000)
    layer = bits.layers[0]
    assert connect().push_blob(ref, layer, lambda: bits.open(layer)) is Upload.SENT
    (put,) = writable.seen("PUT")
    assert put.headers["Content-Length"] == "3000000" and "Transfer-Encoding" not in put.headers
    assert put.fields["state"] == ["abc"]
    assert writable.blobs == {layer.digest: bits.blobs[layer.digest]}


@pytest.mark.parametrize(
    "failure",
    [lambda c: c.answer(503), lambda c: c.answer(404), lambda c: c.hang_up()],
    ids=["503", "upload forgotten", "connection broken"],
)
def test_a_failure_in_the_middle_opens_a_fresh_upload(
    connect: Connect, writable: Writable, ref: Reference, failure: Answer
) -> None:
    bits = make_image(200_000)
    writable.puts = [failure]
    push(connect(), ref, bits.manifest, bits.open, jobs=1)
    assert {*writable.blobs} == {*bits.blobs}
    first, second = (call.path for call in writable.seen("PUT")[:2])
    assert first != second
    assert writable.manifests == {"v1": bits.manifest.raw}


def test_no_tag_is_pushed_where_a_blob_failed(connect: Connect, writable: Writable, ref: Reference) -> None:
    bits = make_image(10)
    writable.puts = [lambda c: c.answer(400)] * 9
    with pytest.raises(RegistryError):
        push(connect(), ref, bits.manifest, bits.open)
    assert not writable.manifests


def test_a_registry_that_stored_something_else_is_found_out(
    connect: Connect, writable: Writable, ref: Reference
) -> None:
    layer = make_image(10).layers[0]
    writable.puts = [lambda c: c.answer(201, b"", {"Docker-Content-Digest": sha256(b"else")})]
    with pytest.raises(DigestMismatch):
        connect().push_blob(ref, layer, lambda: io.BytesIO(bytes(10)))


def test_an_upload_elsewhere_sees_no_credentials_and_no_plain_http(
    connect: Connect, writable: Writable, ref: Reference
) -> None:
    layer = make_image(10).layers[0]

    def away(call: Call) -> None:
        call.answer(307, b"", {"Location": "http://example.com/upload"})

    writable.puts = [away]
    with pytest.raises(RegistryError, match=r"plain HTTP at example\.com"):
        connect().push_blob(ref, layer, lambda: io.BytesIO(bytes(10)))


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_network(
    connect: Connect, writable: Writable, ref: Reference, tmp_path: Path
) -> None:
    layer = make_image(10).layers[0]
    with pytest.raises(StoreError, match="cannot read a blob"):
        connect().push_blob(ref, layer, lambda: (tmp_path / "gone").open("rb"))
    assert not writable.blobs
