"""Words of EXPOSE: what stands for the host is allowed, must make sense, and means nothing."""

from __future__ import annotations

import pytest
from img.builder.ports import host_part, port_numbers, protocol


@pytest.mark.parametrize(
    ("word", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80/UDP", ["80/udp"]),
        ("8000-8002/sctp", ["8000/sctp", "8001/sctp", "8002/sctp"]),
        ("8080:80", ["80/tcp"]),
        ("127.0.0.1:8080:80/udp", ["80/udp"]),
        ("127.0.0.1::80", ["80/tcp"]),
        ("[::1]:8080:80", ["80/tcp"]),
        ("9000-9001:80-81", ["80/tcp", "81/tcp"]),
        ("9000-9001:80", ["80/tcp"]),
    ],
)
def test_a_port_is_the_containers(word: str, ports: list[str]) -> None:
    assert port_numbers(word) == ports


@pytest.mark.parametrize(
    "word",
    [
        "",
        ":",
        "x",
        "80/x",
        "2-1",
        "65536",
        "host:80",
        "1.2.3:80:80",
        "9000-9005:80-81",
        "80/tcp:80",
        "-1",
        "٣",
    ],
)
def test_what_is_no_port_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="is no port"):
        port_numbers(word)


def test_the_parts_of_a_word_are_as_it_is_written() -> None:
    assert host_part("127.0.0.1:8080:80/TCP") == "127.0.0.1:8080"
    assert protocol("127.0.0.1:8080:80/TCP") == "TCP"
