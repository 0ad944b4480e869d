"""Proxies: those that are given, and none that the environment names."""

from __future__ import annotations

import pytest
from img.errors import RegistryError
from img.oci import Reference

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import FaultyRegistry

REF = Reference.parse("far.invalid/app:v1")
TOLD = frozenset({"far.invalid"})


def test_a_registry_is_reached_through_the_proxy(connect: Connect, faulty: FaultyRegistry) -> None:
    manifest = make_image().manifest
    faulty.add(manifest, tag="v1")
    registry = connect(plain_http=TOLD, proxies={"http": f"http://{faulty.host}"})
    assert registry.manifest(REF) == manifest
    assert faulty.calls[0].path == "http://far.invalid/v2/app/manifests/v1"


@pytest.mark.parametrize("exempt", ["far.invalid", ".invalid", "*"])
def test_an_exempt_registry_is_reached_directly(
    connect: Connect, faulty: FaultyRegistry, exempt: str
) -> None:
    proxies = {"http": f"http://{faulty.host}"}
    with pytest.raises(RegistryError, match=r"far\.invalid"):
        connect(plain_http=TOLD, proxies=proxies, no_proxy=(exempt,), attempts=1).manifest(REF)
    assert not faulty.calls


def test_loopback_is_reached_directly(connect: Connect, faulty: FaultyRegistry) -> None:
    manifest = make_image().manifest
    faulty.add(manifest, tag="v1")
    registry = connect(proxies={"http": "http://far.invalid:1"}, attempts=1)
    assert registry.manifest(Reference.parse(f"{faulty.host}/app:v1")) == manifest


def test_the_environment_is_not_read(
    connect: Connect, faulty: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{faulty.host}")
    with pytest.raises(RegistryError, match=r"far\.invalid"):
        connect(plain_http=TOLD, attempts=1).manifest(REF)
    assert not faulty.calls
