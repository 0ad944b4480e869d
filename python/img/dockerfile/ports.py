"""`exposed_ports`: one word of EXPOSE, variables in place, as the ports that it names.

Source: Dockerfile reference, "EXPOSE"; the form `[[ip:]host:]port` is what docker accepts besides.
"""

from __future__ import annotations

from img import regex

PROTOCOLS = ("tcp", "udp", "sctp")
_RANGE = regex.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_LAST = 65535


def exposed_ports(word: str) -> list[str]:
    """Gives the ports, each as `port/protocol`.

    Args:
        word: `port[-last][/protocol]`. An address and a port of the host before it, as publishing a
            port has them, are checked and mean nothing.
    Raises:
        ValueError: it is none; the text says why.
    """
    before, _, container = word.rpartition(":")
    address, _, host = before.rpartition(":")
    numbers, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r}")
    if address:
        _check_address(address)
    first, last = _range(numbers)
    if host:
        low, high = _range(host)
        if first != last and high - low != last - first:
            raise ValueError(f"the ranges {host} and {numbers} differ in length")
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def host_part(word: str) -> str:
    """What stands before the container's port: `127.0.0.1:8080`, `8080`, or nothing."""
    return word.rpartition(":")[0]


def protocol_part(word: str) -> str:
    """What stands after the slash, as it is written."""
    return word.partition("/")[2]


def _range(text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no number" if text else "the number is missing")
    first, last = int(found[1]), int(found[2] or found[1])
    if last > _LAST or first > _LAST:
        raise ValueError(f"ports end at {_LAST}")
    if first > last:
        raise ValueError(f"the range {text} runs backwards")
    return first, last


def _check_address(text: str) -> None:
    import ipaddress  # hardly any EXPOSE has an address

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(bare)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IP address") from error
