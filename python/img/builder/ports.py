"""`port_numbers`: what one word of EXPOSE means. Pure; `configure` and the checks of a plan read it.

A word is `[[address:]host-port:]port[-port][/protocol]`: what stands for the host is allowed, and
means nothing. Source: Dockerfile reference, "EXPOSE".
"""

from __future__ import annotations

import ipaddress
import re

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE | re.ASCII)
_LAST = 65535


def port_numbers(word: str) -> list[str]:
    """Gives the ports, each as `80/tcp`.

    Raises:
        ValueError: the word is no port.
    """
    found = _range(word.rpartition(":")[2])
    if found is None or not _is_host(host_part(word), found):
        raise ValueError(f"{word!r} is no port")
    first, last, protocol_ = found
    return [f"{number}/{protocol_.lower()}" for number in range(first, last + 1)]


def host_part(word: str) -> str:
    """What stands before the container's port: `127.0.0.1:8080`, `8080`, or nothing."""
    return word.rpartition(":")[0]


def protocol(word: str) -> str:
    """What stands after the slash, as it is written."""
    return word.partition("/")[2]


def _range(text: str) -> tuple[int, int, str] | None:
    found = _PORT.fullmatch(text)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return (first, last, found[3] or "tcp") if first <= last <= _LAST else None


def _is_host(text: str, ports: tuple[int, int, str]) -> bool:
    """Tells whether it is an address, a port or a range as long as the container's, or both, or nothing."""
    address, _, port = text.rpartition(":")
    if port:
        host = _range(port)
        if host is None or "/" in port:
            return False
        if ports[1] > ports[0] and host[1] - host[0] != ports[1] - ports[0]:
            return False
    if not address:
        return True
    try:
        ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
