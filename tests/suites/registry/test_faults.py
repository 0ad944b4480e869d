"""Registries that err, break, lie and stall: right bytes come in the end, or a typed error and nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from img.errors import (
    DigestMismatch,
    InvalidDocument,
    NotFound,
    RegistryError,
    SizeMismatch,
    TooManyRequests,
    Unauthorized,
    Unsupported,
)
from img.oci import Descriptor, Index, Platform, Reference, sha256
from img.oci.descriptor import MAX_DOCUMENT_BYTES, OCI_INDEX
from img.progress import Event, Note
from img.registry import Stop, Stopped, fetch

from tests.suites.registry.conftest import Connect, Known
from tests.suites.registry.images import AMD64, Bits, Folder, make_image
from tests.suites.registry.servers import Call, FaultyRegistry, Guard, cut, endless, stall, status


@pytest.fixture
def bits(faulty: FaultyRegistry) -> Bits:
    """An image of one layer, on offer as `v1`."""
    made = make_image(3_000_000)
    faulty.add(made.manifest, made.blobs, "v1")
    return made


@pytest.fixture
def ref(faulty: FaultyRegistry) -> Reference:
    return Reference.parse(f"{faulty.host}/app:v1")


class TestBlobs:
    def test_a_truncated_blob_is_resumed_where_it_broke(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        digest = bits.layers[0].digest
        faulty.fail(digest, cut(1_000_000))
        fetch(connect(), ref, bits.layers, folder.open)
        assert folder.holds(bits)
        resumed = faulty.seen("GET", digest)[1].headers["Range"]
        assert 0 < int(resumed.removeprefix("bytes=").split("-")[0]) <= 1_000_000

    def test_breaks_do_not_count_while_the_blob_moves_on(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        faulty.fail(bits.layers[0].digest, *[cut(300_000)] * 9)
        fetch(connect(attempts=2), ref, bits.layers, folder.open)
        assert folder.holds(bits)

    def test_breaks_that_only_drip_come_to_an_end(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        faulty.fail(bits.layers[0].digest, *[cut(10)] * 100)
        with pytest.raises(RegistryError):
            fetch(connect(attempts=3), ref, bits.layers, folder.open)
        assert len(faulty.calls) == 3
        assert folder.empty

    def test_a_registry_without_ranges_is_read_from_its_start(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        faulty.ranges = False
        faulty.fail(bits.layers[0].digest, cut(1_000_000), cut(2_000_000))
        fetch(connect(), ref, bits.layers, folder.open)
        assert folder.holds(bits)

    def test_another_part_than_asked_for_is_not_taken(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        layer = bits.layers[0]
        wrong = status(206, b"x" * 100, Content_Range=f"bytes 0-99/{layer.size}")
        faulty.fail(layer.digest, cut(1_000_000), wrong)
        fetch(connect(), ref, bits.layers, folder.open)
        assert folder.holds(bits)

    def test_a_wrong_blob_is_fetched_once_more_and_then_refused(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        layer = bits.layers[0]
        faulty.blobs[layer.digest] = bytes(layer.size)
        with pytest.raises(DigestMismatch) as caught:
            fetch(connect(), ref, bits.layers, folder.open)
        assert caught.value.expected == layer.digest
        assert [sink.ended for sink in folder.sinks] == ["aborted", "aborted"]
        assert folder.empty

    def test_a_blob_that_was_wrong_once_is_healed(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        layer = bits.layers[0]
        faulty.fail(layer.digest, status(200, bytes(layer.size)))
        fetch(connect(), ref, bits.layers, folder.open)
        assert folder.holds(bits)

    @pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
    def test_a_blob_of_another_size_is_refused(
        self,
        connect: Connect,
        faulty: FaultyRegistry,
        bits: Bits,
        ref: Reference,
        folder: Folder,
        change: int,
    ) -> None:
        layer = bits.layers[0]
        faulty.blobs[layer.digest] = bytes(layer.size + change)
        with pytest.raises(SizeMismatch) as caught:
            fetch(connect(), ref, bits.layers, folder.open)
        assert (caught.value.expected, caught.value.actual) == (layer.size, layer.size + change)
        assert folder.sinks[-1].offset == 0 and folder.empty

    def test_an_endless_blob_is_left_at_its_size(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        layer = bits.layers[0]
        faulty.fail(layer.digest, endless, endless)
        with pytest.raises(SizeMismatch):
            fetch(connect(), ref, bits.layers, folder.open)
        assert folder.sinks[-1].offset == layer.size and folder.empty

    def test_a_stalled_blob_is_abandoned_and_resumed(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        started, let_go = threading.Event(), threading.Event()
        faulty.fail(bits.layers[0].digest, stall(200_000, started, let_go))
        fetch(connect(read_seconds=0.2), ref, bits.layers, folder.open)
        let_go.set()
        assert folder.holds(bits)
        assert "Range" in faulty.calls[-1].headers

    def test_the_first_error_ends_the_other_transfers(
        self, connect: Connect, faulty: FaultyRegistry, ref: Reference, folder: Folder
    ) -> None:
        bits = make_image(1_000_000, 1000)
        faulty.add(bits.manifest, bits.blobs)
        stalled, missing = (layer.digest for layer in bits.layers)
        started, let_go = threading.Event(), threading.Event()

        def missing_later(server: FaultyRegistry, call: Call) -> None:
            started.wait(60)
            call.answer(404)

        faulty.fail(stalled, stall(70_000, started, let_go))
        faulty.fail(missing, missing_later)
        begun = time.monotonic()
        with pytest.raises(NotFound):
            fetch(connect(read_seconds=60), ref, bits.layers, folder.open)
        assert time.monotonic() - begun < 30
        let_go.set()
        assert [sink.ended for sink in folder.sinks] == ["aborted", "aborted"]

    def test_a_stop_ends_a_transfer_that_waits(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        started, let_go, stop = threading.Event(), threading.Event(), Stop()
        faulty.fail(bits.layers[0].digest, stall(70_000, started, let_go))

        def watch() -> None:
            started.wait(60)
            stop.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        with pytest.raises(Stopped):
            fetch(connect(read_seconds=60), ref, bits.layers, folder.open, stop=stop)
        watcher.join()
        let_go.set()
        assert folder.empty

    def test_an_interrupt_ends_a_transfer_that_waits(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        started, let_go = threading.Event(), threading.Event()
        faulty.fail(bits.layers[0].digest, stall(70_000, started, let_go))

        def interrupt() -> None:
            started.wait(60)
            os.kill(os.getpid(), signal.SIGINT)

        user = threading.Thread(target=interrupt)
        user.start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetch(connect(read_seconds=60), ref, bits.layers, folder.open)
        assert time.monotonic() - begun < 30
        user.join()
        let_go.set()
        assert folder.empty and folder.sinks[0].ended == "aborted"

    def test_a_full_disk_is_not_tried_again(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, folder: Folder
    ) -> None:
        def full(data: bytes) -> None:
            raise OSError(28, "No space left on device")

        def open_sink(descriptor: Descriptor) -> object:
            sink = folder.open(descriptor)
            sink.write = full  # type: ignore[method-assign]
            return sink

        with pytest.raises(OSError, match="No space left"):
            fetch(connect(), ref, bits.layers, open_sink)  # type: ignore[arg-type]
        assert len(faulty.calls) == 1 and folder.sinks[0].ended == "aborted"

    def test_a_layer_named_twice_comes_once(
        self, connect: Connect, faulty: FaultyRegistry, ref: Reference, folder: Folder
    ) -> None:
        bits = make_image(1000, 2000, repeat=True)
        faulty.add(bits.manifest, bits.blobs)
        fetch(connect(), ref, bits.layers, folder.open)
        assert len(faulty.calls) == 2 and folder.holds(bits)


class TestManifests:
    def test_a_manifest_that_is_not_its_digest_is_refused(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        other = make_image(1, seed=9).manifest
        faulty.manifests[bits.manifest.digest] = (other.media_type, other.raw)
        with pytest.raises(DigestMismatch) as caught:
            connect().manifest(ref, bits.manifest.digest)
        assert caught.value.expected == bits.manifest.digest
        assert len(faulty.calls) == 2

    def test_a_tag_whose_bytes_are_not_its_digest_is_refused(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        lie = status(200, bits.manifest.raw, Docker_Content_Digest=sha256(b"other"))
        faulty.fail("v1", lie, lie)
        with pytest.raises(DigestMismatch):
            connect().manifest(ref)

    def test_an_endless_manifest_is_refused_within_bounds(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        faulty.fail("v1", endless)
        with pytest.raises(InvalidDocument, match=str(MAX_DOCUMENT_BYTES)):
            connect().manifest(ref)

    def test_a_manifest_of_100_mb_is_refused_unread(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        def huge(server: FaultyRegistry, call: Call) -> None:
            call.begin(200, {"Content-Length": str(100 << 20)})
            call.hang_up()  # a client that waited for the body would find it missing

        faulty.fail("v1", huge)
        with pytest.raises(InvalidDocument, match="longer than"):
            connect().manifest(ref)

    @pytest.mark.parametrize("raw", [b"<html>", b"[]", b"{}", b"[" * 100_000, b""])
    def test_what_is_no_manifest_is_refused(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, raw: bytes
    ) -> None:
        faulty.fail("v1", status(200, raw))
        with pytest.raises(InvalidDocument):
            connect().manifest(ref)

    def test_schema_1_is_refused_by_name(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        faulty.fail("v1", status(200, b'{"schemaVersion":1,"fsLayers":[]}'))
        with pytest.raises(Unsupported, match="schema 1"):
            connect().manifest(ref)

    def test_indexes_without_end_are_left(
        self, connect: Connect, faulty: FaultyRegistry, ref: Reference
    ) -> None:
        index = Index.make([make_image().manifest.descriptor] * 2)
        for _ in range(10):
            faulty.add(index)
            index = Index.make([index.descriptor])
        faulty.add(index, tag="v1")
        with pytest.raises(NotFound, match="no image for"):
            connect().resolve(ref, AMD64)
        assert len(faulty.calls) <= 3

    def test_a_manifest_announced_as_an_index_is_not_taken_for_the_platform(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        lie = Descriptor(media_type=OCI_INDEX, digest=bits.manifest.digest, size=len(bits.manifest.raw))
        faulty.add(Index.make([lie, lie]), tag="v1")
        with pytest.raises(NotFound):
            connect().resolve(ref, Platform("linux", "s390x"))

    def test_a_config_longer_than_it_may_be_is_not_asked_for(
        self, connect: Connect, faulty: FaultyRegistry, ref: Reference
    ) -> None:
        huge = Descriptor(media_type="any", digest=sha256(b""), size=MAX_DOCUMENT_BYTES + 1)
        with pytest.raises(InvalidDocument):
            connect().document(ref, huge)
        assert not faulty.calls

    def test_a_head_that_says_too_little_is_made_up_for(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        faulty.fail("v1", status(200))
        assert connect().head(ref) == bits.manifest.descriptor

    def test_tags_come_page_by_page_and_never_in_a_circle(
        self, connect: Connect, faulty: FaultyRegistry, ref: Reference
    ) -> None:
        def page(names: list[str], link: str) -> Callable[[FaultyRegistry, Call], None]:
            return status(200, json.dumps({"name": "app", "tags": names}).encode(), Link=link)

        faulty.fail(
            "list",
            page(["a", "b"], '</v2/app/tags/list?n=2&last=b>; rel="next"'),
            page(["c"], '</v2/app/tags/list?n=2&last=b>; rel="next"'),
        )
        assert connect().tags(ref) == ["a", "b", "c"]
        assert faulty.calls[1].query == "n=2&last=b"

    def test_the_next_page_is_not_fetched_from_another_server(
        self, connect: Connect, faulty: FaultyRegistry, ref: Reference
    ) -> None:
        with FaultyRegistry() as other:
            away = f'<http://{other.host}/v2/app/tags/list?last=b>; rel="next"'
            faulty.fail("list", status(200, b'{"tags":["a"]}', Link=away), status(200, b'{"tags":["b"]}'))
            assert connect().tags(ref) == ["a", "b"]
            assert faulty.calls[1].query == "last=b" and not other.calls


class TestPatience:
    @pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
    def test_a_failure_that_passes_is_waited_for(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, code: int
    ) -> None:
        faulty.fail("v1", status(code), status(code))
        assert connect().manifest(ref) == bits.manifest
        assert len(faulty.calls) == 3

    @pytest.mark.parametrize("code", [400, 405, 410, 418, 501])
    def test_a_refusal_is_not_asked_twice(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, code: int
    ) -> None:
        faulty.fail("v1", status(code, b"{}", Content_Type="application/json"))
        with pytest.raises(RegistryError) as caught:
            connect().manifest(ref)
        assert caught.value.status == code and len(faulty.calls) == 1

    def test_the_wait_that_the_registry_asks_for_is_kept(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        notes: list[Event] = []
        faulty.fail("v1", status(429, Retry_After="1"))
        begun = time.monotonic()
        assert connect(progress=notes.append).manifest(ref) == bits.manifest
        assert time.monotonic() - begun >= 1
        assert [note.text.partition(":")[0] for note in notes if isinstance(note, Note)] == [
            "trying again in 1.00s"
        ]

    @pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
    def test_a_wait_too_long_to_keep_is_told(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, as_date: bool
    ) -> None:
        late = datetime.now(timezone.utc) + timedelta(hours=1)
        faulty.fail("v1", status(429, Retry_After=format_datetime(late, usegmt=True) if as_date else "3600"))
        with pytest.raises(TooManyRequests) as caught:
            connect().manifest(ref)
        assert "log in" in caught.value.hint and len(faulty.calls) == 1

    def test_patience_ends(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        faulty.fail("v1", *[status(503)] * 9)
        with pytest.raises(RegistryError) as caught:
            connect(attempts=3).manifest(ref)
        assert caught.value.status == 503 and len(faulty.calls) == 3

    def test_a_manifest_cut_short_is_read_again(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        faulty.blobs["v1"] = bits.manifest.raw
        faulty.fail("v1", cut(50))
        assert connect().manifest(ref) == bits.manifest

    def test_a_registry_that_is_down_is_named_with_its_port(self, connect: Connect) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            with pytest.raises(RegistryError, match=f"127.0.0.1:{port}: connection refused") as caught:
                connect(attempts=2).manifest(Reference.parse(f"127.0.0.1:{port}/app"))
        assert caught.value.hint and caught.value.status == 0

    def test_a_host_that_does_not_exist_is_told(self, connect: Connect) -> None:
        with pytest.raises(RegistryError, match=r"nowhere\.invalid:443: "):
            connect(attempts=1, connect_seconds=5).manifest(Reference.parse("nowhere.invalid/app"))

    def test_an_error_says_what_the_registry_says_without_its_control_characters(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        body = {"errors": [{"code": "DENIED", "message": "not\x1b[31m\nfor you"}]}
        faulty.fail("v1", status(403, json.dumps(body).encode()))
        with pytest.raises(Unauthorized) as caught:
            connect().manifest(ref)
        assert caught.value.codes == ("DENIED",)
        assert "not [31m for you" in str(caught.value)


class TestRedirects:
    def test_a_blob_comes_from_another_host_that_sees_no_credentials(
        self, connect: Connect, faulty: FaultyRegistry, folder: Folder
    ) -> None:
        bits = make_image(100_000)
        digest = bits.layers[0].digest
        with Guard() as guard:
            guard.add(bits.manifest, bits.blobs, "v1")
            faulty.add(bits.manifest, bits.blobs)
            guard.fail(
                digest, status(307, Location=f"http://{faulty.host}/elsewhere/{digest}?signature=s3cret")
            )
            ref = Reference.parse(f"{guard.host}/app:v1")
            fetch(connect(Known("ali", "sesame")), ref, bits.layers, folder.open)
            assert guard.seen("GET", digest)[-1].authorization.startswith("Bearer ")
        assert folder.holds(bits)
        assert [call.authorization for call in faulty.calls] == [""]

    def test_a_redirect_at_home_keeps_the_credentials(self, connect: Connect, folder: Folder) -> None:
        bits = make_image(1000)
        digest = bits.layers[0].digest
        with Guard() as guard:
            guard.add(bits.manifest, bits.blobs, "v1")
            guard.fail(digest, status(302, Location=f"/v2/other/blobs/{digest}"))
            fetch(connect(), Reference.parse(f"{guard.host}/app:v1"), bits.layers, folder.open)
        assert folder.holds(bits)

    def test_a_circle_is_left(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        faulty.fail("v1", *[status(302, Location="/v2/app/manifests/v1")] * 20)
        with pytest.raises(RegistryError, match="redirects"):
            connect().manifest(ref)
        assert len(faulty.calls) == 6

    @pytest.mark.parametrize("where", ["http://example.com/x", "file:///etc/passwd", "http://[", "ftp://a/"])
    def test_where_no_redirect_may_lead(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference, where: str
    ) -> None:
        faulty.fail("v1", status(302, Location=where))
        with pytest.raises(RegistryError, match="the registry sends to"):
            connect().manifest(ref)

    def test_a_signature_in_an_address_is_in_no_error(
        self, connect: Connect, faulty: FaultyRegistry, bits: Bits, ref: Reference
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            down = f"http://u:pa55@127.0.0.1:{unused.getsockname()[1]}/x?signature=s3cret"
            faulty.fail("v1", *[status(302, Location=down)] * 2)
            with pytest.raises(RegistryError) as caught:
                connect(attempts=2).manifest(ref)
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
        assert "refused" in shown and "s3cret" not in shown and "pa55" not in shown


class TestTokens:
    @pytest.fixture
    def bits(self) -> Bits:
        return make_image(10, 20, 30)

    def pull(self, connect: Connect, guard: Guard, bits: Bits, folder: Folder) -> None:
        guard.add(bits.manifest, bits.blobs, "v1")
        ref = Reference.parse(f"{guard.host}/app:v1")
        registry = connect()
        fetch(registry, ref, registry.resolve(ref, AMD64).layers, folder.open)
        assert folder.holds(bits)

    @pytest.mark.parametrize("field", ["token", "access_token"])
    def test_one_token_is_bought_for_a_pull(
        self, connect: Connect, bits: Bits, folder: Folder, field: str
    ) -> None:
        with Guard(field=field) as guard:
            self.pull(connect, guard, bits, folder)
            assert guard.sold == ["token-0"]
            asked = guard.seen("GET", "/token")[0].fields
            assert asked == {"service": ["a, quoted service"], "scope": ["repository:app:pull"]}

    def test_a_token_that_was_revoked_is_bought_anew(self, connect: Connect, bits: Bits) -> None:
        with Guard() as guard:
            guard.add(bits.manifest, tag="v1")
            registry, ref = connect(), Reference.parse(f"{guard.host}/app:v1")
            registry.manifest(ref)
            guard.sold[0] = "revoked"
            assert registry.manifest(ref) == bits.manifest
            assert len(guard.sold) == 2

    def test_a_token_server_that_fails_once_is_asked_again(
        self, connect: Connect, bits: Bits, folder: Folder
    ) -> None:
        with Guard() as guard:
            guard.fail("token", status(503))
            self.pull(connect, guard, bits, folder)

    @pytest.mark.parametrize("paper", [b"", b"<html>", b"{}", b'{"token": "two\\nlines"}', b'{"token": 7}'])
    def test_what_is_no_token_is_told(self, connect: Connect, paper: bytes) -> None:
        with Guard() as guard:
            guard.fail("token", status(200, paper))
            with pytest.raises(RegistryError, match="gave no token"):
                connect().manifest(Reference.parse(f"{guard.host}/app:v1"))

    def test_no_credentials_go_to_a_token_server_without_tls(self, connect: Connect) -> None:
        with Guard() as guard:
            guard.realm = "http://tokens.example/token"
            with pytest.raises(RegistryError, match="nothing was sent"):
                connect(Known("ali", "sesame")).manifest(Reference.parse(f"{guard.host}/app:v1"))

    @pytest.mark.parametrize("before", [0, 283], ids=["whole", "cut"])
    @pytest.mark.parametrize("kind", ["application/json", "text/plain"])
    def test_an_answer_that_repeats_the_token_is_not_quoted(
        self, connect: Connect, kind: str, before: int
    ) -> None:
        def parrot(server: FaultyRegistry, call: Call) -> None:
            said = f"{'x' * before} I saw {call.authorization}"
            body = json.dumps({"errors": [{"code": "DENIED", "message": said}]})
            text = said if kind == "text/plain" else body
            call.answer(403, text.encode(), {"Content-Type": kind})

        with Guard() as guard:
            guard.fail("v1", parrot)
            with pytest.raises(Unauthorized) as caught:
                connect().manifest(Reference.parse(f"{guard.host}/app:v1"))
        assert "I saw" not in str(caught.value)
