"""`Credentials`, and the `Keychain` that finds them for a registry.

`ConfigFile` reads docker's `config.json`, inline entries and credential helpers alike. It is given its
path, looks each time it is asked (a login in between counts), writes nothing, and puts no secret into an
error.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from img import regex
from img.errors import RegistryError, UsageError
from img.oci.reference import DEFAULT_REGISTRY
from img.values import dataclass

_DOCKER_HUB = "https://index.docker.io/v1/"
_DOCKER_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "docker.io"})
_HELPER = regex.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_FILE_BYTES = 4 << 20
_HELPER_SECONDS = 60

Runner = Callable[[Sequence[str], bytes], tuple[int, bytes]]
"""Runs a program with its input; gives its exit code and its output. OSError where it cannot start."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """What opens a registry: a user name and password, or an identity token that buys access tokens."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header; empty where there is no user name and password."""
        if not self.username and not self.password:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class Keychain(Protocol):
    """Finds credentials. A `source` attribute, where there is one, says for people where it looked."""

    def get(self, registry: str, repository: str) -> Credentials | None:
        """Gives what opens `registry` for `repository`, or None. May be called from several threads."""


class ConfigFile:
    """A `Keychain` over docker's `config.json`.

    Order: `credHelpers`, `credsStore`, then `auths`; the longest key that is the registry, or the
    registry and a leading part of the repository, wins.
    """

    def __init__(self, path: str, *, run: Runner | None = None) -> None:
        """Names the file; a missing one holds nothing.

        Args:
            path: The file; it need not exist.
            run: How to run a credential helper; by default as a child of this process.
        """
        self._path = path
        self._run = run or _run

    @property
    def source(self) -> str:
        """Where it looks, for people."""
        return self._path

    def get(self, registry: str, repository: str) -> Credentials | None:
        """Looks the registry up.

        Raises:
            UsageError: the file cannot be read, or is not what it should be.
            RegistryError: a credential helper failed.
        """
        config = self._read()
        helpers = self._section(config, "credHelpers")
        key = _best(helpers, registry, repository)
        names = [helpers[key]] if key is not None else []
        if store := config.get("credsStore"):
            names.append(store)
        server = _DOCKER_HUB if registry == DEFAULT_REGISTRY else registry
        for name in names:
            if found := self._ask(name, server):
                return found
        auths = self._section(config, "auths")
        key = _best(auths, registry, repository)
        return None if key is None else self._inline(key, auths[key])

    def _read(self) -> Mapping[str, Any]:
        try:
            with open(self._path, "rb") as file:
                raw = file.read(_MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise UsageError(f"cannot read the credentials in {self._path}: {error.strerror}") from error
        try:
            data = json.loads(raw) if len(raw) <= _MAX_FILE_BYTES else None
        except (ValueError, RecursionError) as error:
            # The parser's own text may quote the file, so only its place is told.
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise self._broken(f"it is not JSON{where}") from None
        if not isinstance(data, dict):
            raise self._broken("it is not a JSON object")
        return data

    def _broken(self, reason: str) -> UsageError:
        return UsageError(f"the credentials file {self._path} is broken: {reason}", hint="mend or remove it")

    def _section(self, config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        section = config.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise self._broken(f"{name!r} is not an object")
        return section

    def _inline(self, key: str, entry: object) -> Credentials | None:
        if not isinstance(entry, dict):
            raise self._broken(f"the entry {key!r} is not an object")
        texts = [entry.get(n) or "" for n in ("username", "password", "identitytoken", "auth")]
        if not all(isinstance(text, str) for text in texts):
            raise self._broken(f"the entry {key!r} holds something that is no text")
        username, password, token, auth = texts
        if auth:
            try:
                pair = base64.b64decode(auth, validate=True).decode()
            except (binascii.Error, ValueError):
                raise self._broken(f"'auth' of {key!r} is not base64") from None
            username, colon, password = pair.partition(":")
            if not colon:
                raise self._broken(f"'auth' of {key!r} is not user:password")
            password = password.rstrip("\0")
        if not (username or password or token):
            return None
        return Credentials(username=username, password=password, identity_token=token)

    def _ask(self, name: object, server: str) -> Credentials | None:
        """Asks a credential helper. Source: docker/docker-credential-helpers, README, "Development"."""
        if not isinstance(name, str) or not _HELPER.fullmatch(name):
            raise self._broken("a credential helper's name is not a plain word")
        program = f"docker-credential-{name}"
        try:
            code, output = self._run([program, "get"], server.encode())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise self._helper_failed(program, server, reason) from error
        if code:
            if b"credentials not found" in output.lower():
                return None
            raise self._helper_failed(program, server, f"exit code {code}")
        try:
            data = json.loads(output)
            username, secret = data["Username"], data["Secret"]
        except (ValueError, KeyError, TypeError):
            raise self._helper_failed(program, server, "its answer is not what a helper says") from None
        if username == "<token>":
            return Credentials(identity_token=str(secret))
        return Credentials(username=str(username), password=str(secret)) if username or secret else None

    def _helper_failed(self, program: str, server: str, reason: str) -> RegistryError:
        return RegistryError(
            f"the credential helper {program} gave nothing for {server}: {reason}",
            hint=f"{self._path} names it; install it, or take it out of the file",
        )


def _best(keys: Mapping[str, Any], registry: str, repository: str) -> str | None:
    """The longest key for a repository, after normalising what docker and others write as keys."""
    best, length = None, -1
    whole = f"{registry}/{repository}"
    for key in keys:
        name = _normal(key)
        if (whole == name or whole.startswith(name + "/")) and len(name) > length:
            best, length = key, len(name)
    return best


def _normal(key: str) -> str:
    name = key.partition("://")[2] if "://" in key else key
    host, _, path = name.strip("/").partition("/")
    if path in ("v1", "v2"):
        path = ""
    if host in _DOCKER_NAMES:
        host = DEFAULT_REGISTRY
    return f"{host}/{path}" if path else host


def _run(command: Sequence[str], given: bytes) -> tuple[int, bytes]:
    import subprocess

    try:
        ended = subprocess.run(
            command, input=given, stdout=subprocess.PIPE, timeout=_HELPER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(0, f"no answer within {_HELPER_SECONDS} seconds") from error
    return ended.returncode, ended.stdout
