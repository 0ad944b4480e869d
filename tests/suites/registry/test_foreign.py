"""Layers that registries need not have: fetched from where their descriptors say, and never believed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from img.errors import DigestMismatch, NotFound
from img.oci import Descriptor, Reference, sha256
from img.oci.descriptor import DOCKER_FOREIGN_LAYER_GZIP, OCI_FOREIGN_LAYER, OCI_LAYER
from img.registry import fetch

from tests.suites.registry.conftest import Connect, Known
from tests.suites.registry.images import Folder
from tests.suites.registry.servers import PASSWORD, USER, FaultyRegistry, cut, status

CONTENT = bytes(range(256)) * 2000


def foreign(*urls: str, media_type: str = DOCKER_FOREIGN_LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type=media_type, digest=sha256(CONTENT), size=len(CONTENT), urls=urls)


@pytest.fixture
def ref(faulty: FaultyRegistry) -> Reference:
    return Reference.parse(f"{faulty.host}/foreign:1")


def test_it_comes_from_its_url_without_credentials_and_is_resumed(
    connect: Connect, faulty: FaultyRegistry, folder: Folder, ref: Reference
) -> None:
    with FaultyRegistry() as web:
        web.blobs["layer.tgz"] = CONTENT
        web.fail("layer.tgz", status(503), cut(200_000))
        urls = (f"http://{web.host}/gone", f"http://{web.host}/layer.tgz?signed=secret")
        fetch(connect(Known(USER, PASSWORD)), ref, [foreign(*urls)], folder.open)
        assert not any(call.authorization for call in web.calls)
        assert "Range" in web.seen("GET", "layer.tgz")[-1].headers
    assert [path.read_bytes() for path in folder.path.iterdir()] == [CONTENT]
    # The registry is asked first; and, having asked for nobody's name, whether it hides what it has.
    assert [call.path.rpartition("/")[2] for call in faulty.calls] == [foreign().digest, ""]


def test_a_registry_that_has_it_is_enough(
    connect: Connect, faulty: FaultyRegistry, folder: Folder, ref: Reference
) -> None:
    layer = foreign("https://127.0.0.1:1/never", media_type=OCI_FOREIGN_LAYER)
    faulty.blobs[layer.digest] = CONTENT
    fetch(connect(), ref, [layer], folder.open)
    assert folder.path.joinpath(layer.hex).read_bytes() == CONTENT


def test_wrong_bytes_are_no_layer(
    connect: Connect, faulty: FaultyRegistry, folder: Folder, ref: Reference
) -> None:
    with FaultyRegistry() as web:
        web.blobs["layer"] = CONTENT[::-1]
        with pytest.raises(DigestMismatch):
            fetch(connect(), ref, [foreign(f"http://{web.host}/layer")], folder.open)
        web.blobs["layer"] = CONTENT + b"!"
        with pytest.raises(NotFound, match="bytes"):
            fetch(connect(), ref, [foreign(f"http://{web.host}/layer")], folder.open)
    assert folder.empty


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/layer",
        "http://ali:sesame@127.0.0.1:1/layer",
        "https://ali:sesame@example.com/layer",
        "file:///etc/passwd",
        "ftp://127.0.0.1/layer",
        "//127.0.0.1/layer",
        "https://[::1/layer",
        "https://example.com:port/layer",
        "",
    ],
)
def test_an_address_that_is_not_asked(
    connect: Connect, faulty: FaultyRegistry, folder: Folder, ref: Reference, url: str
) -> None:
    with pytest.raises(NotFound, match="is not asked") as caught:
        fetch(connect(), ref, [foreign(url)], folder.open)
    assert "sesame" not in str(caught.value)
    assert folder.empty


def test_the_urls_of_another_layer_are_not_asked(
    connect: Connect, faulty: FaultyRegistry, folder: Folder, ref: Reference
) -> None:
    with FaultyRegistry() as web:
        web.blobs["layer"] = CONTENT
        layer = replace(foreign(f"http://{web.host}/layer"), media_type=OCI_LAYER)
        with pytest.raises(NotFound):
            fetch(connect(), ref, [layer], folder.open)
        assert not web.calls
