"""`Transport`: sends one request, once, and gives its `Reply` with the body still unread.

The only module that imports requests; loaded with the first network call. It follows no redirect, adds no
credentials, reads no environment and retries nothing: the wire decides those. Failures become `Retriable`
where they may pass, `RegistryError` where they cannot; neither quotes a URL's query.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from img.errors import InvalidDocument, RegistryError, UsageError
from img.registry.endpoint import is_loopback, named, origin, shown
from img.registry.options import Options
from img.registry.retry import Retriable

_POOL = 32
_DRAIN_BYTES = 64 << 10
_DOCUMENT_PIECE_BYTES = 64 << 10
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationParseError,
)


class Transport:
    """Connections to every registry of one client. Safe from several threads."""

    def __init__(self, options: Options) -> None:
        """Prepares; no connection is made.

        Raises:
            UsageError: the CA file cannot be used.
        """
        # Adapters without a Session: a Session would keep cookies, read the environment and netrc,
        # and is not made for several threads; the pools below an adapter are.
        self._options = options
        self._plain = _Adapter(None)
        self._verified = _Adapter(_trusting(options.ca_file))
        self._unverified = _Adapter(_blind()) if options.insecure else None

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
    ) -> Reply:
        """Sends a request and reads the head of its answer.

        Args:
            body: Bytes, or pieces of them from an object that has a length.
        Returns:
            The answer, whatever its status; the caller closes it.
        Raises:
            Retriable: no connection, no answer, or a broken one.
            RegistryError: the TLS certificate was refused, or the URL is none.
        """
        sent = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **headers}
        timeout = (self._options.connect_seconds, self._options.read_seconds)
        try:
            prepared = requests.Request(method, url, headers=sent, data=body).prepare()
            adapter = self._adapter(prepared.url or url)
            response = adapter.send(
                prepared,
                stream=True,
                timeout=timeout,
                verify=adapter is not self._unverified,
                proxies=self._proxies(url),
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _failure(error, method, url, self._options) from _root(error)
        return Reply(response, method, url, self._options)

    def close(self) -> None:
        """Closes idle connections."""
        for adapter in (self._plain, self._verified, self._unverified):
            if adapter is not None:
                adapter.close()

    def _adapter(self, url: str) -> _Adapter:
        if not url.lower().startswith("https:"):
            return self._plain
        if self._unverified is not None and named(url, self._options.insecure):
            return self._unverified
        return self._verified

    def _proxies(self, url: str) -> dict[str, str]:
        host = (urlsplit(url).hostname or "").lower()
        if not self._options.proxies or is_loopback(host):
            return {}
        for name in self._options.no_proxy:
            suffix = name.lower().strip().lstrip("*").lstrip(".")
            if name.strip() == "*" or (suffix and (host == suffix or host.endswith("." + suffix))):
                return {}
        return dict(self._options.proxies)


class Reply:
    """An answer: its status and headers, and its body as it arrives. One thread reads; any may `shutdown`."""

    def __init__(self, response: requests.Response, method: str, url: str, options: Options) -> None:
        self._response = response
        self._method = method
        self._options = options
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url

    def __enter__(self) -> Reply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def length(self) -> int | None:
        """Content-Length, or None where it is missing or no number."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isdecimal() and len(value) < 20 else None

    def read(self, count: int) -> bytes:
        """Reads up to `count` bytes as sent, waiting for all of them; empty at the end.

        Raises:
            Retriable: the connection broke, or the body ended before its announced length.
        """
        return self._guarded(self._response.raw.read, count)

    def document(self, limit: int, what: str) -> bytes:
        """Reads the whole body of something small.

        Args:
            limit: Bytes that it may have; a longer one is refused unread, or once it passes them.
            what: Its name for the error.
        Raises:
            InvalidDocument: it is longer.
            Retriable: the connection broke, or dripped for too long.
        """
        if (self.length or 0) > limit:
            raise InvalidDocument(what, f"longer than {limit} bytes")
        raw = self._response.raw
        read = getattr(raw, "read1", raw.read)
        deadline = time.monotonic() + 2 * self._options.read_seconds
        pieces: list[bytes] = []
        total = 0
        while piece := self._guarded(read, min(_DOCUMENT_PIECE_BYTES, limit + 1 - total)):
            pieces.append(piece)
            total += len(piece)
            if total > limit:
                raise InvalidDocument(what, f"longer than {limit} bytes")
            if time.monotonic() > deadline:
                late = RegistryError(
                    f"{what} came too slowly", method=self._method, url=shown(self.url), status=self.status
                )
                raise Retriable(late)
        if self.length is not None and total < self.length and self._method != "HEAD":
            raise self.ended_early(what)
        return b"".join(pieces)

    def ended_early(self, what: str = "the body") -> Retriable:
        """The failure of an answer that has fewer bytes than it should."""
        return Retriable(
            RegistryError(f"{what} ended early", method=self._method, url=shown(self.url), status=self.status)
        )

    def close(self) -> None:
        """Ends the exchange; the connection is kept for the next one where little is left to read."""
        left = 0 if self._method == "HEAD" else self.length
        try:
            if left is not None and left <= _DRAIN_BYTES:
                self._response.raw.read(_DRAIN_BYTES)
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            pass  # nobody waits for these bytes, and the connection is closed below
        self._response.close()

    def shutdown(self) -> None:
        """Makes a read that waits in another thread return at once."""
        try:
            self._response.raw.shutdown()
        except (AttributeError, OSError, RuntimeError, ValueError):
            pass  # an older urllib3, or a connection that is closed already: the read time-out ends it

    def _guarded(self, read: Any, count: int) -> bytes:
        try:
            data: bytes = read(count, decode_content=False) if count else b""
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise _failure(error, self._method, self.url, self._options) from _root(error)
        return data


class _Adapter(HTTPAdapter):
    """An adapter over one TLS context."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_connections=_POOL, pool_maxsize=_POOL, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        super().init_poolmanager(*args, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        return super().proxy_manager_for(proxy, **kwargs)


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = (
                error.strerror if isinstance(error, OSError) and error.strerror else "no certificate in it"
            )
            raise UsageError(f"cannot use the CA file {ca_file}: {reason}") from error
    return context


def _blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # The user asked for this registry by name; a warning at every request would only be noise.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return context


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


def _root(error: BaseException) -> BaseException | None:
    """The system's own error, whose text holds no URL."""
    own = (OSError, http.client.HTTPException)
    wrapped = (requests.RequestException, urllib3.exceptions.HTTPError)
    return next((e for e in _chain(error) if isinstance(e, own) and not isinstance(e, wrapped)), None)


def _failure(error: BaseException, method: str, url: str, options: Options) -> Exception:
    """Says what happened, in words that name host and port and hold no secret."""
    chain = list(_chain(error))
    where = _place(url)

    def registry_error(message: str, hint: str) -> RegistryError:
        return RegistryError(message, method=method, url=shown(url), hint=hint)

    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            reason = one.verify_message or "the certificate does not fit"
            hint = (
                "give its authority's certificate, or name the registry as insecure if you trust the network"
            )
            return registry_error(f"the TLS certificate of {where} was refused: {reason}", hint)
    if any(isinstance(one, _NO_ADDRESS) for one in chain):
        return registry_error(f"{where} is no address to connect to", "")
    reason, hint = _reason(chain, options)
    if any(isinstance(one, socket.gaierror) for one in chain):
        from img.oci.misspelled import meant_docker  # only a mistake pays for this import

        hint = meant_docker(where.rpartition(":")[0]) or hint
    garbled = any(isinstance(one, http.client.BadStatusLine | ConnectionResetError) for one in chain)
    return Retriable(registry_error(f"{where}: {reason}", hint), cause=_root(error), garbled=garbled)


def _place(url: str) -> str:
    try:
        _, host, port = origin(url)
    except ValueError:
        return shown(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(chain: list[BaseException], options: Options) -> tuple[str, str]:
    """What went wrong, and what to do; the system's own errors say it better than the wrappers."""

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((one for one in chain if isinstance(one, kinds)), None)

    down = "is the registry running, and is its name right?"
    trouble = "the registry or the network has trouble"
    if first(socket.gaierror):
        return "no such host", "check the registry's name and this machine's name server"
    if first(ConnectionRefusedError):
        return "connection refused", down
    if isinstance(handshake := first(ssl.SSLError), ssl.SSLError):
        text = (handshake.reason or "handshake failed").replace("_", " ").lower()
        return f"TLS failed: {text}", "does the registry speak TLS? name it as plain HTTP if it does not"
    new = first(urllib3.exceptions.NewConnectionError)
    if not new and first(urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {options.connect_seconds:g} seconds", down
    if first(urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return f"silent for {options.read_seconds:g} seconds", trouble
    for one in chain:
        if isinstance(one, OSError) and one.errno in errno.errorcode:
            return f"{'no connection' if new else 'the connection broke'}: {one.strerror}", trouble
    if first(urllib3.exceptions.ProxyError):
        return "the proxy gave no connection", "check the proxy's address"
    return "the connection broke", trouble
