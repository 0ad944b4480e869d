"""TLS on loopback: found out, verified, and trusted otherwise only where told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from img.errors import RegistryError, UsageError
from img.oci import Descriptor, Reference, sha256
from img.oci.descriptor import DOCKER_FOREIGN_LAYER_GZIP
from img.registry import fetch

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import Folder, make_image
from tests.suites.registry.servers import Call, FaultyRegistry, status

MANIFEST = make_image().manifest
FAR = "0.0.0.0"
"""An address that leads here, and is not taken for loopback."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(made)
    return made


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FaultyRegistry]:
    """A registry that speaks TLS, with a certificate of an authority that nobody knows."""
    with FaultyRegistry(context(authority)) as running:
        running.add(MANIFEST, tag="v1")
        yield running


@pytest.fixture
def strict(authority: trustme.CA) -> Iterator[FaultyRegistry]:
    """One that wants to be shown a certificate of the same authority."""
    made = context(authority)
    made.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(made)
    with FaultyRegistry(made) as running:
        running.add(MANIFEST, tag="v1")
        yield running


@pytest.fixture
def ref(secure: FaultyRegistry) -> Reference:
    return Reference.parse(f"{secure.host}/app:v1")


def certs_d(root: Path, host: str, authority: trustme.CA, *, client: bool = False) -> str:
    """A `certs.d` with the folder of one host; gives its path."""
    folder = root / "certs.d" / host
    folder.mkdir(parents=True)
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    if client:
        shown = authority.issue_cert("client@example.com")
        shown.private_key_pem.write_to_path(str(folder / "me.key"))
        (folder / "me.cert").write_bytes(b"".join(blob.bytes() for blob in shown.cert_chain_pems))
    return str(root / "certs.d")


def test_an_unknown_authority_is_refused_at_once_with_what_to_do(connect: Connect, ref: Reference) -> None:
    with pytest.raises(RegistryError, match=f"certificate of {ref.registry} was refused") as caught:
        connect().manifest(ref)
    assert "authority" in caught.value.hint and "insecure" in caught.value.hint


def test_an_authority_of_ones_own_is_enough(
    connect: Connect, ref: Reference, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert connect(ca_file=str(tmp_path / "ca.pem")).manifest(ref) == MANIFEST


@pytest.mark.parametrize("entry", ["", "127.0.0.1", "127.0.0.0/8", "*"])
def test_a_registry_named_insecure_is_believed(connect: Connect, ref: Reference, entry: str) -> None:
    assert connect(insecure=frozenset({entry or ref.registry})).manifest(ref) == MANIFEST


@pytest.mark.parametrize("entry", ["127.0.0.1:1", "10.0.0.0/8", "example.com"])
def test_another_registry_named_insecure_changes_nothing(
    connect: Connect, ref: Reference, entry: str
) -> None:
    with pytest.raises(RegistryError, match="was refused"):
        connect(insecure=frozenset({entry})).manifest(ref)


def test_an_insecure_mirror_is_believed_and_the_registry_is_not(
    connect: Connect, ref: Reference, secure: FaultyRegistry, authority: trustme.CA, tmp_path: Path
) -> None:
    conf = tmp_path / "r.conf"
    conf.write_text(
        '[[registry]]\nprefix = "far.invalid"\n[[registry.mirror]]\n'
        f'location = "{ref.registry}"\ninsecure = true'
    )
    client = connect(registries_conf=(str(conf),))
    assert client.manifest(Reference.parse("far.invalid/app:v1")) == MANIFEST
    with pytest.raises(RegistryError, match="was refused"):
        client.manifest(ref)


class TestCertsD:
    def test_the_folder_of_host_and_port_counts(
        self, connect: Connect, ref: Reference, authority: trustme.CA, tmp_path: Path
    ) -> None:
        root = certs_d(tmp_path, ref.registry, authority)
        assert connect(cert_dirs=("/missing", root)).manifest(ref) == MANIFEST

    def test_the_folder_of_another_port_does_not(
        self, connect: Connect, ref: Reference, authority: trustme.CA, tmp_path: Path
    ) -> None:
        root = certs_d(tmp_path, "127.0.0.1:1", authority)
        with pytest.raises(RegistryError, match="was refused"):
            connect(cert_dirs=(root,)).manifest(ref)

    def test_a_client_shows_its_certificate(
        self, connect: Connect, strict: FaultyRegistry, authority: trustme.CA, tmp_path: Path
    ) -> None:
        ref = Reference.parse(f"{strict.host}/app:v1")
        root = certs_d(tmp_path, strict.host, authority, client=True)
        assert connect(cert_dirs=(root,)).manifest(ref) == MANIFEST
        assert connect(cert_dir=f"{root}/{strict.host}").manifest(ref) == MANIFEST
        bare = certs_d(tmp_path / "bare", strict.host, authority)
        with pytest.raises(RegistryError):
            connect(cert_dirs=(bare,), attempts=1).manifest(ref)

    def test_a_mirror_is_shown_its_own_certificate_alone(
        self,
        connect: Connect,
        ref: Reference,
        strict: FaultyRegistry,
        authority: trustme.CA,
        tmp_path: Path,
    ) -> None:
        root = certs_d(tmp_path, ref.registry, authority, client=True)
        (tmp_path / "certs.d" / strict.host).mkdir()
        authority.cert_pem.write_to_path(f"{root}/{strict.host}/ca.crt")
        client = connect(cert_dirs=(root,), mirrors=(f"{ref.registry}={strict.host}",))
        assert client.manifest(ref) == MANIFEST
        assert not strict.calls  # it was reached, and broke off: nothing of the registry's was shown

    def test_the_authorities_of_a_registry_hold_for_where_it_sends(
        self, connect: Connect, ref: Reference, secure: FaultyRegistry, authority: trustme.CA, tmp_path: Path
    ) -> None:
        with FaultyRegistry(context(authority)) as storage:
            storage.add(MANIFEST, tag="v1")
            secure.fail("v1", status(307, Location=f"https://{storage.host}/v2/app/manifests/v1"))
            root = certs_d(tmp_path, ref.registry, authority)
            assert connect(cert_dirs=(root,)).manifest(ref) == MANIFEST
            assert storage.calls

    def test_storage_is_shown_its_own_certificate_where_something_is_read_alone(
        self,
        connect: Connect,
        ref: Reference,
        secure: FaultyRegistry,
        strict: FaultyRegistry,
        authority: trustme.CA,
        tmp_path: Path,
    ) -> None:
        """Else a registry could have another one written to, or deleted from, in its user's name."""
        certs_d(tmp_path, ref.registry, authority)
        root = certs_d(tmp_path, strict.host, authority, client=True)
        client = connect(cert_dirs=(root,), attempts=1)
        there = f"https://{strict.host}/v2/app/manifests/v1"
        secure.fail("v1", status(307, Location=there))
        assert client.manifest(ref) == MANIFEST
        read = len(strict.calls)
        assert read
        secure.fail("v1", status(307, Location=there), status(307, Location=there))
        secure.fail("", status(202, Location=there))
        layer = Descriptor(media_type=DOCKER_FOREIGN_LAYER_GZIP, digest=sha256(b"x"), size=1, urls=(there,))
        for attempt in (
            lambda: client.push_manifest(ref, MANIFEST.raw, MANIFEST.media_type),
            lambda: client.delete(ref),
            lambda: fetch(client, ref, [layer], Folder(tmp_path).open),
        ):
            with pytest.raises(RegistryError):
                attempt()
        client.check_push(ref)  # gives the upload back where it is said to be
        assert not any(secure.faults.values())
        client.close()
        assert len(strict.calls) == read

    def test_the_certificate_of_the_one_folder_is_for_the_registry_alone(
        self,
        connect: Connect,
        ref: Reference,
        secure: FaultyRegistry,
        strict: FaultyRegistry,
        authority: trustme.CA,
        tmp_path: Path,
    ) -> None:
        folder = f"{certs_d(tmp_path, strict.host, authority, client=True)}/{strict.host}"
        client = connect(cert_dir=folder, attempts=1)
        assert client.manifest(Reference.parse(f"{strict.host}/app:v1")) == MANIFEST
        client.close()
        read = len(strict.calls)
        secure.fail("v1", status(307, Location=f"https://{strict.host}/v2/app/manifests/v1"))
        with pytest.raises(RegistryError):
            client.manifest(ref)
        assert len(strict.calls) == read

    @pytest.mark.parametrize(
        ("missing", "told"), [("me.key", "has no key: me.key"), ("me.cert", "has no certificate: me.cert")]
    )
    def test_half_a_pair_is_told(
        self,
        connect: Connect,
        ref: Reference,
        authority: trustme.CA,
        tmp_path: Path,
        missing: str,
        told: str,
    ) -> None:
        root = certs_d(tmp_path, ref.registry, authority, client=True)
        Path(root, ref.registry, missing).unlink()
        with pytest.raises(UsageError, match=told):
            connect(cert_dirs=(root,)).manifest(ref)

    def test_a_key_of_another_certificate_is_told(
        self, connect: Connect, ref: Reference, authority: trustme.CA, tmp_path: Path
    ) -> None:
        root = certs_d(tmp_path, ref.registry, authority, client=True)
        other = authority.issue_cert("other@example.com")
        other.private_key_pem.write_to_path(f"{root}/{ref.registry}/me.key")
        with pytest.raises(UsageError, match=r"me\.cert: it does not fit the key me\.key"):
            connect(cert_dirs=(root,)).manifest(ref)


class TestInsecure:
    def test_without_tls_it_is_spoken_to_all_the_same(self, connect: Connect, faulty: FaultyRegistry) -> None:
        faulty.add(MANIFEST, tag="v1")
        ref = Reference.parse(f"{FAR}:{faulty.host.partition(':')[2]}/app:v1")
        assert connect(insecure=frozenset({ref.registry})).manifest(ref) == MANIFEST
        assert len(faulty.calls) == 1  # TLS came first, and was no request

    def test_with_tls_it_is_never_spoken_to_without(self, connect: Connect, secure: FaultyRegistry) -> None:
        ref = Reference.parse(f"{FAR}:{secure.host.partition(':')[2]}/app:v1")
        client = connect(insecure=frozenset({FAR}))
        assert client.manifest(ref) == MANIFEST
        secure.fail("v1", status(503))
        assert client.manifest(ref) == MANIFEST

    def test_without_the_word_plain_http_is_not_tried(self, connect: Connect, faulty: FaultyRegistry) -> None:
        ref = Reference.parse(f"{FAR}:{faulty.host.partition(':')[2]}/app:v1")
        with pytest.raises(RegistryError, match="TLS failed") as caught:
            connect(attempts=1).manifest(ref)
        assert "insecure" in caught.value.hint and not faulty.calls

    def test_its_token_server_may_be_as_it_is(self, connect: Connect, faulty: FaultyRegistry) -> None:
        port = faulty.host.partition(":")[2]
        faulty.add(MANIFEST, tag="v1")

        def ask(server: FaultyRegistry, call: Call) -> None:
            call.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{FAR}:{port}/token"'})

        faulty.fail("v1", ask)
        faulty.fail("token", status(200, b'{"token": "t"}'))
        ref = Reference.parse(f"{FAR}:{port}/app:v1")
        assert connect(insecure=frozenset({ref.registry})).manifest(ref) == MANIFEST
        assert faulty.calls[-1].authorization == "Bearer t"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_told(
    connect: Connect, ref: Reference, tmp_path: Path, content: str | None
) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(UsageError, match=r"ca\.pem"):
        connect(ca_file=str(tmp_path / "ca.pem")).manifest(ref)
