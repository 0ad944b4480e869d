"""What a request says of every RUN, checked and read."""

from __future__ import annotations

import pytest
from img.engine import BuildRequest
from img.engine.run_options import parse_host, parse_ulimit, run_options
from img.errors import UsageError
from img.executor import UNLIMITED, Rlimit


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("db:10.0.0.5", ("db", "10.0.0.5")),
        ("db=10.0.0.5", ("db", "10.0.0.5")),
        ("db:::1", ("db", "::1")),
        ("db:[::1]", ("db", "::1")),
        ("db=[FE80::0:1]", ("db", "fe80::1")),
        ("up:host-gateway", ("up", "127.0.0.1")),
    ],
)
def test_a_host_has_a_name_and_an_address(text: str, host: tuple[str, str]) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "db", "db:", ":10.0.0.5", "db:10.0.0", "a b:10.0.0.5", "db:[10.0.0.5", "db:x"]
)
def test_what_is_no_host_is_refused_with_the_word(text: str) -> None:
    with pytest.raises(UsageError, match="--add-host") as caught:
        parse_host(text)
    assert text in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("text", "soft", "hard"),
    [
        ("nofile=1:2", 1, 2),
        ("nofile=3", 3, 3),
        ("nofile=1:-1", 1, UNLIMITED),
        ("nofile=-1", UNLIMITED, UNLIMITED),
    ],
)
def test_a_limit_is_soft_and_hard(text: str, soft: int, hard: int) -> None:
    assert parse_ulimit(text) == Rlimit(kind="RLIMIT_NOFILE", soft=soft, hard=hard)


@pytest.mark.parametrize(
    "text", ["nofile", "nofile=", "nofile=1:", "nofile=a", "nofile=-2", "nofile=2:1", "nofiles=1"]
)
def test_what_is_no_limit_is_refused_with_the_word(text: str) -> None:
    with pytest.raises(UsageError, match="--ulimit"):
        parse_ulimit(text)


def test_a_request_is_read_whole_and_the_last_limit_of_a_name_counts() -> None:
    options = run_options(
        BuildRequest(
            context=".", add_hosts=("a:1.2.3.4",), ulimits=("core=1", "core=0"), secret_values={"k": "S3CRET"}
        )
    )
    assert options.hosts == (("a", "1.2.3.4"),)
    assert options.rlimits == (Rlimit(kind="RLIMIT_CORE", soft=0, hard=0),)
    assert "S3CRET" not in repr(options)


@pytest.mark.parametrize("fields", [{"network": "hots"}, {"allow": ("security.insecur",)}, {"shm_bytes": -1}])
def test_a_request_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        run_options(BuildRequest(context=".", **fields))  # type: ignore[arg-type]
