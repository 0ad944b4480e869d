"""Mirrors and rewrites: asked first, believed no more than anybody, and left when they fail."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from img.errors import NotFound, RegistryBlocked, RegistryError, Unauthorized
from img.oci import Reference
from img.progress import Event, Note
from img.registry import Credentials, Upload, fetch

from tests.suites.registry.conftest import Connect, Known
from tests.suites.registry.images import Bits, Folder, make_image
from tests.suites.registry.servers import Call, FaultyRegistry, Guard, cut, status

Write = Callable[..., str]


@pytest.fixture
def mirror() -> Iterator[FaultyRegistry]:
    with FaultyRegistry() as running:
        yield running


@pytest.fixture
def bits(faulty: FaultyRegistry, mirror: FaultyRegistry) -> Bits:
    """An image on offer as `v1`, by the registry and by its mirror."""
    made = make_image(2_000_000, 5)
    for server in (faulty, mirror):
        server.add(made.manifest, made.blobs, "v1")
    return made


@pytest.fixture
def ref(faulty: FaultyRegistry) -> Reference:
    return Reference.parse(f"{faulty.host}/app:v1")


@pytest.fixture
def conf(tmp_path: Path, faulty: FaultyRegistry, mirror: FaultyRegistry) -> Write:
    """Writes a registries.conf about the registry; gives its path."""

    def write(*mirrors: str, **settings: str) -> str:
        lines = ["[[registry]]", f'prefix = "{faulty.host}"']
        lines += [f"{name} = {value}" for name, value in settings.items()]
        for location in mirrors or (f"{mirror.host}/copies",):
            lines += ["[[registry.mirror]]", f'location = "{location}"']
        path = tmp_path / "registries.conf"
        path.write_text("\n".join(lines))
        return str(path)

    return write


def pull(connect: Connect, ref: Reference, bits: Bits, folder: Folder, **options: object) -> None:
    registry = connect(**options)
    assert registry.manifest(ref) == bits.manifest
    fetch(registry, ref, bits.layers, folder.open)
    assert folder.holds(bits)


def test_what_the_mirror_has_is_not_asked_of_the_registry(
    connect: Connect,
    ref: Reference,
    bits: Bits,
    folder: Folder,
    faulty: FaultyRegistry,
    mirror: FaultyRegistry,
    conf: Write,
) -> None:
    told: list[Event] = []
    pull(connect, ref, bits, folder, progress=told.append, registries_conf=(conf(),))
    assert not faulty.calls
    assert mirror.calls[0].path == "/v2/copies/app/manifests/v1"
    notes = [event.text for event in told if isinstance(event, Note)]
    assert f"image {ref}: from mirror {mirror.host}" in notes


@pytest.mark.parametrize("code", [404, 401, 403, 429, 500, 503])
def test_a_mirror_that_refuses_is_asked_once(
    connect: Connect,
    ref: Reference,
    bits: Bits,
    folder: Folder,
    faulty: FaultyRegistry,
    mirror: FaultyRegistry,
    code: int,
) -> None:
    mirror.fail("v1", status(code, Retry_After="30"))
    pull(connect, ref, bits, folder, mirrors=(f"{faulty.host}={mirror.host}",))
    assert len(mirror.calls) == 1 and len(faulty.calls) == 3


def test_a_mirror_that_is_not_there_costs_no_patience(
    connect: Connect, ref: Reference, bits: Bits, folder: Folder, faulty: FaultyRegistry
) -> None:
    told: list[Event] = []
    pull(connect, ref, bits, folder, progress=told.append, mirrors=(f"{faulty.host}=127.0.0.1:1",))
    notes = [event.text for event in told if isinstance(event, Note)]
    assert len(notes) == 1 and "connection refused" in notes[0] and "passed over" in notes[0]


def test_the_second_mirror_is_asked_where_the_first_has_nothing(
    connect: Connect,
    ref: Reference,
    bits: Bits,
    folder: Folder,
    faulty: FaultyRegistry,
    mirror: FaultyRegistry,
    conf: Write,
) -> None:
    with FaultyRegistry() as empty:
        pull(connect, ref, bits, folder, registries_conf=(conf(empty.host, mirror.host),))
        assert len(empty.calls) == 1
    assert not faulty.calls


def test_a_blob_that_breaks_at_the_mirror_is_resumed_at_the_registry(
    connect: Connect,
    ref: Reference,
    bits: Bits,
    folder: Folder,
    faulty: FaultyRegistry,
    mirror: FaultyRegistry,
) -> None:
    mirror.fail(bits.layers[0].digest, cut(1_000_000))
    pull(connect, ref, bits, folder, mirrors=(f"{faulty.host}={mirror.host}",))
    (resumed, *_) = faulty.seen("GET", bits.layers[0].digest)
    assert int(resumed.headers["Range"].removeprefix("bytes=").split("-")[0]) > 0


@pytest.mark.parametrize("what", ["manifest", "page", "blob", "size"])
def test_wrong_bytes_of_a_mirror_are_never_taken(
    connect: Connect,
    ref: Reference,
    bits: Bits,
    folder: Folder,
    faulty: FaultyRegistry,
    mirror: FaultyRegistry,
    what: str,
) -> None:
    other, layer = make_image(7).manifest, bits.layers[0]
    if what == "manifest":
        mirror.fail("v1", status(200, other.raw, Docker_Content_Digest=bits.manifest.digest))
    elif what == "page":
        mirror.fail("v1", status(200, b"<html>log in, please</html>", Content_Type="text/html"))
    else:
        mirror.blobs[layer.digest] = bytes(layer.size + (what == "size"))
    pull(connect, ref, bits, folder, mirrors=(f"{faulty.host}={mirror.host}",))
    assert faulty.calls and len(mirror.seen("GET", layer.digest)) <= 1


def test_a_mirror_is_asked_again_when_the_registry_is_not_there(
    connect: Connect, bits: Bits, folder: Folder, mirror: FaultyRegistry
) -> None:
    mirror.fail("v1", status(503), status(503))
    ref = Reference.parse("127.0.0.1:1/app:v1")
    pull(connect, ref, bits, folder, mirrors=(f"127.0.0.1:1={mirror.host}",))


def test_an_error_tells_what_the_mirrors_said(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, mirror: FaultyRegistry
) -> None:
    with pytest.raises(NotFound) as caught:
        connect(mirrors=(f"{faulty.host}=127.0.0.1:1", f"{faulty.host}={mirror.host}")).manifest(ref)
    text = str(caught.value)
    assert f"{ref.registry} has no image" in text
    assert "its mirror 127.0.0.1:1: 127.0.0.1:1: connection refused" in text
    assert f"its mirror {mirror.host}: {mirror.host} has no image" in text


def test_tags_come_from_the_mirror_page_by_page(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, mirror: FaultyRegistry, conf: Write
) -> None:
    pages = [b'{"tags": ["a"]}', b'{"tags": ["b"]}']
    link = '</v2/copies/app/tags/list?last=a>; rel="next"'
    mirror.fail("list", status(200, pages[0], Link=link), status(200, pages[1]))
    assert connect(registries_conf=(conf(),)).tags(ref) == ["a", "b"]
    assert not faulty.calls


def test_a_push_goes_to_the_registry_alone(
    connect: Connect, ref: Reference, bits: Bits, faulty: FaultyRegistry, mirror: FaultyRegistry
) -> None:
    registry = connect(mirrors=(f"{faulty.host}={mirror.host}",))
    assert registry.push_blob(ref, bits.layers[0], lambda: bits.open(bits.layers[0])) is Upload.PRESENT
    assert not mirror.calls and faulty.seen("HEAD")


def test_what_is_rewritten_is_asked_for_at_its_location(
    connect: Connect,
    ref: Reference,
    bits: Bits,
    folder: Folder,
    faulty: FaultyRegistry,
    mirror: FaultyRegistry,
    conf: Write,
) -> None:
    path = conf("127.0.0.1:1", location=f'"{mirror.host}/elsewhere"')
    pull(connect, ref, bits, folder, registries_conf=(path,))
    assert {call.path.split("/")[2] for call in mirror.calls} == {"elsewhere"} and not faulty.calls


def test_what_is_blocked_is_not_asked_for(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, mirror: FaultyRegistry, conf: Write
) -> None:
    path = conf(blocked="true")
    for verb in (connect(registries_conf=(path,)).manifest, connect(registries_conf=(path,)).tags):
        with pytest.raises(RegistryBlocked, match=f"{path}:1 blocks {faulty.host}"):
            verb(ref)
    assert not faulty.calls and not mirror.calls


class KnownTo(Known):
    """A keychain that knows a user of one registry alone, and notes what it was asked."""

    def __init__(self, registry: str) -> None:
        super().__init__("ali", "secret")
        self.registry = registry
        self.asked: list[tuple[str, str]] = []

    def get(self, registry: str, repository: str) -> Credentials | None:
        self.asked.append((registry, repository))
        return super().get(registry, repository) if registry == self.registry else None


def test_a_mirror_never_sees_the_credentials_of_the_registry(connect: Connect, bits: Bits) -> None:
    basic = "Basic " + base64.b64encode(b"ali:secret").decode()

    class Basic(FaultyRegistry):
        def serve(self, call: Call) -> None:
            if call.authorization == basic:
                super().serve(call)
            else:
                call.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})

    with Basic() as registry, Basic() as mirror:
        registry.add(bits.manifest, bits.blobs, "v1")
        ref = Reference.parse(f"{registry.host}/app:v1")
        keychain = KnownTo(registry.host)
        client = connect(keychain, mirrors=(f"{registry.host}={mirror.host}/copies",))
        assert client.manifest(ref) == bits.manifest
        assert [call.authorization for call in mirror.calls] == [""]
        assert (mirror.host, "copies/app") in keychain.asked


def test_a_mirror_is_asked_for_a_token_with_its_own_name_and_credentials(
    connect: Connect, bits: Bits
) -> None:
    with FaultyRegistry() as registry, Guard() as mirror:
        mirror.add(bits.manifest, bits.blobs, "v1")
        ref = Reference.parse(f"{registry.host}/app:v1")
        client = connect(KnownTo(mirror.host), mirrors=(f"{registry.host}={mirror.host}/copies",))
        assert client.manifest(ref) == bits.manifest
        (sold,) = mirror.seen("GET", "/token")
        assert "repository:copies/app:pull" in sold.fields["scope"] and sold.authorization
        assert not registry.calls


def test_a_redirect_of_a_mirror_takes_no_credentials_along(connect: Connect, bits: Bits) -> None:
    with FaultyRegistry() as storage, Guard() as mirror:
        storage.add(bits.manifest, bits.blobs, "v1")
        mirror.add(bits.manifest, {}, "v1")
        layer = bits.layers[0]
        mirror.fail(layer.digest, status(307, Location=f"http://{storage.host}/x/{layer.digest}"))
        ref = Reference.parse("127.0.0.1:1/app:v1")
        client = connect(Known("ali", "secret"), mirrors=(f"127.0.0.1:1={mirror.host}",))
        assert client.document(ref, layer) == bits.blobs[layer.digest]
        assert [call.authorization for call in storage.calls] == [""]
        assert mirror.seen("GET", layer.digest)[-1].authorization


def test_a_mirror_without_a_way_in_is_no_failure_and_a_registry_without_one_is(
    connect: Connect, ref: Reference, faulty: FaultyRegistry, mirror: FaultyRegistry
) -> None:
    for server in (mirror, faulty):
        server.fail("v1", status(401, WWW_Authenticate='Basic realm="x"'))
    with pytest.raises(Unauthorized) as caught:
        connect(mirrors=(f"{faulty.host}={mirror.host}",)).manifest(ref)
    assert f"its mirror {mirror.host}: {mirror.host} refuses access" in str(caught.value)
    assert faulty.host in caught.value.hint


def test_threads_share_what_is_known_of_a_mirror(
    connect: Connect, ref: Reference, bits: Bits, faulty: FaultyRegistry, mirror: FaultyRegistry
) -> None:
    mirror.fail("v1", status(503))
    client = connect(mirrors=(f"{faulty.host}={mirror.host}",))
    assert client.manifest(ref) == bits.manifest
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.manifest(ref)
        except RegistryError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(mirror.calls) == 1
