"""`Options`: how registries may be reached. Made by the caller; nothing here reads the environment."""

from __future__ import annotations

from collections.abc import Mapping

from img.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a `Registry` may do, and for how long it tries.

    Attributes:
        plain_http: Registries (`host` or `host:port`) that may be spoken to without TLS. Loopback always may.
        insecure: Registries whose TLS certificate is not verified, and which may be spoken to without TLS
            where they speak none: `host`, `host:port`, a network such as `10.0.0.0/8`, or `*` for all.
        ca_file: PEM file of further certificate authorities, beside those of the system.
        cert_dirs: Folders laid out as `certs.d`: `HOST[:PORT]/*.crt`, `*.cert` with `*.key`. The first one
            that has a host's folder counts for that host.
        cert_dir: A folder with such files for every registry; instead of `cert_dirs`.
        registries_conf: Files and folders in the format of containers' `registries.conf`; a later one wins.
        mirrors: `HOST=MIRROR` each: a registry (or the beginning of a name), and what is asked before it.
        connect_seconds: Time for a connection to stand, whatever addresses a name has.
        read_seconds: Time that a connection may be silent.
        least_bytes_per_second: What must move on average within `read_seconds`; slower is as good as silent.
        attempts: How often one request is tried before its failure counts; at least 1.
        backoff_seconds: Wait before the second attempt; doubled for each further one, and jittered.
        part_bytes: A longer blob is sent in parts of this length, so that a break costs one of them.
        user_agent: What the registry reads as User-Agent.
        proxies: Proxy URL by scheme (`http`, `https`). May hold a password, hence never shown.
        no_proxy: What is reached directly: hosts and the hosts below them, `host:port`, networks, or `*` for
            everything. Loopback always is.
    """

    plain_http: frozenset[str] = frozenset()
    insecure: frozenset[str] = frozenset()
    ca_file: str | None = None
    cert_dirs: tuple[str, ...] = ()
    cert_dir: str = ""
    registries_conf: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    connect_seconds: float = 10
    read_seconds: float = 60
    least_bytes_per_second: float = 1024
    attempts: int = 5
    backoff_seconds: float = 0.25
    part_bytes: int = 32 << 20
    user_agent: str = "img"
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
