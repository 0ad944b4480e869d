"""Proxies: those that are given, and none that the environment names."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from img.errors import RegistryError, UsageError
from img.oci import Reference

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import Call, FaultyRegistry, Server, status

REF = Reference.parse("far.invalid/app:v1")
TOLD = frozenset({"far.invalid"})
IMAGE = make_image()
USER = "user%40corp:pass%3Aword"
BASIC = "Basic " + base64.b64encode(b"user@corp:pass:word").decode()


class Tunnel(Server):
    """A proxy that connects whoever is asked for to one server, for a user with the password."""

    def __init__(self, upstream: str, *, closed: int = 0) -> None:
        super().__init__()
        self._upstream = upstream
        self._closed = closed

    def serve(self, call: Call) -> None:
        if self._closed or call.headers.get("Proxy-Authorization") != BASIC:
            call.answer(self._closed or 407)
            return
        host, _, port = self._upstream.partition(":")
        with socket.create_connection((host, int(port))) as upstream:
            call.begin(200, {})
            with contextlib.suppress(OSError):
                _join(call._handler.connection, upstream)
        call.hang_up()


def _join(one: socket.socket, other: socket.socket) -> None:
    pairs = {one: other, other: one}
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            pairs[ready].sendall(data)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def far(authority: trustme.CA) -> Iterator[FaultyRegistry]:
    """The registry `far.invalid` with TLS, which only a proxy can reach."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("far.invalid", "more.invalid").configure_cert(context)
    with FaultyRegistry(context) as running:
        running.add(IMAGE.manifest, IMAGE.blobs, "v1")
        yield running


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def test_a_registry_is_reached_through_the_proxy(connect: Connect, faulty: FaultyRegistry) -> None:
    faulty.add(IMAGE.manifest, tag="v1")
    registry = connect(plain_http=TOLD, proxies={"http": f"http://{USER}@{faulty.host}"})
    assert registry.manifest(REF) == IMAGE.manifest
    assert faulty.calls[0].path == "http://far.invalid/v2/app/manifests/v1"
    assert faulty.calls[0].headers["Proxy-Authorization"] == BASIC


def test_a_registry_with_tls_is_reached_through_a_tunnel(
    connect: Connect, far: FaultyRegistry, ca_file: str
) -> None:
    with Tunnel(far.host) as proxy:
        # Without a scheme, as it is often written.
        registry = connect(ca_file=ca_file, proxies={"https": f"{USER}@{proxy.host}"})
        assert registry.manifest(REF) == IMAGE.manifest
        assert [call.path for call in proxy.calls] == ["far.invalid:443"]
    assert "Proxy-Authorization" not in far.calls[0].headers


def test_each_host_of_a_redirect_is_decided_upon_anew(
    connect: Connect, far: FaultyRegistry, faulty: FaultyRegistry, ca_file: str
) -> None:
    layer = IMAGE.layers[0]
    faulty.blobs.update(IMAGE.blobs)
    with Tunnel(far.host) as proxy:
        registry = connect(
            ca_file=ca_file,
            insecure=frozenset({"127.0.0.1"}),
            proxies={"https": f"http://{USER}@{proxy.host}"},
            no_proxy=("other.invalid",),
        )
        far.fail(layer.digest, status(307, Location=f"https://more.invalid/x/{layer.digest}"))
        assert registry.document(REF, layer) == IMAGE.blobs[layer.digest]
        assert [call.path for call in proxy.calls] == ["far.invalid:443", "more.invalid:443"]
        far.fail(layer.digest, status(307, Location=f"http://{faulty.host}/x/{layer.digest}"))
        assert registry.document(REF, layer) == IMAGE.blobs[layer.digest]
        assert len(proxy.calls) == 2 and faulty.calls


@pytest.mark.parametrize(
    ("user", "closed", "told"),
    [
        ("", 0, "wants a user and a password"),
        ("eve:guessed-it@", 0, "wants a user and a password"),
        (f"{USER}@", 403, "refuses with 403"),
    ],
)
def test_a_proxy_that_refuses_is_told_without_its_password(
    connect: Connect, far: FaultyRegistry, user: str, closed: int, told: str
) -> None:
    with Tunnel(far.host, closed=closed) as proxy, pytest.raises(RegistryError) as caught:
        connect(proxies={"https": f"http://{user}{proxy.host}"}, attempts=1).manifest(REF)
    text = f"{caught.value}{caught.value.hint}{caught.value.__cause__!r}"
    assert f"the proxy http://{proxy.host} {told}" in text
    assert "guessed-it" not in text and "pass" not in text.replace("password", "")


@pytest.mark.parametrize("proxy", ["http://u:secret@127.0.0.1:1", "http://u:secret@nowhere.invalid:3128"])
def test_a_proxy_that_is_not_there_is_told(connect: Connect, proxy: str) -> None:
    with pytest.raises(RegistryError) as caught:
        connect(proxies={"https": proxy}, attempts=1).manifest(REF)
    text = f"{caught.value}{caught.value.hint}{caught.value.__cause__!r}"
    assert f"the proxy http://{proxy.partition('@')[2]} gives no connection" in text and "secret" not in text


@pytest.mark.parametrize(
    ("proxy", "told"),
    [("socks5h://u:secret@127.0.0.1:1", "SOCKS"), ("ftp://u:secret@127.0.0.1:1", "none that can be used")],
)
def test_a_proxy_of_another_kind_is_told(connect: Connect, proxy: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        connect(proxies={"https": proxy}).manifest(REF)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("exempt", ["far.invalid", ".invalid", "far.invalid:80", "*"])
def test_an_exempt_registry_is_reached_directly(
    connect: Connect, faulty: FaultyRegistry, exempt: str
) -> None:
    proxies = {"http": f"http://{faulty.host}"}
    with pytest.raises(RegistryError, match=r"far\.invalid"):
        connect(plain_http=TOLD, proxies=proxies, no_proxy=(exempt,), attempts=1).manifest(REF)
    assert not faulty.calls


def test_loopback_is_reached_directly(connect: Connect, faulty: FaultyRegistry) -> None:
    faulty.add(IMAGE.manifest, tag="v1")
    registry = connect(proxies={"http": "http://far.invalid:1"}, attempts=1)
    assert registry.manifest(Reference.parse(f"{faulty.host}/app:v1")) == IMAGE.manifest


def test_the_environment_is_not_read(
    connect: Connect, faulty: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{faulty.host}")
    with pytest.raises(RegistryError, match=r"far\.invalid"):
        connect(plain_http=TOLD, attempts=1).manifest(REF)
    assert not faulty.calls
