"""`among`: what no_proxy and insecure registries mean."""

from __future__ import annotations

import pytest
from img.web.hosts import among


@pytest.mark.parametrize(
    ("host", "port", "entry", "meant", "meant_below"),
    [
        ("a.lan", 443, "*", True, True),
        ("a.lan", 443, "A.lan", True, True),
        ("a.lan.", 443, "a.lan", True, True),
        ("x.a.lan", 443, "a.lan", False, True),
        ("x.a.lan", 443, ".a.lan", True, True),
        ("a.lan", 443, ".a.lan", True, True),
        ("x.a.lan", 443, "*.a.lan", True, True),
        ("xa.lan", 443, "a.lan", False, False),
        ("a.lan", 5000, "a.lan:5000", True, True),
        ("a.lan", 443, "a.lan:5000", False, False),
        ("x.a.lan", 5000, ".a.lan:5000", True, True),
        ("10.1.2.3", 80, "10.0.0.0/8", True, True),
        ("11.1.2.3", 80, "10.0.0.0/8", False, False),
        ("a.lan", 80, "10.0.0.0/8", False, False),
        ("10.1.2.3", 80, "nonsense/8", False, False),
        ("fd00::5", 443, "fd00::/8", True, True),
        ("fd00::5", 443, "fd00::5", True, True),
        ("fd00::5", 443, "[fd00::5]", True, True),
        ("fd00::5", 5000, "[fd00::5]:5000", True, True),
        ("fd00::5", 443, "[fd00::5]:5000", False, False),
        ("a.lan", 443, "", False, False),
        ("a.lan", 443, ".", False, False),
    ],
)
def test_an_entry_means_a_host(host: str, port: int, entry: str, meant: bool, meant_below: bool) -> None:
    assert among(host, port, [entry]) == meant
    assert among(host, port, ["other.lan", entry], below=True) == meant_below
