"""Pushes to a registry that errs: a blob is whole there in the end, or the push says why not."""

from __future__ import annotations

import io
import itertools
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import trustme
from img.errors import DigestMismatch, RegistryError, SizeMismatch, StoreError
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
        self.said: Callable[[bytes], dict[str, str]] = lambda raw: {"Docker-Content-Digest": sha256(raw)}
        self._numbers = itertools.count()

    def serve(self, call: Call) -> None:
        name = call.path.rpartition("/")[2]
        if call.method == "HEAD":
            call.answer(200 if name in self.blobs else 404)
        elif call.method == "POST":
            call.answer(202, b"", {"Location": f"/v2/app/blobs/uploads/{next(self._numbers)}?state=abc"})
        elif "/manifests/" in call.path:
            self.manifests[name] = call.body
            call.answer(201, b"", self.said(call.body))
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


@pytest.mark.parametrize(
    "said",
    [
        {"Docker-Content-Digest": sha256(b"else")},
        {"Location": f"/v2/app/manifests/{sha256(b'else')}"},
        {"Location": f"https://far.example.com/v2/app/manifests/{sha256(b'else')}?x=1"},
    ],
    ids=["digest", "location", "location elsewhere"],
)
def test_a_registry_that_stored_another_manifest_is_found_out(
    connect: Connect, writable: Writable, ref: Reference, said: dict[str, str]
) -> None:
    bits = make_image(10)
    writable.said = lambda raw: said
    with pytest.raises(DigestMismatch, match=f"{writable.host} was sent .* says that it stored") as caught:
        push(connect(), ref, bits.manifest, bits.open)
    found = caught.value
    assert (found.expected, found.actual, found.by) == (bits.manifest.digest, sha256(b"else"), writable.host)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Location": "/v2/app/manifests/v1", "Docker-Content-Digest": "none"},
        {"Location": f"/storage/{sha256(b'else')}"},
        {"Location": "https://[nowhere"},
    ],
    ids=["nothing", "a tag", "an address of its own", "no address"],
)
def test_a_registry_that_says_nothing_of_what_it_stored_is_believed(
    connect: Connect, writable: Writable, ref: Reference, said: dict[str, str]
) -> None:
    bits = make_image(10)
    writable.said = lambda raw: said
    assert push(connect(), ref, bits.manifest, bits.open) == bits.manifest.digest


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


@pytest.mark.parametrize("change", [-1, 1, -200_000, 200_000], ids=str)
def test_a_file_of_another_length_is_not_sent_for_the_blob(
    connect: Connect, writable: Writable, ref: Reference, tmp_path: Path, change: int
) -> None:
    layer = make_image(200_000).layers[0]
    file = tmp_path / "blob"
    file.write_bytes(bytes(layer.size + change))
    with pytest.raises(SizeMismatch):
        connect().push_blob(ref, layer, lambda: file.open("rb"))
    assert not writable.blobs


class Resumable(Server):
    """A registry that takes parts, keeps what came of one that broke, and has limits as it is told."""

    def __init__(self, certificate: ssl.SSLContext | None = None) -> None:
        super().__init__(certificate)
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.parts: list[Answer] = []
        self.shortest = 0
        self.limit = 1 << 40

    def serve(self, call: Call) -> None:
        name = call.path.rpartition("/")[2]
        if call.method == "HEAD":
            call.answer(200 if name in self.blobs else 404)
        elif call.method == "POST":
            number = str(len(self.uploads))
            self.uploads[number] = b""
            call.answer(202, b"", {**self._place(number), "OCI-Chunk-Min-Length": str(self.shortest)})
        elif len(call.body) > self.limit:
            call.answer(413)
        elif name not in self.uploads:
            call.answer(404)
        elif call.method == "GET":
            call.answer(204, b"", self._place(name))
        elif call.method == "PATCH" and self.parts:
            self.parts.pop(0)(call)
        elif call.method == "PATCH":
            self.take(call, call.body)
        elif call.method == "PUT":
            self.blobs[call.fields["digest"][0]] = self.uploads.pop(name) + call.body
            call.answer(201)
        else:
            del self.uploads[name]
            call.answer(204)

    def take(self, call: Call, data: bytes) -> None:
        """Adds a part to its upload, if that stands where the part begins."""
        name = call.path.rpartition("/")[2]
        if int(call.headers["Content-Range"].split("-")[0]) != len(self.uploads[name]):
            call.answer(416, b"", self._place(name))
            return
        self.uploads[name] += data
        call.answer(202, b"", self._place(name))

    def _place(self, name: str) -> dict[str, str]:
        last = max(0, len(self.uploads[name]) - 1)
        return {"Location": f"/v2/app/blobs/uploads/{name}?state=a%2Fb", "Range": f"0-{last}"}


PART = 1 << 20


class TestParts:
    @pytest.fixture
    def server(self) -> Iterator[Resumable]:
        with Resumable() as running:
            yield running

    def push(self, connect: Connect, server: Resumable, size: int = 5 * PART + 1, **options: object) -> None:
        bits = make_image(size)
        layer = bits.layers[0]
        ref = Reference.parse(f"{server.host}/app:v1")
        registry = connect(**{"part_bytes": PART, **options})
        with tempfile.NamedTemporaryFile() as file:
            path = Path(file.name)
            path.write_bytes(bits.blobs[layer.digest])

            def opened() -> BinaryIO:
                return path.open("rb")

            assert registry.push_blob(ref, layer, opened) is Upload.SENT
        assert server.blobs == {layer.digest: bits.blobs[layer.digest]}

    def ranges(self, server: Resumable) -> list[str]:
        return [call.headers["Content-Range"] for call in server.seen("PATCH")]

    def test_a_long_blob_goes_in_parts(self, connect: Connect, server: Resumable) -> None:
        self.push(connect, server)
        assert self.ranges(server) == [
            *(f"{n * PART}-{(n + 1) * PART - 1}" for n in range(5)),
            f"{5 * PART}-{5 * PART}",
        ]
        assert {tuple(call.fields["state"]) for call in server.seen("PATCH")} == {("a/b",)}

    def test_over_tls_the_kernel_cannot_send_them(self, connect: Connect) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        with Resumable(context) as server:
            self.push(connect, server, insecure=frozenset({"*"}))

    def test_parts_are_as_long_as_the_registry_wants_them(self, connect: Connect, server: Resumable) -> None:
        server.shortest = 2 * PART + 7
        self.push(connect, server)
        assert [len(call.body) for call in server.seen("PATCH")] == [2 * PART + 7, 2 * PART + 7, PART - 13]

    def test_a_part_that_broke_is_gone_on_with_where_the_registry_stands(
        self, connect: Connect, server: Resumable
    ) -> None:
        def half(call: Call) -> None:
            server.uploads[call.path.rpartition("/")[2]] += call.body[: PART // 2]
            call.hang_up()

        server.parts = [lambda c: server.take(c, c.body), half]
        self.push(connect, server)
        assert self.ranges(server)[2].startswith(f"{PART + PART // 2}-")
        assert len(server.seen("POST")) == 1

    def test_an_answer_that_was_lost_costs_no_part(self, connect: Connect, server: Resumable) -> None:
        def lost(call: Call) -> None:
            server.uploads[call.path.rpartition("/")[2]] += call.body
            call.hang_up()

        server.parts = [lost]
        self.push(connect, server)
        assert len({*self.ranges(server)}) == len(self.ranges(server)) == 6

    def test_a_part_at_the_wrong_offset_is_asked_about(self, connect: Connect, server: Resumable) -> None:
        def behind(call: Call) -> None:
            server.uploads[call.path.rpartition("/")[2]] = b""
            server.take(call, call.body)

        server.parts = [lambda c: server.take(c, c.body), behind]
        self.push(connect, server)
        assert len(server.seen("GET")) == 1 and len(server.seen("POST")) == 1

    def test_an_upload_that_was_forgotten_begins_anew(self, connect: Connect, server: Resumable) -> None:
        def forget(call: Call) -> None:
            del server.uploads[call.path.rpartition("/")[2]]
            server.uploads["unused"] = b""
            call.answer(404)

        server.parts = [lambda c: server.take(c, c.body), forget]
        self.push(connect, server)
        assert len(server.seen("POST")) == 2

    def test_breaks_do_not_count_while_the_upload_moves_on(self, connect: Connect, server: Resumable) -> None:
        def lost(call: Call) -> None:
            server.uploads[call.path.rpartition("/")[2]] += call.body
            call.hang_up()

        server.parts = [lost] * 6
        self.push(connect, server, attempts=2)

    def test_an_upload_that_does_not_move_is_sent_whole(self, connect: Connect, server: Resumable) -> None:
        server.parts = [lambda c: c.answer(202, b"", {"Range": "0-0"})] * 99
        self.push(connect, server)
        assert len(server.seen("PATCH")) == 3 and server.seen("DELETE")

    def test_an_upload_that_breaks_again_and_again_comes_to_an_end(
        self, connect: Connect, server: Resumable
    ) -> None:
        server.parts = [lambda c: c.hang_up()] * 99
        with pytest.raises(RegistryError, match="broke"):
            self.push(connect, server, attempts=3)
        assert len(server.seen("PATCH")) == 3

    def test_a_limit_for_one_request_makes_the_parts_shorter(
        self, connect: Connect, server: Resumable
    ) -> None:
        server.limit = PART + PART // 2
        self.push(connect, server, part_bytes=4 * PART)
        assert max(len(c.body) for c in server.seen("PATCH") if len(c.body) <= server.limit) == PART

    def test_a_limit_that_a_short_blob_meets_sends_it_in_parts(
        self, connect: Connect, server: Resumable
    ) -> None:
        server.limit = 2 * PART
        self.push(connect, server, size=3 * PART, part_bytes=8 * PART)
        assert len(server.seen("PATCH")) == 2

    def test_a_blob_that_arrived_though_nobody_said_so_is_not_sent_again(
        self, connect: Connect, writable: Writable
    ) -> None:
        layer = (bits := make_image(10)).layers[0]

        def lost(call: Call) -> None:
            writable.blobs[layer.digest] = call.body
            call.hang_up()

        writable.puts = [lost]
        ref = Reference.parse(f"{writable.host}/app:v1")
        connect().push_blob(ref, layer, lambda: bits.open(layer))
        assert len(writable.seen("PUT")) == 1

    def test_few_repositories_are_tried_for_a_mount(self, connect: Connect, writable: Writable) -> None:
        layer = (bits := make_image(10)).layers[0]
        ref, many = Reference.parse(f"{writable.host}/app:v1"), tuple(f"other/{n}" for n in range(30))
        connect().push_blob(ref, layer, lambda: bits.open(layer), mount_from=many)
        assert [c.fields["from"][0] for c in writable.seen("POST")] == list(many[:4])

    def test_a_mount_from_anywhere_is_asked_for_with_the_upload(
        self, connect: Connect, writable: Writable
    ) -> None:
        layer = (bits := make_image(10)).layers[0]
        connect().push_blob(Reference.parse(f"{writable.host}/app:v1"), layer, lambda: bits.open(layer))
        (post,) = writable.seen("POST")
        assert post.fields == {"mount": [layer.digest]}
