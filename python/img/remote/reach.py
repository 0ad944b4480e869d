"""`Reach`: how servers may be reached. Made by the engine; nothing here reads the environment."""

from __future__ import annotations

from collections.abc import Mapping

from img.values import dataclass, field
from img.web.hosts import proxy_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How servers are reached. Made by the caller; nothing here reads the environment.

    Attributes:
        proxies: Proxy URL by scheme (`http`, `https`). May hold a password: never shown.
        no_proxy: What is reached directly: hosts and the hosts below them, `host:port`, networks, or `*` for
            everything. Loopback always is.
        ca_file: PEM file of further certificate authorities; empty for none.
        connect_seconds: Time for a connection to stand.
        read_seconds: Time that a connection may be silent.
        least_bytes_per_second: What must move on average within `read_seconds`; slower is as good as silent.
        attempts: How often a fetch that does not move on is tried; at least 1.
        backoff_seconds: Wait before the second attempt; doubled for each further one, and jittered.
    """

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""
    connect_seconds: float = 10
    read_seconds: float = 60
    least_bytes_per_second: float = 1024
    attempts: int = 5
    backoff_seconds: float = 0.25

    def proxies_for(self, url: str) -> dict[str, str]:
        """The proxy for a URL, by its scheme: none where its host is loopback or is listed in `no_proxy`."""
        proxy = proxy_for(url, self.proxies, self.no_proxy)
        return {url.partition(":")[0].lower(): proxy} if proxy else {}
