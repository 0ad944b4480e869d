"""`Tokens`: the build's secrets that are meant for a server, and which server gets which.

    HTTP_AUTH_HEADER_<host>   the whole Authorization header for files of that host
    HTTP_AUTH_TOKEN_<host>    a bearer token for them
    GIT_AUTH_HEADER           the whole Authorization header for git over http(s); also `…_<host>`
    GIT_AUTH_TOKEN            a token for it; also `…_<host>`

`.` may stand for `_` before the host, as docker writes it for git. Nothing here is ever shown.
Source: Dockerfile reference, "ADD", private sources; Docker docs, "Build secrets".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from img.errors import UsageError
from img.values import dataclass, field

MAX_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Secrets by id: values, and files that are read at the first need."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)

    def for_web(self, url: str) -> str:
        """The Authorization header for a file, or empty. What the URL itself carries goes first."""
        own = basic_of(url)
        if own:
            return own
        for host in _hosts(url):
            header = self._first(f"HTTP_AUTH_HEADER_{host}", f"HTTP_AUTH_HEADER.{host}")
            if header:
                return header
            token = self._first(f"HTTP_AUTH_TOKEN_{host}", f"HTTP_AUTH_TOKEN.{host}")
            if token:
                return f"Bearer {token}"
        return ""

    def for_git(self, url: str) -> str:
        """The Authorization header for a repository over http(s), or empty."""
        own = basic_of(url)
        if own:
            return own
        suffixes = [f"{mark}{host}" for host in _hosts(url) for mark in "._"]
        for suffix in (*suffixes, ""):
            header = self._first(f"GIT_AUTH_HEADER{suffix}")
            if header:
                return header
            token = self._first(f"GIT_AUTH_TOKEN{suffix}")
            if token:
                return _basic("x-access-token", token)
        return ""

    def _first(self, *names: str) -> str:
        for name in names:
            if name in self.values:
                return _one_line(name, self.values[name])
            if name in self.files:
                return _one_line(name, _read(name, self.files[name]))
        return ""


def _read(name: str, file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"the secret {name} cannot be read from {file}: {error.strerror}") from error


def _one_line(name: str, value: str) -> str:
    value = value.strip()
    if not value.isprintable() or not value.isascii():
        raise UsageError(f"the secret {name} cannot be a header's value: it holds other than printable ASCII")
    return value


def _hosts(url: str) -> Iterator[str]:
    """A URL's host as a secret's name may have it: with its port, then without."""
    parts = urlsplit(url)
    if parts.hostname:
        if parts.port:
            yield f"{parts.hostname}:{parts.port}"
        yield parts.hostname


def basic_of(url: str) -> str:
    """The Authorization header for the user and password that a URL carries, or empty."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return ""
    return _basic(unquote(parts.username or ""), unquote(parts.password or ""))


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def without_user(url: str) -> str:
    """A URL as it may stand in a request or an argument: without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
