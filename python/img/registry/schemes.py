"""`settle`: finds out whether TLS is spoken at an endpoint where either would be allowed.

Called by the wire around each exchange. The first answer decides; until there is one, an exchange may try
both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from img.registry.endpoint import Endpoint, origin
from img.registry.retry import Retriable

if TYPE_CHECKING:
    from img.registry.transport import Reply

Exchange = Callable[[], "tuple[Reply, str]"]
"""Sends with the endpoint's scheme of the moment; gives the answer, and the Authorization that was sent."""


def settle(endpoint: Endpoint, once: Exchange) -> tuple[Reply, str]:
    """Asks with the scheme that comes first, and with the other where that turns out to be wanted.

    Raises:
        Whatever `once` raises; of two failures the first.
    """
    if endpoint.settled:
        return once()
    plain = endpoint.scheme == "http"
    try:
        reply, authorization = once()
    except Retriable as fault:
        if fault.error.status or (plain and not fault.garbled):
            raise
        return _other(endpoint, once, fault)
    if plain and (_wants_tls(reply) or _moved_to_tls(endpoint, reply)):
        reply.close()
        endpoint.switch()
        reply, authorization = once()
    endpoint.settled = True
    return reply, authorization


def _other(endpoint: Endpoint, once: Exchange, fault: Retriable) -> tuple[Reply, str]:
    """After no HTTP answer: either the other scheme is spoken here, or the connection merely broke."""
    endpoint.switch()
    try:
        found = once()
    except Retriable:
        endpoint.switch()
        raise fault from fault.cause
    endpoint.settled = True
    return found


def _wants_tls(reply: Reply) -> bool:
    """Tells whether an answer to plain HTTP is a TLS server's complaint: a 400 that no registry gives."""
    return (
        reply.status == 400
        and "json" not in reply.headers.get("Content-Type", "").lower()
        and "Docker-Distribution-Api-Version" not in reply.headers
    )


def _moved_to_tls(endpoint: Endpoint, reply: Reply) -> bool:
    """Tells whether an address without TLS leads to the one with it, where no Authorization went along."""
    scheme, host, _ = origin(reply.url)
    return reply.status == 401 and scheme == "https" and host == origin(endpoint.base)[1]
