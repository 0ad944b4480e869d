"""`Helper`: a credential helper, a program `docker-credential-NAME` that keeps secrets where files do not.

Called by `ConfigFile` and `LoginFile`, who say how it is run; it has a minute. What it prints may hold a
secret: nothing of that is quoted but a message in words, cleaned.
Source: docker/docker-credential-helpers, README, "Development".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from img import regex
from img.errors import RegistryError
from img.registry.auth import Credentials
from img.registry.faults import clean

HELPER_NAME = regex.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SECONDS = 60
"""Time for an answer."""
TOO_LATE = f"no answer within {SECONDS} seconds"

_TOKEN_USER = "<token>"
_MAX_ANSWER_BYTES = 4 << 20
_MAX_MESSAGE = 200

Runner = Callable[[Sequence[str], bytes], tuple[int, bytes]]
"""Runs a program with its input; gives its exit code and its output. OSError where it cannot start."""


def run_here(command: Sequence[str], given: bytes) -> tuple[int, bytes]:
    """Runs a helper as a child of this process: the `Runner` of whoever has entered no namespace."""
    import subprocess

    try:
        ended = subprocess.run(
            command,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(0, TOO_LATE) from error
    return ended.returncode, ended.stdout


class Helper:
    """One program, and what it can be asked."""

    def __init__(self, name: str, *, named_by: str, run: Runner) -> None:
        """Starts nothing.

        Args:
            name: What follows `docker-credential-`; a plain word.
            named_by: The file that names it, for errors.
        """
        self.program = f"docker-credential-{name}"
        self._named_by = named_by
        self._run = run

    def get(self, server: str) -> Credentials | None:
        """What it has for a server; None where it has nothing.

        Raises:
            RegistryError: it cannot be run, failed, or gave no answer that is one.
        """
        output = self._ask("get", server, server.encode())
        if output is None:
            return None
        data = self._object(output, server)
        try:
            username, secret = data["Username"], data["Secret"]
        except KeyError:
            raise self._strange(server) from None
        if username == _TOKEN_USER:
            return Credentials(identity_token=str(secret))
        return Credentials(username=str(username), password=str(secret)) if username or secret else None

    def store(self, server: str, credentials: Credentials) -> None:
        """Has it keep credentials, in the place of those that it has for the server.

        Raises:
            RegistryError: as `get`.
        """
        username, secret = credentials.username, credentials.password
        if credentials.identity_token:
            username, secret = _TOKEN_USER, credentials.identity_token
        paper = json.dumps({"ServerURL": server, "Username": username, "Secret": secret})
        if self._ask("store", server, paper.encode(), secret=secret) is None:
            raise self._failed(server, "it could not store them")

    def erase(self, server: str) -> bool:
        """Has it forget a server; False where it knew nothing.

        Raises:
            RegistryError: as `get`.
        """
        return self._ask("erase", server, server.encode()) is not None

    def list(self) -> dict[str, str]:
        """Every server that it knows, with the user's name.

        Raises:
            RegistryError: as `get`.
        """
        output = self._ask("list", "any registry", b"")
        data = self._object(output, "any registry") if output is not None else {}
        return {str(server): str(username) for server, username in data.items()}

    def _ask(self, action: str, server: str, given: bytes, *, secret: str = "") -> bytes | None:
        """Runs it; gives its output, or None where it says that it knows nothing of the server."""
        try:
            code, output = self._run([self.program, action], given)
        except FileNotFoundError as error:
            raise self._failed(server, "there is no such program on PATH") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise self._failed(server, reason) from error
        if len(output) > _MAX_ANSWER_BYTES:
            raise self._strange(server)
        if not code:
            return output
        if b"credentials not found" in output.lower():
            return None
        raise self._failed(server, _message(output, secret) or f"exit code {code}")

    def _object(self, output: bytes, server: str) -> Mapping[str, object]:
        try:
            data = json.loads(output)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise self._strange(server)
        return data

    def _strange(self, server: str) -> RegistryError:
        return self._failed(server, "its answer is not what a helper says")

    def _failed(self, server: str, reason: str) -> RegistryError:
        return RegistryError(
            f"the credential helper {self.program} failed for {server}: {reason}",
            hint=f"{self._named_by} names it; install or mend it, or take it out of the file",
        )


def _message(output: bytes, secret: str) -> str:
    """What a helper says of its failure; empty where it may be anything but a sentence."""
    text = output.decode("utf-8", "replace")
    line = clean(next(filter(None, (line.strip() for line in text.splitlines())), ""))
    if (secret and secret in text) or len(line.split()) < 3 or any(c in line for c in "{}"):
        return ""
    return line[:_MAX_MESSAGE]
