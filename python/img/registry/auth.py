"""`Credentials`, and the `Keychain` that finds them for a registry.

`Given` holds what the caller said, `Chain` asks several keychains in order, and `ConfigFile`, in a module of
its own, reads the files that docker and podman write. What is here reads and writes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Protocol

from img.registry.place import Place
from img.values import dataclass

GIVEN = "the credentials given"
"""What is called so that comes from no file."""


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


class Given:
    """A `Keychain` of what the caller said, each for one place and no other."""

    source = GIVEN

    def __init__(self, credentials: Mapping[Place, Credentials]) -> None:
        """Takes them over."""
        self._credentials = dict(credentials)

    def get(self, registry: str, repository: str) -> Credentials | None:
        """Gives those of the longest place that covers the repository."""
        found = [place for place in self._credentials if place.covers(registry, repository)]
        return self._credentials[max(found, key=lambda place: len(str(place)))] if found else None


class Chain:
    """A `Keychain` of several: the first that has something for a repository is believed."""

    def __init__(self, keychains: Sequence[Keychain]) -> None:
        """Names them, the one that goes before all others first."""
        self._keychains = tuple(keychains)

    @property
    def source(self) -> str:
        """Where they look, for people."""
        return ", ".join(filter(None, (_source(keychain) for keychain in self._members())))

    def get(self, registry: str, repository: str) -> Credentials | None:
        """Asks one after the other.

        Raises:
            As they do.
        """
        found = self.find(registry, repository)
        return found[1] if found else None

    def source_of(self, registry: str, repository: str) -> str:
        """Says where `get` finds what it gives; empty where it gives nothing."""
        found = self.find(registry, repository)
        return _source(found[0]) if found else ""

    def find(self, registry: str, repository: str) -> tuple[Keychain, Credentials] | None:
        """As `get`, with the keychain that it comes from, which is no chain itself."""
        return next(filter(None, (_found(each, registry, repository) for each in self._members())), None)

    def _members(self) -> Sequence[Keychain]:
        return self._keychains


class Trade:
    """A `Keychain` of one login: it offers what the user gave, and takes an identity token for it.

    Attributes:
        identity_token: What the token server gave in the place of the password; empty where it gave nothing.
        asked: Somebody wanted to see the credentials.
    """

    source = GIVEN

    def __init__(self, credentials: Credentials) -> None:
        """Offers them to whatever registry asks: a login speaks to one."""
        self._credentials = credentials
        self.identity_token = ""
        self.asked = False

    def get(self, registry: str, repository: str) -> Credentials | None:
        """Gives what is offered."""
        self.asked = True
        return self._credentials


def _found(keychain: Keychain, registry: str, repository: str) -> tuple[Keychain, Credentials] | None:
    if isinstance(keychain, Chain):
        return keychain.find(registry, repository)
    credentials = keychain.get(registry, repository)
    return (keychain, credentials) if credentials else None


def _source(keychain: Keychain) -> str:
    return str(getattr(keychain, "source", ""))
