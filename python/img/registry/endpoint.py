"""`Endpoint`: where a registry answers, and whether TLS is spoken there.

Called by the wire. Pure apart from the one thing that an endpoint learns: where both TLS and plain HTTP are
allowed, the first answer decides.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from img.errors import InvalidReference
from img.oci.reference import DEFAULT_REGISTRY
from img.registry.options import Options
from img.web.hosts import among, is_loopback, origin, shown

__all__ = ["Endpoint", "is_insecure", "is_loopback", "may_be_plain", "named", "origin", "shown"]

_DEFAULT_HOST = "registry-1.docker.io"


class Endpoint:
    """One registry's address.

    Attributes:
        registry: The name as references have it.
        insecure: Its certificate is not verified.
        scheme: `http` or `https`.
        settled: False until an answer has shown that the scheme is the right one.
    """

    def __init__(self, registry: str, options: Options, *, insecure: bool = False) -> None:
        """Works the address out; nothing is asked.

        Args:
            insecure: It is, whatever the options say.
        Raises:
            InvalidReference: the registry's name is none that can be connected to.
        """
        self.registry = registry
        self.host = _DEFAULT_HOST if registry == DEFAULT_REGISTRY else registry
        try:
            self.insecure = insecure or is_insecure(f"https://{self.host}", options)
        except ValueError as error:
            raise InvalidReference(registry, str(error)) from error
        # What is near or was told to be plain is tried so first; what is merely not verified, with TLS.
        plain = may_be_plain(f"//{self.host}", options)
        self.scheme = "http" if plain else "https"
        self.settled = not (plain or self.insecure)

    @property
    def base(self) -> str:
        """`scheme://host[:port]`."""
        return self.base_of(self.scheme)

    def base_of(self, scheme: str) -> str:
        """The same with a scheme that may not be the right one."""
        return f"{scheme}://{self.host}"

    @property
    def names(self) -> tuple[str, ...]:
        """What its folder of certificates may be called."""
        return tuple(dict.fromkeys((self.registry, self.host)))

    def owns(self, url: str) -> bool:
        """Tells whether a URL leads here: same scheme, host and port. Only then may it see credentials."""
        return origin(url) == origin(self.base)

    def is_at(self, url: str) -> bool:
        """Tells whether a URL leads to its host and port; a name without a port has both of the web's."""
        return any(origin(url)[1:] == origin(self.base_of(scheme))[1:] for scheme in ("https", "http"))

    def settle_on(self, scheme: str) -> None:
        """Notes which scheme is the right one."""
        self.scheme = scheme
        self.settled = True


def named(url: str, registries: frozenset[str]) -> bool:
    """Tells whether a URL's `host` or `host:port` is among `registries`."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2].lower()
    return bool(registries) and (netloc in registries or (parts.hostname or "") in registries)


def is_insecure(url: str, options: Options) -> bool:
    """Tells whether a URL's host is one whose certificate is not verified."""
    _, host, port = origin(url)
    return bool(options.insecure) and among(host, port, options.insecure)


def may_be_plain(url: str, options: Options) -> bool:
    """Tells whether a URL's host may be spoken to without TLS."""
    return is_loopback(urlsplit(url).hostname or "") or named(url, options.plain_http)
