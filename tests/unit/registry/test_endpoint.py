"""Where a registry answers, and where plain HTTP may be spoken."""

from __future__ import annotations

import pytest
from img.errors import InvalidReference
from img.registry import Options
from img.registry.endpoint import Endpoint, shown


@pytest.mark.parametrize(
    ("registry", "base"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("r.example", "https://r.example"),
        ("r.example:5000", "https://r.example:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("localhost.example:5000", "https://localhost.example:5000"),
        ("127.0.0.1.example:5000", "https://127.0.0.1.example:5000"),
        ("localhost", "http://localhost"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.8.9.1:5000", "http://127.8.9.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("told.example:80", "http://told.example:80"),
        ("port.example:5000", "http://port.example:5000"),
        ("port.example:5001", "https://port.example:5001"),
    ],
)
def test_plain_http_is_for_loopback_and_where_told(registry: str, base: str) -> None:
    options = Options(plain_http=frozenset({"told.example", "port.example:5000"}))
    assert Endpoint(registry, options).base == base


def test_an_endpoint_owns_what_is_of_its_origin_alone() -> None:
    endpoint = Endpoint("r.example", Options())
    assert endpoint.owns("https://r.example/v2/")
    assert endpoint.owns("https://R.example:443/v2/")
    assert not endpoint.owns("http://r.example/v2/")
    assert not endpoint.owns("https://r.example:444/v2/")
    assert not endpoint.owns("https://r.example.org/v2/")
    assert not endpoint.owns("https://r.example@evil.example/v2/")


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown("https://ali:sesame@r.example:1/a/b?signature=x#y") == "https://r.example:1/a/b"


@pytest.mark.parametrize("registry", ["r.example:99999", "[::::::]:5000"])
def test_what_cannot_be_connected_to_is_told(registry: str) -> None:
    with pytest.raises(InvalidReference):
        Endpoint(registry, Options())
