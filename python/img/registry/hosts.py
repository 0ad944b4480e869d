"""`among`: whether a host is one of those that a list of the user's means, as for `no_proxy`.

Pure text; no name is looked up. Called by the transport for proxies, by endpoints for insecure registries.
"""

from __future__ import annotations

from collections.abc import Iterable

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
