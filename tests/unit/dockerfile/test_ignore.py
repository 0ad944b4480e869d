"""The patterns of a .dockerignore."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from img.dockerfile import ignore_names, parse_ignore


def test_comments_and_empty_lines_go_and_the_order_stays() -> None:
    data = b"\xef\xbb\xbf# note\r\n\r\n  *.md  \r\n!README.md\r\n\t/a/**\n  # a file of this name\n"
    assert parse_ignore(data) == ("*.md", "!README.md", "/a/**", "# a file of this name")


def test_an_empty_file_has_no_patterns() -> None:
    assert parse_ignore(b"") == ()
    assert parse_ignore(b"\xef\xbb\xbf") == ()


def test_a_name_that_is_not_utf8_passes_through() -> None:
    (pattern,) = parse_ignore(b"a\xff\n")
    assert pattern.encode("utf-8", "surrogateescape") == b"a\xff"


def test_a_dockerfile_s_own_file_comes_first() -> None:
    assert ignore_names("docker/App.Dockerfile") == ("docker/App.Dockerfile.dockerignore", ".dockerignore")
    assert ignore_names("") == (".dockerignore",)


@given(st.binary())
def test_any_bytes_give_patterns_without_blanks_at_their_ends(data: bytes) -> None:
    assert all(pattern and pattern == pattern.strip(" \t\r\n") for pattern in parse_ignore(data))
