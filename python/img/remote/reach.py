"""`Reach`: how servers may be reached. Made by the engine; nothing here reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from img.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How servers are reached. Made by the caller; nothing here reads the environment.

    Attributes:
        proxies: Proxy URL by scheme (`http`, `https`). May hold a password: never shown.
        no_proxy: Hosts and domain suffixes that are reached directly. Loopback always is.
        ca_file: PEM file of further certificate authorities; empty for none.
        connect_seconds: Time for a connection to stand.
        read_seconds: Time that a connection may be silent.
        attempts: How often a fetch that does not move on is tried; at least 1.
        backoff_seconds: Wait before the second attempt; doubled for each further one, and jittered.
    """

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""
    connect_seconds: float = 10
    read_seconds: float = 60
    attempts: int = 5
    backoff_seconds: float = 0.25

    def proxies_for(self, url: str) -> dict[str, str]:
        """The proxies for a URL: none where its host is loopback or is listed in `no_proxy`."""
        host = (urlsplit(url).hostname or "").lower()
        if not self.proxies or _is_loopback(host):
            return {}
        for name in self.no_proxy:
            suffix = name.lower().strip().lstrip("*").lstrip(".")
            if name.strip() == "*" or (suffix and (host == suffix or host.endswith("." + suffix))):
                return {}
        return dict(self.proxies)


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
