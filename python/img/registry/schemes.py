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

Exchange = Callable[[str], "tuple[Reply, str]"]
"""Sends to an endpoint's base; gives the answer, and the Authorization that was sent."""

_PLAIN_WORDS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""What OpenSSL calls an answer that is no TLS."""


def settle(endpoint: Endpoint, send: Exchange) -> tuple[Reply, str]:
    """Asks with the scheme that comes first, and with the other where that turns out to be wanted.

    Raises:
        Whatever `send` raises; of two failures the first.
    """
    if endpoint.settled:
        return send(endpoint.base)
    scheme = endpoint.scheme
    other = "http" if scheme == "https" else "https"
    try:
        found = send(endpoint.base_of(scheme))
    except Retriable as fault:
        if fault.error.status or (scheme == "http" and not fault.garbled):
            raise
        try:  # either the other scheme is spoken here, or the connection merely broke
            found = send(endpoint.base_of(other))
        except Retriable:
            raise fault from fault.cause
        endpoint.settle_on(other)
        return found
    reply, _ = found
    if scheme == "http" and (_wants_tls(reply) or _moved_to_tls(endpoint, reply)):
        try:
            better = send(endpoint.base_of(other))
        except BaseException as fault:
            if reply.status != 400 or not _speaks_no_tls(fault):
                reply.close()
                raise
        else:
            reply.close()
            found, scheme = better, other
    endpoint.settle_on(scheme)
    return found


def _wants_tls(reply: Reply) -> bool:
    """Tells whether an answer to plain HTTP is a TLS server's complaint: a 400 that no registry gives."""
    return (
        reply.status == 400
        and "json" not in reply.headers.get("Content-Type", "").lower()
        and "Docker-Distribution-Api-Version" not in reply.headers
    )


def _speaks_no_tls(fault: BaseException) -> bool:
    """Tells whether a greeting in TLS had an answer in plain words: the complaint was of something else."""
    import ssl  # by now it is loaded: a registry was asked

    cause = fault.cause if isinstance(fault, Retriable) else None
    return isinstance(cause, ssl.SSLError) and cause.reason in _PLAIN_WORDS


def _moved_to_tls(endpoint: Endpoint, reply: Reply) -> bool:
    """Tells whether an address without TLS leads to the one with it, where no Authorization went along."""
    scheme, host, _ = origin(reply.url)
    return reply.status == 401 and scheme == "https" and host == origin(endpoint.base)[1]
