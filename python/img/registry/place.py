"""`Place`: what credentials are for: a registry, or the repositories of one that begin alike.

Config files and helpers call a place by a key, of which several spellings are about; `normal` makes one
of them. Pure: text in, values out. Source: containers-auth.json(5), "FORMAT"; docker's config.json.
"""

from __future__ import annotations

from collections.abc import Iterable

from img import regex
from img.errors import InvalidReference
from img.oci.reference import DEFAULT_REGISTRY
from img.values import dataclass

DOCKER_HUB = "https://index.docker.io/v1/"
"""What docker calls `docker.io` in its files and to helpers."""

_DOCKER_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "docker.io"})
_HOST = regex.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::[0-9]{1,5})?")
_NAMESPACE = regex.compile(r"[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A registry (`host[:port]`), and the beginning of its repositories' names, or empty for all."""

    registry: str
    namespace: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Reads `registry[:port][/namespace]`, a `https://` before it and a `/v2/` behind it allowed.

        A registry is told as in the name of an image: else nothing could ever be found under it.

        Args:
            text: Empty for `docker.io`.
        Raises:
            InvalidReference: it is none.
        """
        name = normal(text.strip() or DEFAULT_REGISTRY)
        registry, _, namespace = name.partition("/")
        if "@" in text:  # before it stands a user, and perhaps a password
            raise InvalidReference(f"***@{text.rpartition('@')[2]}", "users are named by --username")
        if not _HOST.fullmatch(registry):
            raise InvalidReference(text, "the registry is not a host name with an optional port")
        if not _is_registry(registry):
            reason = f"a registry's name holds '.' or ':', or is localhost; write {DEFAULT_REGISTRY}/{name}?"
            raise InvalidReference(text, reason)
        if namespace and not _NAMESPACE.fullmatch(namespace):
            raise InvalidReference(text, "what follows the registry is not the beginning of a repository")
        return cls(registry=registry, namespace=namespace)

    def __str__(self) -> str:
        return f"{self.registry}/{self.namespace}" if self.namespace else self.registry

    @property
    def key(self) -> str:
        """What files and helpers call it."""
        return key_of(str(self))

    def covers(self, registry: str, repository: str) -> bool:
        """Tells whether what is for this place is for a repository."""
        return covers(str(self), registry, repository)


def _is_registry(host: str) -> bool:
    return "." in host or ":" in host or host == "localhost"


def normal(key: str) -> str:
    """The one spelling of a key: without a scheme, the protocol's version, and docker.io's other names."""
    name = key.partition("://")[2] if "://" in key else key
    host, _, path = name.strip("/").partition("/")
    host = host.lower()
    if path in ("v1", "v2"):
        path = ""
    if host in _DOCKER_NAMES:
        host = DEFAULT_REGISTRY
    return f"{host}/{path}" if path else host


def key_of(name: str) -> str:
    """The key of a normal name."""
    return DOCKER_HUB if name == DEFAULT_REGISTRY else name


def covers(name: str, registry: str, repository: str) -> bool:
    """Tells whether a normal name stands for a repository: the whole of it, or parts of it from the left."""
    whole = f"{registry.lower()}/{repository}"
    return whole == name or whole.startswith(name + "/")


def covering(keys: Iterable[str], registry: str, repository: str) -> list[str]:
    """The normal names of the keys that stand for a repository, the longest first."""
    names = {name for name in map(normal, keys) if covers(name, registry, repository)}
    return sorted(names, key=len, reverse=True)
