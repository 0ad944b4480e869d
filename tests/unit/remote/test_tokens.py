"""Which server gets which secret."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from img.errors import UsageError
from img.remote import Tokens


def _basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("secrets", "url", "header"),
    [
        ({"HTTP_AUTH_TOKEN_a.example": "t"}, "https://a.example/x", "Bearer t"),
        ({"HTTP_AUTH_TOKEN_a.example": "t"}, "https://b.example/x", ""),
        ({"HTTP_AUTH_TOKEN_a.example": "t"}, "https://sub.a.example/x", ""),
        ({"HTTP_AUTH_TOKEN_a.example": "t"}, "https://a.example:8443/x", "Bearer t"),
        ({"HTTP_AUTH_TOKEN_a.example:1": "t"}, "https://a.example:8443/x", ""),
        ({"HTTP_AUTH_HEADER_a.example": "Digest q"}, "http://A.example/x", "Digest q"),
        ({"HTTP_AUTH_HEADER_a": "h", "HTTP_AUTH_TOKEN_a": "t"}, "http://a/x", "h"),
        ({"HTTP_AUTH_TOKEN.a": " t\n"}, "http://a/x", "Bearer t"),
        ({"HTTP_AUTH_TOKEN_a": "t"}, "http://me:word@a/x", _basic("me:word")),
        ({}, "http://me:w%40rd@a/x", _basic("me:w@rd")),
        ({"GIT_AUTH_TOKEN": "t"}, "https://a/x", ""),
    ],
)
def test_files_of_the_web(secrets: dict[str, str], url: str, header: str) -> None:
    assert Tokens(values=secrets).for_web(url) == header


@pytest.mark.parametrize(
    ("secrets", "header"),
    [
        ({"GIT_AUTH_TOKEN": "t"}, _basic("x-access-token:t")),
        ({"GIT_AUTH_HEADER": "Bearer h"}, "Bearer h"),
        ({"GIT_AUTH_TOKEN": "t", "GIT_AUTH_TOKEN_a.example": "own"}, _basic("x-access-token:own")),
        ({"GIT_AUTH_TOKEN": "t", "GIT_AUTH_HEADER.a.example": "own"}, "own"),
        ({"GIT_AUTH_TOKEN_b.example": "t"}, ""),
        ({"HTTP_AUTH_TOKEN_a.example": "t"}, ""),
    ],
)
def test_repositories(secrets: dict[str, str], header: str) -> None:
    assert Tokens(values=secrets).for_git("https://a.example/app.git") == header


def test_a_secret_in_a_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    tokens = Tokens(files={"GIT_AUTH_TOKEN": str(file)})
    with pytest.raises(UsageError, match="GIT_AUTH_TOKEN cannot be read"):
        tokens.for_git("https://a/app.git")
    file.write_text("t\n")
    assert tokens.for_git("https://a/app.git") == _basic("x-access-token:t")


def test_a_secret_that_would_add_a_header_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        Tokens(values={"GIT_AUTH_HEADER": "Bearer x\r\nX-Other: y"}).for_git("https://a/app.git")
    assert "X-Other" not in str(caught.value)


def test_secrets_are_in_no_repr() -> None:
    assert "hidden" not in repr(Tokens(values={"GIT_AUTH_TOKEN": "hidden"}))
