"""`blame`: what went wrong with a request, in words that hold no secret.

Called with what requests and urllib3 raise. The system's own errors say it better than their wrappers, and
quote no URL.
"""

from __future__ import annotations

import enum
import errno
import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3

from img import regex
from img.values import dataclass
from img.web.hosts import shown
from img.web.sockets import Limits, TooSlow

_TUNNEL = regex.compile(r"Tunnel connection failed: (\d{3})")
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationParseError,
)
_DOWN = "is the server running, and is its name right?"
_TROUBLE = "the server or the network has trouble"


class Kind(enum.Enum):
    """Whether it may pass."""

    CERTIFICATE = "certificate"
    ADDRESS = "address"
    PASSING = "passing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """What went wrong.

    Attributes:
        text: The reason alone, without the server's name.
        root: The system's own error, whose text holds no URL.
        garbled: There was a connection, but no HTTP answer, as from an address that speaks TLS.
    """

    kind: Kind
    text: str = ""
    hint: str = ""
    root: BaseException | None = None
    garbled: bool = False


def blame(error: BaseException, limits: Limits, proxy: str = "") -> Blame:
    """Finds out what went wrong.

    Args:
        proxy: Address of the proxy that was asked, or empty; user and password are not told.
    """
    chain = list(_chain(error))
    root = next((one for one in chain if _is_own(one)), None)
    refused = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), None)
    if refused:
        return Blame(
            kind=Kind.CERTIFICATE, text=refused.verify_message or "the certificate does not fit", root=root
        )
    if any(isinstance(one, _NO_ADDRESS) for one in chain):
        return Blame(kind=Kind.ADDRESS, root=root)
    text, hint = _proxy_reason(chain, proxy) or _reason(chain, limits)
    garbled = any(isinstance(one, http.client.BadStatusLine | ConnectionResetError) for one in chain)
    return Blame(kind=Kind.PASSING, text=text, hint=hint, root=root, garbled=garbled)


def _is_own(error: BaseException) -> bool:
    own = isinstance(error, OSError | http.client.HTTPException)
    return own and not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Every exception inside what requests and urllib3 wrap around the one that happened."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [getattr(one, "reason", None), one.__cause__, *one.args, one.__context__]


def _proxy_reason(chain: list[BaseException], proxy: str) -> tuple[str, str] | None:
    """What the proxy did, where it was the proxy."""
    if not proxy or not any(isinstance(one, urllib3.exceptions.ProxyError) for one in chain):
        return None
    where = shown(proxy).rstrip("/")
    refused = next((m for one in chain if (m := _TUNNEL.search(str(one)))), None)
    if refused and refused[1] == "407":
        return (
            f"the proxy {where} wants a user and a password",
            "write them in its address: http://USER:PASSWORD@…",
        )
    if refused:
        return f"the proxy {where} refuses with {refused[1]}", "ask who runs it, or name the host in no_proxy"
    return f"the proxy {where} gives no connection", "check the proxy's address"


def _reason(chain: list[BaseException], limits: Limits) -> tuple[str, str]:
    """What went wrong, and what to do."""

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((one for one in chain if isinstance(one, kinds)), None)

    if first(socket.gaierror):
        return "no such host", "check its name, and this machine's name server"
    if first(ConnectionRefusedError):
        return "connection refused", _DOWN
    if isinstance(handshake := first(ssl.SSLError), ssl.SSLError):
        text = (handshake.reason or "handshake failed").replace("_", " ").lower()
        return f"TLS failed: {text}", "does the server speak TLS? name a registry as insecure that does not"
    new = first(urllib3.exceptions.NewConnectionError)
    if not new and first(urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {limits.connect_seconds:g} seconds", _DOWN
    if first(TooSlow):
        return f"too slow: less than {limits.least_bytes_per_second:g} bytes a second", _TROUBLE
    if first(urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return f"silent for {limits.read_seconds:g} seconds", _TROUBLE
    for one in chain:
        if isinstance(one, OSError) and one.errno in errno.errorcode:
            return f"{'no connection' if new else 'the connection broke'}: {one.strerror}", _TROUBLE
    return "the connection broke", _TROUBLE
