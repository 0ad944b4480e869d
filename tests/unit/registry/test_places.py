"""Which servers may be met without TLS: by `--insecure-registry` and by the rules of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from img.oci import Reference
from img.registry import Options
from img.registry.endpoint import Endpoint
from img.registry.places import Places
from img.registry.tokens import TokenRequest

pytestmark = pytest.mark.once

RULES = """
[[registry]]
prefix = "ported.example:5000"
insecure = true
[[registry]]
prefix = "plain.example/team"
insecure = true
[[registry]]
prefix = "moved.example"
location = "there.example:8080"
insecure = true
[[registry.mirror]]
location = "mirror.example:81"
insecure = true
[[registry]]
prefix = "safe.example"
[[registry.mirror]]
location = "safe-mirror.example"
"""


def nobody(endpoint: Endpoint) -> TokenRequest:
    def ask(method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> bytes:
        raise AssertionError(f"{url} is not to be asked")

    return ask


@pytest.mark.parametrize(
    ("entry", "url", "insecure"),
    [
        ("r.example", "http://r.example/v2/", True),
        ("r.example", "http://r.example:5000/", True),
        ("r.example:5000", "http://r.example:5000/", True),
        ("R.example:5000", "https://r.EXAMPLE:5000/", True),
        ("r.example:5000", "http://r.example:5001/", False),
        ("r.example:5000", "http://r.example/", False),
        ("r.example:443", "https://r.example/", True),
        ("r.example", "http://other.r.example/", False),
        ("10.0.0.0/8", "http://10.1.2.3:5000/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://ten.example/", False),
        ("10.1.2.3:5000", "http://10.1.2.3:5001/", False),
        ("fd00::/8", "http://[fd00::1]:5000/", True),
        ("[fd00::1]:5000", "http://[fd00::1]:5000/", True),
        ("[fd00::1]:5000", "http://[fd00::1]:80/", False),
        ("*", "http://anything.example/", True),
        ("", "http://anything.example/", False),
    ],
)
def test_the_users_word_is_for_a_host_and_for_its_port_where_it_has_one(
    entry: str, url: str, insecure: bool
) -> None:
    assert Places(None, Options(insecure=frozenset({entry})), nobody).is_insecure(url) == insecure


@pytest.mark.parametrize(
    ("name", "url", "insecure"),
    [
        ("ported.example:5000/a", "http://ported.example:5000/", True),
        ("ported.example:5000/a", "http://ported.example:5001/", False),
        ("ported.example:5000/a", "http://ported.example/", False),
        ("ported.example/a", "http://ported.example:5000/", False),
        ("plain.example/team/a", "http://plain.example/", True),
        ("plain.example/team/a", "https://plain.example/", True),
        ("plain.example/team/a", "http://plain.example:8080/", False),
        ("plain.example/other", "http://plain.example/", False),
        ("moved.example/a", "http://there.example:8080/", True),
        ("moved.example/a", "http://moved.example/", False),
        ("moved.example/a", "http://mirror.example:81/", True),
        ("moved.example/a", "http://mirror.example/", False),
        ("safe.example/a", "http://safe.example/", False),
        ("safe.example/a", "http://safe-mirror.example/", False),
    ],
)
def test_a_rule_is_for_the_registry_that_it_leads_to_under_its_port(
    tmp_path: Path, name: str, url: str, insecure: bool
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(RULES)
    places = Places(None, Options(registries_conf=(str(conf),)), nobody)
    for route in places.routes(Reference.parse(name)):
        places.at(route)
    assert places.is_insecure(url) == insecure
