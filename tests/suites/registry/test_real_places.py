"""Real docker-registries as mirrors, behind TLS with client certificates, read-only and on IPv6."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from img.errors import RegistryError
from img.oci import Reference
from img.progress import Event, Note
from img.registry import Upload, fetch, push

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import AMD64, Folder, make_image
from tests.support.registry import Registry

BITS = make_image(300_000, 5)


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory, needs_docker_registry: None) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("main")) as running:
        yield running


@pytest.fixture
def ref(main: Registry, connect: Connect, name: str) -> Reference:
    """An image in the registry."""
    found = Reference.parse(f"{main.host}/{name}:v1")
    push(connect(), found, BITS.manifest, BITS.open)
    return found


def test_a_pull_through_mirror_gives_what_it_fetches_itself(
    connect: Connect, main: Registry, ref: Reference, tmp_path: Path, folder: Folder
) -> None:
    with Registry(tmp_path / "mirror", proxy=f"http://{main.host}") as mirror:
        told: list[Event] = []
        client = connect(progress=told.append, mirrors=(f"{main.host}={mirror.host}",))
        assert client.resolve(ref, AMD64) == BITS.manifest
        fetch(client, ref, BITS.layers, folder.open)
        assert folder.holds(BITS)
        notes = [event.text for event in told if isinstance(event, Note)]
        assert len(notes) == 3 and all(f"from mirror {mirror.host}" in note for note in notes)
        new = Reference.parse(f"{ref.name}:v2")
        assert push(client, new, BITS.manifest, BITS.open) == BITS.manifest.digest  # not to the mirror
        assert connect().manifest(new) == BITS.manifest


def test_another_registry_as_mirror_has_some_images_and_the_registry_the_others(
    connect: Connect, main: Registry, ref: Reference, tmp_path: Path, folder: Folder
) -> None:
    other = make_image(1000, seed=9)
    with Registry(tmp_path / "mirror") as mirror:
        at_mirror = Reference.parse(f"{mirror.host}/copies/only/here:v1")
        push(connect(), at_mirror, other.manifest, other.open)
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nprefix = "{main.host}"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.host}/copies"\ninsecure = true\n'
        )
        client = connect(registries_conf=(str(conf),))
        assert client.manifest(Reference.parse(f"{main.host}/only/here:v1")) == other.manifest
        assert client.manifest(ref) == BITS.manifest
        fetch(client, ref, BITS.layers, folder.open)
        assert folder.holds(BITS)


def test_a_rewrite_pushes_pulls_and_mounts_at_its_location(
    connect: Connect, main: Registry, ref: Reference, tmp_path: Path
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nprefix = "far.invalid/team"\nlocation = "{main.host}/moved"\n')
    client = connect(registries_conf=(str(conf),))
    there = Reference.parse("far.invalid/team/app:v1")
    assert push(client, there, BITS.manifest, BITS.open) == BITS.manifest.digest
    assert connect().manifest(Reference.parse(f"{main.host}/moved/app:v1")) == BITS.manifest
    beside = Reference.parse("far.invalid/team/other:v1")
    layer = BITS.layers[0]
    made = client.push_blob(beside, layer, lambda: BITS.open(layer), mount_from=(there.repository,))
    assert made is Upload.MOUNTED
    assert client.tags(there) == ["v1"]


def test_what_is_read_only_says_so(connect: Connect, tmp_path: Path, ref: Reference, main: Registry) -> None:
    with Registry(main.folder, readonly=True) as frozen:
        here = Reference.parse(f"{frozen.host}/{ref.repository}:v1")
        assert connect().manifest(here) == BITS.manifest
        other = make_image(10, seed=4)
        with pytest.raises(RegistryError) as caught:
            push(connect(), here, other.manifest, other.open)
        assert caught.value.status == 405 and "read-only" in caught.value.hint


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_a_registry_that_wants_a_certificate_is_shown_that_of_its_folder(
    connect: Connect, tmp_path: Path, folder: Folder, address: str, needs_docker_registry: None
) -> None:
    authority = trustme.CA()
    own, mine = authority.issue_cert(address.strip("[]")), authority.issue_cert("me@example.com")
    paths = {name: tmp_path / name for name in ("ca.crt", "server.pem", "server.key")}
    authority.cert_pem.write_to_path(str(paths["ca.crt"]))
    own.private_key_pem.write_to_path(str(paths["server.key"]))
    paths["server.pem"].write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    tls = paths["server.pem"], paths["server.key"]
    with Registry(tmp_path / "r", tls=tls, client_ca=paths["ca.crt"], address=address) as registry:
        certs = tmp_path / "certs.d" / registry.host
        certs.mkdir(parents=True)
        authority.cert_pem.write_to_path(str(certs / "ca.crt"))
        ref = Reference.parse(f"{registry.host}/app:v1")
        with pytest.raises(RegistryError, match=r"TLS|broke"):
            connect(cert_dirs=(str(certs.parent),), attempts=1).manifest(ref)
        mine.private_key_pem.write_to_path(str(certs / "me.key"))
        (certs / "me.cert").write_bytes(b"".join(blob.bytes() for blob in mine.cert_chain_pems))
        client = connect(cert_dirs=(str(certs.parent),))
        push(client, ref, BITS.manifest, BITS.open)
        assert client.manifest(ref) == BITS.manifest
        fetch(client, ref, BITS.layers, folder.open)
        assert folder.holds(BITS)
