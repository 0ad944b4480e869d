"""Connections that stall, drip or go nowhere are given up in time, and the work goes on elsewhere or ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trustme
from img.errors import RegistryError
from img.oci import Reference
from img.registry import Options, Stop, Stopped, fetch
from img.web.sockets import _alternating
from img.web.sockets import connect as open_connection

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import Folder, make_image
from tests.suites.registry.servers import Call, Fault, FaultyRegistry

BITS = make_image(400_000)
LAYER = BITS.layers[0]


@pytest.fixture
def ref(faulty: FaultyRegistry) -> Reference:
    faulty.add(BITS.manifest, BITS.blobs, "v1")
    return Reference.parse(f"{faulty.host}/app:v1")


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Lets servers that are slow for ever go when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def dripping_head(over: threading.Event) -> Fault:
    """Sends a head that never ends, a line every now and then."""

    def fault(server: FaultyRegistry, call: Call) -> None:
        call.hang_up()
        call.send(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                call.send(b"X-More: to come\r\n")

    return fault


def dripping_body(over: threading.Event) -> Fault:
    """Sends the beginning of a blob, and then a byte every now and then."""

    def fault(server: FaultyRegistry, call: Call) -> None:
        call.hang_up()
        content = BITS.blobs[LAYER.digest]
        call.begin(200, {"Content-Length": str(len(content))})
        call.send(content[:200_000])
        with contextlib.suppress(OSError):
            for at in range(200_000, len(content)):
                if over.wait(0.02):
                    return
                call.send(content[at : at + 1])

    return fault


@pytest.mark.parametrize("continues", [False, True])
def test_a_head_that_drips_for_ever_ends(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, over: threading.Event, continues: bool
) -> None:
    faulty.fail("v1", dripping_head(over))
    begun = time.monotonic()
    client = connect(read_seconds=1, attempts=5 if continues else 1)
    if continues:
        assert client.manifest(ref) == BITS.manifest
    else:
        with pytest.raises(RegistryError, match="too slow"):
            client.manifest(ref)
    assert time.monotonic() - begun < 30


def test_a_blob_that_drips_is_resumed_where_it_was(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, folder: Folder, over: threading.Event
) -> None:
    faulty.fail(LAYER.digest, dripping_body(over))
    fetch(connect(read_seconds=0.3, least_bytes_per_second=10_000), ref, BITS.layers, folder.open)
    assert folder.holds(BITS)
    assert int(faulty.calls[-1].headers["Range"].removeprefix("bytes=").split("-")[0]) >= 150_000


def test_a_blob_that_is_slow_and_steady_is_taken(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, folder: Folder
) -> None:
    def steady(server: FaultyRegistry, call: Call) -> None:
        content = BITS.blobs[LAYER.digest]
        call.begin(200, {"Content-Length": str(len(content))})
        for at in range(0, len(content), 20_000):
            call.send(content[at : at + 20_000])
            threading.Event().wait(0.1)

    faulty.fail(LAYER.digest, steady)
    fetch(connect(read_seconds=1, least_bytes_per_second=10_000), ref, BITS.layers, folder.open)
    assert folder.holds(BITS) and len(faulty.seen("GET", LAYER.digest)) == 1


@pytest.mark.parametrize("what", ["blob", "upload"])
def test_a_stop_ends_the_wait_for_a_head_at_once(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, folder: Folder, what: str
) -> None:
    asked, over, stop = threading.Event(), threading.Event(), Stop()

    def silent(server: FaultyRegistry, call: Call) -> None:
        asked.set()
        over.wait(60)
        call.hang_up()

    def watch() -> None:
        asked.wait(60)
        stop.set()

    faulty.fail(LAYER.digest if what == "blob" else "", silent)
    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    other = make_image(5, seed=2).layers[0]
    work: dict[str, Callable[[], object]] = {
        "blob": lambda: fetch(connect(), ref, BITS.layers, folder.open, stop=stop),
        "upload": lambda: connect().push_blob(ref, other, lambda: BITS.open(LAYER), stop=stop),
    }
    with pytest.raises(Stopped):
        work[what]()
    assert time.monotonic() - begun < 20
    over.set()
    watcher.join()


@contextlib.contextmanager
def deaf(authority: trustme.CA | None) -> Iterator[str]:
    """A server that takes connections and never reads a request; gives its host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if authority:
        authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    taken.append(context.wrap_socket(sock, server_side=True) if authority else sock)

        thread = threading.Thread(target=take)
        thread.start()
        # 0.0.0.0 leads here as well, and is not taken for loopback, which would be tried without TLS.
        yield f"{'0.0.0.0' if authority else '127.0.0.1'}:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for sock in taken:
            sock.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_write_that_blocks_for_ever_ends(connect: Connect, tls: bool) -> None:
    big = make_image(20_000_000)
    with deaf(trustme.CA() if tls else None) as host:
        ref = Reference.parse(f"{host}/app:v1")
        client = connect(read_seconds=0.3, attempts=1, insecure=frozenset({host}))
        begun = time.monotonic()
        body = big.blobs[big.layers[0].digest]
        with pytest.raises(RegistryError) as caught:
            client._wire.run(
                lambda: client._wire.exchange("PUT", ref, "blobs/uploads/1", what="a blob", body=body)
            )
        assert time.monotonic() - begun < 30 and "silent for 0.3 seconds" in str(caught.value)


class TestAddresses:
    def test_one_that_lingers_does_not_hold_up_the_next(self) -> None:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        with full, socket.create_server(("127.0.0.1", 0)) as good, contextlib.ExitStack() as held:
            # A listener whose queue is full answers no further connection: it is as if it were far away.
            for _ in range(3):
                sock = held.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", s.getsockname()) for s in (full, good)]
            begun = time.monotonic()
            with open_connection(infos, 60) as found:
                assert found.getpeername() == good.getsockname()
            assert time.monotonic() - begun < 30
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                open_connection(infos[:1] * 60, 0.5)
            assert time.monotonic() - begun < 20

    def test_one_that_refuses_is_passed_over_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as good:
            closed = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
            opened = (*closed[:4], good.getsockname())
            open_connection([closed, opened], 5).close()
            with pytest.raises(ConnectionRefusedError):
                open_connection([closed, closed], 5)

    def test_both_families_take_turns(self) -> None:
        six, four = (socket.AF_INET6, "a"), (socket.AF_INET, "b")
        assert _alternating([six, six, six, four]) == [six, four, six, six]
        assert _alternating([four, six, six]) == [four, six, six]

    def test_a_registry_on_ipv6_is_reached(self, connect: Connect) -> None:
        with FaultyRegistry(address="::1") as registry:
            registry.add(BITS.manifest, BITS.blobs, "v1")
            ref = Reference.parse(f"{registry.host}/app:v1")
            assert ref.registry.startswith("[::1]:")
            assert connect().manifest(ref) == BITS.manifest
            assert registry.calls[0].headers["Host"] == registry.host
        with pytest.raises(RegistryError, match=r"\[::1\]:\d+: connection refused"):
            connect(attempts=1).manifest(ref)

    def test_a_registry_on_ipv6_has_its_folder_of_certificates(
        self, connect: Connect, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("::1").configure_cert(context)
        with FaultyRegistry(context, address="::1") as registry:
            registry.add(BITS.manifest, BITS.blobs, "v1")
            root = tmp_path_factory.mktemp("certs.d")
            (root / registry.host).mkdir()
            authority.cert_pem.write_to_path(str(root / registry.host / "ca.crt"))
            ref = Reference.parse(f"{registry.host}/app:v1")
            assert connect(cert_dirs=(str(root),)).manifest(ref) == BITS.manifest


def test_the_usual_limits_are_patient() -> None:
    usual = Options()
    assert usual.read_seconds >= 30 and usual.least_bytes_per_second <= 1024
