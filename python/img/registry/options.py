"""`Options`: how registries may be reached. Made by the caller; nothing here reads the environment."""

from __future__ import annotations

from collections.abc import Mapping

from img.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a `Registry` may do, and for how long it tries.

    Attributes:
        plain_http: Registries (`host` or `host:port`) that may be spoken to without TLS. Loopback always may.
        insecure: Registries whose TLS certificate is not verified.
        ca_file: PEM file of further certificate authorities, beside those of the system.
        connect_seconds: Time for a connection to stand.
        read_seconds: Time that a connection may be silent.
        attempts: How often one request is tried before its failure counts; at least 1.
        backoff_seconds: Wait before the second attempt; doubled for each further one, and jittered.
        part_bytes: A longer blob is sent in parts of this length, so that a break costs one of them.
        user_agent: What the registry reads as User-Agent.
        proxies: Proxy URL by scheme (`http`, `https`). May hold a password, hence never shown.
        no_proxy: Hosts and domain suffixes that are reached directly. Loopback always is.
    """

    plain_http: frozenset[str] = frozenset()
    insecure: frozenset[str] = frozenset()
    ca_file: str | None = None
    connect_seconds: float = 10
    read_seconds: float = 60
    attempts: int = 5
    backoff_seconds: float = 0.25
    part_bytes: int = 32 << 20
    user_agent: str = "img"
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
