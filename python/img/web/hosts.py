"""`among`: whether a list of the user's means a host; `proxy_for`: what a URL is reached by.

Pure text; no name is looked up. Called by whatever speaks to registries, to the web and to shared caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def among(host: str, port: int | None, entries: Iterable[str], *, below: bool = False) -> bool:
    """Tells whether a host is meant by one of `entries`.

    Args:
        host: Name or address, without brackets.
        entries: `*` for all, `host`, `host:port`, `[address]:port`, or a network such as `10.0.0.0/8` (for
            hosts that are addresses). A leading dot, or `*.`, is for a domain and the hosts below it.
        below: A plain name stands for the hosts below it as well, as in `no_proxy`.
    """
    name = host.lower().rstrip(".")
    return any(_means(entry.strip().lower(), name, port, below) for entry in entries)


def origin(url: str) -> tuple[str, str, int | None]:
    """Gives scheme, host and port of a URL, the port that is implied included.

    Raises:
        ValueError: the URL's port is no number.
    """
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment, where secrets travel."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_loopback(host: str) -> bool:
    """Tells whether a host name or address is this machine itself."""
    import ipaddress

    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(url: str, proxies: Mapping[str, str], no_proxy: Iterable[str]) -> str:
    """The address of the proxy for a URL; empty where it is reached directly, as loopback always is.

    Args:
        proxies: Address by scheme.
        no_proxy: As `among` has it, with the hosts below each.
    """
    try:
        scheme, host, port = origin(url)
    except ValueError:
        return ""
    proxy = proxies.get(scheme, "")
    return "" if not proxy or is_loopback(host) or among(host, port, no_proxy, below=True) else proxy


def _means(entry: str, host: str, port: int | None, below: bool) -> bool:
    if entry in ("", "*"):
        return bool(entry)
    if "/" in entry:
        return _in_network(host, entry)
    name, wanted = split_port(entry)
    if wanted is not None and wanted != port:
        return False
    domain = name.removeprefix("*").lstrip(".")
    if not domain:
        return False
    return host == domain or ((below or domain != name) and host.endswith("." + domain))


def split_port(text: str) -> tuple[str, int | None]:
    """Parts `host`, `host:port`, `[address]`, `[address]:port` or a bare IPv6 address."""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        digits = rest.removeprefix(":")
    elif text.count(":") == 1:
        name, _, digits = text.partition(":")
    else:
        return text, None
    return name, int(digits) if digits.isdecimal() and len(digits) < 6 else None


def _in_network(host: str, entry: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
