"""`LoginFile`: a config file as login and logout change it, with the helpers that it names.

A change is one rename of a file of mode 0600, made under a lock on the folder: whoever reads sees the old
file or the new one, and two logins at once lose nothing. What is not understood stays as it is, in its
order. A secret goes into the helper where one is named for the place, and else into the file.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from img.errors import UsageError
from img.registry.auth import Credentials
from img.registry.config_file import ConfigFile
from img.registry.helper import Helper, Runner
from img.registry.place import Place, normal

Config = dict[str, Any]


class LoginFile:
    """One file. Nothing is remembered between two calls."""

    def __init__(self, path: str, *, run: Runner | None = None) -> None:
        """Names the file, which need not exist; a symlink is followed.

        Args:
            run: How to run a credential helper; by default as a child of this process.
        """
        self.path = path
        self._reader = ConfigFile(path, run=run)

    def helper(self, place: Place) -> Helper | None:
        """What keeps the secrets of a place; None for the file itself.

        Raises:
            UsageError: the file is broken.
        """
        return self._reader.helper_for(self._reader.read(), str(place))

    def store(self, place: Place, credentials: Credentials) -> None:
        """Keeps credentials, in the place of those that are there. Doing it twice changes nothing.

        Raises:
            UsageError: the file is broken, or cannot be written. RegistryError: the helper failed.
        """
        entry: Config = {}
        if helper := self.helper(place):
            helper.store(place.key, credentials)
        else:
            pair = f"{credentials.username}:{credentials.password}"
            entry["auth"] = base64.b64encode(pair.encode()).decode()
            if credentials.identity_token:
                entry["identitytoken"] = credentials.identity_token

        def change(config: Config) -> bool:
            # The entry stands where the first stood that meant the same, whatever that was called.
            auths = {place.key if normal(key) == str(place) else key: value
                     for key, value in (config.get("auths") or {}).items()}  # fmt: skip
            config["auths"] = {**auths, place.key: entry}
            return True

        self._change(change)

    def erase(self, place: Place) -> bool:
        """Forgets a place, in the file and in its helper; False where neither knew anything.

        Raises:
            UsageError: the file is broken, or cannot be written. RegistryError: the helper failed; the file
                has forgotten it.
        """
        helper = self.helper(place)
        known = str(place) in self._forget(lambda name: name == str(place))
        if helper:
            known |= helper.erase(place.key) or helper.erase(f"https://{place.key}")
        return known

    def erase_all(self) -> list[str]:
        """Forgets everything that the file or a helper of it has; gives the names of what there was.

        Raises:
            As `erase`.
        """
        config = self._reader.read()
        helpers: dict[str, Helper] = {}
        # Nothing is called "", so its helper is the one for all.
        for name in (*map(normal, self._reader.section(config, "credHelpers")), ""):
            if helper := self._reader.helper_for(config, name):
                helpers.setdefault(helper.program, helper)
        known = self._forget(lambda name: True)
        for helper in helpers.values():
            known.update(normal(server) for server in helper.list() if helper.erase(server))
        return sorted(known)

    def _forget(self, meant: Callable[[str], bool]) -> set[str]:
        """Takes entries out of the file; gives the normal names of those that held something."""
        known: set[str] = set()

        def change(config: Config) -> bool:
            auths = config.get("auths") or {}
            gone = [key for key in auths if meant(normal(key))]
            for key in gone:
                if auths.pop(key):
                    known.add(normal(key))
            return bool(gone)

        if os.path.exists(self.path):
            self._change(change)
        return known

    def _change(self, change: Callable[[Config], bool]) -> None:
        """Changes the document where `change` says so, which is called with the present one."""
        target = os.path.realpath(self.path)
        folder, name = os.path.split(target)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with _locked(folder):
                config = self._reader.read()
                self._reader.section(config, "auths")
                if change(config):
                    _replace(folder, name, (json.dumps(config, indent="\t") + "\n").encode())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UsageError(f"cannot write the credentials to {self.path}: {reason}") from error


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Holds a lock on a folder: there is no lock file to be left behind."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(folder: str, name: str, text: bytes) -> None:
    """Writes a file anew, for its owner's eyes alone."""
    descriptor, partial = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            if os.path.exists(os.path.join(folder, name)) and os.geteuid() == 0:
                owner = os.stat(os.path.join(folder, name))  # root helps somebody else
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, os.path.join(folder, name))
    except BaseException:
        os.unlink(partial)
        raise
