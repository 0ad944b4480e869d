"""`HelperList`: the credential helpers that `registries.conf` lists, asked in order, the files among them.

`engine.keychain` puts it where the files would stand alone, and `Logins` stores by it. The list is read when
a registry wants credentials for the first time. A helper is asked for the whole registry, as podman does it.
Source: containers-registries.conf(5), "GLOBAL SETTINGS", `credential-helpers`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from img.errors import RegistryError
from img.registry.auth import Chain, Credentials, Keychain
from img.registry.config_file import ConfigText
from img.registry.helper import Helper, Runner

FILES = "containers-auth.json"
"""Stands in the list for the files of docker and podman; without a list, they are all that is asked."""


class HelperList(Chain):
    """A `Keychain` that does what the list says."""

    def __init__(self, places: Sequence[str], files: Sequence[Keychain], *, run: Runner) -> None:
        """Reads nothing yet.

        Args:
            places: Files and folders in the format of `registries.conf`.
            files: What the list calls `FILES`.
            run: How helpers are run.
        """
        super().__init__(files)
        self._places = tuple(places)
        self._run = run
        self._lock = threading.Lock()
        self._read: tuple[tuple[str, ...], str] | None = None
        self._made: tuple[Keychain, ...] | None = None

    def find(self, registry: str, repository: str) -> tuple[Keychain, Credentials] | None:
        """Asks one after the other; one that fails leaves it to the next.

        Raises:
            UsageError: the list, or a file, is broken.
            RegistryError: helpers failed, and nobody had anything.
        """
        failed: RegistryError | None = None
        for keychain in self._members():
            try:
                if found := Chain((keychain,)).find(registry, repository):
                    return found
            except RegistryError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return None

    @property
    def where(self) -> str:
        """The file and the line of the list; empty where there is none."""
        return self._names()[1]

    @property
    def reads_files(self) -> bool:
        """Whether the files are asked at all."""
        names = self._names()[0]
        return not names or FILES in names

    def helpers(self) -> list[Helper]:
        """Every helper of the list.

        Raises:
            UsageError: the list is broken.
        """
        names, where = self._names()
        return [Helper(name, named_by=where, run=self._run) for name in names if name != FILES]

    def before_files(self) -> list[Helper]:
        """Those that go before the files; what is stored is stored there.

        Raises:
            UsageError: the list is broken.
        """
        names = self._names()[0]
        return self.helpers()[: names.index(FILES)] if FILES in names else self.helpers()

    def _members(self) -> Sequence[Keychain]:
        names, where = self._names()
        with self._lock:
            if self._made is None:
                made: list[Keychain] = []
                for name in names or (FILES,):
                    if name == FILES:
                        made.append(Chain(super()._members()))
                    else:
                        text = json.dumps({"credsStore": name})
                        made.append(ConfigText(text, where, run=self._run))
                self._made = tuple(made)
            return self._made

    def _names(self) -> tuple[tuple[str, ...], str]:
        with self._lock:
            if self._read is None:
                from img.registry.registries_conf import read_helpers  # it needs a parser

                self._read = read_helpers(self._places)
            return self._read
