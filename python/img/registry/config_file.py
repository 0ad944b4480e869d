"""`ConfigFile`: the credentials in docker's `config.json` and podman's `auth.json`, which have one form.

It is given its path, looks each time it is asked (a login in between counts), writes nothing, and puts no
secret into an error. Source: docker's config.json; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from img.errors import UsageError
from img.registry.auth import Credentials
from img.registry.helper import HELPER_NAME, Helper, Runner, run_here
from img.registry.place import covering, key_of, normal

_MAX_FILE_BYTES = 4 << 20
_REMEMBERED_SECONDS = 300.0

Warn = Callable[[str], None]
"""Takes a sentence for people."""


def _unheard(text: str) -> None:
    """Warns nobody."""


class ConfigFile:
    """A `Keychain` over one file.

    The longest key that is the registry, or the registry and a leading part of the repository, wins. Under
    one key, `credHelpers` come before `credsStore`, and that before `auths`. The store is asked for the
    registry, and for a longer key that `auths` has an empty entry for, as a login leaves it there.
    """

    def __init__(self, path: str, *, run: Runner | None = None, warn: Warn = _unheard) -> None:
        """Names the file; a missing one holds nothing.

        Args:
            path: The file; it need not exist.
            run: How to run a credential helper; by default as a child of this process.
            warn: Hears, once, of a file that anybody may change.
        """
        self._path = path
        self._run = run or run_here
        self._warn = warn
        self._warned = False
        self._lock = threading.Lock()
        # A helper is a process, and a registry with Basic authentication asks at every request.
        self._answers: dict[tuple[str, str], tuple[Credentials, float]] = {}

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
        config = self.read()
        auths, helpers = self.section(config, "auths"), self.section(config, "credHelpers")
        names = covering((*auths, *helpers, registry), registry, repository)
        for name in names:
            helper = self.helper_for(config, name)
            entries = [(key, entry) for key, entry in auths.items() if normal(key) == name]
            asked = name == normal(registry) or any(normal(key) == name for key in helpers)
            asked = asked or any(not entry for _, entry in entries)
            if helper and asked:
                # docker and podman call docker.io by two names.
                for server in dict.fromkeys((key_of(name), name)):
                    if found := self._ask(helper, server):
                        return found
            for key, entry in entries:
                if found := self._inline(key, entry):
                    return found
        return None

    def helper_for(self, config: Mapping[str, Any], name: str) -> Helper | None:
        """The helper that keeps what belongs to a normal name: that of the longest key, else the one for all.

        Raises:
            UsageError: the file is broken.
        """
        own = self.section(config, "credHelpers")
        registry, _, namespace = name.partition("/")
        nearest = next(iter(covering(own, registry, namespace)), None)
        program = next((own[key] for key in own if normal(key) == nearest), config.get("credsStore"))
        if not program:  # an empty helper of its own takes a registry out of the store
            return None
        if not isinstance(program, str) or not HELPER_NAME.fullmatch(program):
            raise self.broken("a credential helper's name is not a plain word")
        return Helper(program, named_by=self._path, run=self._run)

    def read(self) -> dict[str, Any]:
        """The whole document; empty where there is no file.

        Raises:
            UsageError: it cannot be read, or is no JSON object.
        """
        raw = self._bytes()
        if not raw.strip():
            return {}
        try:
            data = json.loads(raw) if len(raw) <= _MAX_FILE_BYTES else None
        except (ValueError, RecursionError) as error:
            # The parser's own text may quote the file, so only its place is told.
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise self.broken(f"it is not JSON{where}") from None
        if not isinstance(data, dict):
            raise self.broken("it is not a JSON object")
        return data

    def section(self, config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """One of the document's objects; empty where it has none.

        Raises:
            UsageError: it is no object.
        """
        section = config.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise self.broken(f"{name!r} is not an object")
        return section

    def broken(self, reason: str) -> UsageError:
        """The error for a file that is not what it should be."""
        return UsageError(f"the credentials file {self._path} is broken: {reason}", hint="mend or remove it")

    def _bytes(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                if os.fstat(file.fileno()).st_mode & stat.S_IWOTH and not self._warned:
                    self._warned = True
                    self._warn(f"anybody may change the credentials in {self._path}: chmod 600 {self._path}")
                return file.read(_MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            if isinstance(error, PermissionError) and not os.path.exists(self._path):
                return b""  # the folder is somebody else's, such as a run-time folder kept by `su`
            raise UsageError(f"cannot read the credentials in {self._path}: {error.strerror}") from error

    def _ask(self, helper: Helper, server: str) -> Credentials | None:
        with self._lock:
            kept, until = self._answers.get((helper.program, server), (None, 0.0))
            if kept and time.monotonic() < until:
                return kept
            found = helper.get(server)
            if found:
                self._answers[helper.program, server] = (found, time.monotonic() + _REMEMBERED_SECONDS)
            return found

    def _inline(self, key: str, entry: object) -> Credentials | None:
        if not isinstance(entry, dict):
            raise self.broken(f"the entry {key!r} is not an object")
        texts = [entry.get(n) or "" for n in ("username", "password", "identitytoken", "auth")]
        if not all(isinstance(text, str) for text in texts):
            raise self.broken(f"the entry {key!r} holds something that is no text")
        username, password, token, auth = texts
        if auth:
            try:
                pair = base64.b64decode(auth, validate=True).decode()
            except (binascii.Error, ValueError):
                raise self.broken(f"'auth' of {key!r} is not base64") from None
            username, colon, password = pair.partition(":")
            if not colon:
                raise self.broken(f"'auth' of {key!r} is not user:password")
            password = password.rstrip("\0")
        if not (username or password or token):
            return None
        return Credentials(username=username, password=password, identity_token=token)


class ConfigText(ConfigFile):
    """A `ConfigFile` whose text is at hand, as `DOCKER_AUTH_CONFIG` brings it."""

    def __init__(self, text: str, name: str, *, run: Runner | None = None) -> None:
        """Takes the text.

        Args:
            name: What it is called in errors.
        """
        super().__init__(name, run=run)
        self._text = text

    def _bytes(self) -> bytes:
        return self._text.encode()
