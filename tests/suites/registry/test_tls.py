"""TLS on loopback: found out, verified, and trusted otherwise only where told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from img.errors import RegistryError, UsageError
from img.oci import Reference

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import FaultyRegistry

MANIFEST = make_image().manifest


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FaultyRegistry]:
    """A registry that speaks TLS, with a certificate of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FaultyRegistry(context) as running:
        running.add(MANIFEST, tag="v1")
        yield running


@pytest.fixture
def ref(secure: FaultyRegistry) -> Reference:
    return Reference.parse(f"{secure.host}/app:v1")


def test_an_unknown_authority_is_refused_at_once_with_what_to_do(connect: Connect, ref: Reference) -> None:
    with pytest.raises(RegistryError, match=f"certificate of {ref.registry} was refused") as caught:
        connect().manifest(ref)
    assert "authority" in caught.value.hint and "insecure" in caught.value.hint


def test_an_authority_of_ones_own_is_enough(
    connect: Connect, ref: Reference, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert connect(ca_file=str(tmp_path / "ca.pem")).manifest(ref) == MANIFEST


def test_a_registry_named_insecure_is_believed(connect: Connect, ref: Reference) -> None:
    assert connect(insecure=frozenset({ref.registry})).manifest(ref) == MANIFEST


def test_another_registry_named_insecure_changes_nothing(connect: Connect, ref: Reference) -> None:
    with pytest.raises(RegistryError, match="was refused"):
        connect(insecure=frozenset({"127.0.0.1:1"})).manifest(ref)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_told(
    connect: Connect, ref: Reference, tmp_path: Path, content: str | None
) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(UsageError, match=r"ca\.pem"):
        connect(ca_file=str(tmp_path / "ca.pem")).manifest(ref)
