"""`Endpoint`: where the registry of a reference answers, and whether TLS is spoken there.

Called by the wire. Pure apart from the one thing that an endpoint learns: a loopback address is tried
without TLS first, and its first answer decides.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from img.errors import InvalidReference
from img.oci.reference import DEFAULT_REGISTRY
from img.registry.options import Options

_DEFAULT_HOST = "registry-1.docker.io"
_PORTS = {"http": 80, "https": 443}


class Endpoint:
    """One registry's address.

    Attributes:
        registry: The name as references have it.
        scheme: `http` or `https`.
        settled: False until an answer has shown that the scheme is the right one.
    """

    def __init__(self, registry: str, options: Options) -> None:
        """Works the address out; nothing is asked.

        Raises:
            InvalidReference: the registry's name is none that can be connected to.
        """
        self.registry = registry
        self.host = _DEFAULT_HOST if registry == DEFAULT_REGISTRY else registry
        try:
            origin(f"https://{self.host}")
        except ValueError as error:
            raise InvalidReference(registry, str(error)) from error
        plain = may_be_plain(f"//{self.host}", options)
        self.scheme = "http" if plain else "https"
        self.settled = not plain

    @property
    def base(self) -> str:
        """`scheme://host[:port]`."""
        return f"{self.scheme}://{self.host}"

    def owns(self, url: str) -> bool:
        """Tells whether a URL leads here: same scheme, host and port. Only then may it see credentials."""
        return origin(url) == origin(self.base)

    def switch_to_tls(self) -> None:
        """Notes that this address speaks TLS after all."""
        self.scheme = "https"
        self.settled = True

    def switch_back(self) -> None:
        """Notes that it does not, or not just now."""
        self.scheme = "http"
        self.settled = False


def origin(url: str) -> tuple[str, str, int | None]:
    """Gives scheme, host and port of a URL, the port that is implied included.

    Raises:
        ValueError: the URL's port is no number.
    """
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def is_loopback(host: str) -> bool:
    """Tells whether a host name or address is this machine itself."""
    import ipaddress

    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def named(url: str, registries: frozenset[str]) -> bool:
    """Tells whether a URL's `host` or `host:port` is among `registries`."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2].lower()
    return bool(registries) and (netloc in registries or (parts.hostname or "") in registries)


def may_be_plain(url: str, options: Options) -> bool:
    """Tells whether a URL's host may be spoken to without TLS."""
    return is_loopback(urlsplit(url).hostname or "") or named(url, options.plain_http)


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment, where secrets travel."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
