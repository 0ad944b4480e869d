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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from img import regex
from img.errors import InvalidDocument, RegistryError, UsageError
from img.registry.certificates import Certificates, Trust
from img.registry.endpoint import Endpoint, is_insecure, is_loopback, origin, shown
from img.registry.hosts import among
from img.registry.options import Options
from img.registry.retry import Retriable
from img.registry.sockets import TooSlow, pool_classes
from img.values import replace

_POOL = 32
_DRAIN_BYTES = 64 << 10
_DOCUMENT_PIECE_BYTES = 64 << 10
_TUNNEL = regex.compile(r"Tunnel connection failed: (\d{3})")
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationParseError,
)


class Transport:
    """Connections to every registry of one client. Safe from several threads."""

    def __init__(self, options: Options) -> None:
        """Prepares; no connection is made."""
        # Adapters without a Session: a Session would keep cookies, read the environment and netrc,
        # and is not made for several threads; the pools below an adapter are.
        self._options = options
        self._certificates = Certificates(options)
        self._lock = threading.Lock()
        self._adapters: dict[Trust | None, _Adapter] = {}

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        behalf: Endpoint | None = None,
    ) -> Reply:
        """Sends a request and reads the head of its answer.

        Args:
            body: Bytes, or pieces of them from an object that has a length.
            behalf: The registry whose business it is: what verifies its certificate also verifies that of the
                token server and of the storage that it names.
        Returns:
            The answer, whatever its status; the caller closes it.
        Raises:
            Retriable: no connection, no answer, or a broken one.
            RegistryError: the TLS certificate was refused, or the URL is none.
            UsageError: a certificate cannot be used, or the proxy is one of a kind that is not known here.
        """
        sent = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **headers}
        timeout = (self._options.connect_seconds, self._options.read_seconds)
        proxies = self._proxies(url)
        try:
            prepared = requests.Request(method, url, headers=sent, data=body).prepare()
            trust = self._trust(prepared.url or url, behalf)
            response = self._adapter(trust).send(
                prepared,
                stream=True,
                timeout=timeout,
                verify=trust is None or trust.verified,
                proxies=proxies,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            proxy = proxies.get(urlsplit(url).scheme.lower(), "")
            raise _failure(error, method, url, self._options, proxy) from _root(error)
        return Reply(response, method, url, self._options)

    def close(self) -> None:
        """Closes idle connections."""
        with self._lock:
            adapters, self._adapters = self._adapters, {}
        for adapter in adapters.values():
            adapter.close()

    def _trust(self, url: str, behalf: Endpoint | None) -> Trust | None:
        """How a URL's host is met: by its own files, and by the authorities of `behalf`. None without TLS."""
        if not url.lower().startswith("https:"):
            return None
        netloc = urlsplit(url).netloc.rpartition("@")[2]
        own = behalf is not None and netloc.lower() == behalf.host.lower()
        trust = self._certificates.of(behalf.names if behalf is not None and own else (netloc,))
        verified = not is_insecure(url, self._options)
        if behalf is None or own:
            return replace(trust, verified=verified and not (behalf and behalf.insecure))
        further = self._certificates.of(behalf.names).authorities
        authorities = tuple(dict.fromkeys((*trust.authorities, *further)))
        return replace(trust, verified=verified and not behalf.insecure, authorities=authorities)

    def _adapter(self, trust: Trust | None) -> _Adapter:
        with self._lock:
            if trust not in self._adapters:
                self._adapters[trust] = _Adapter(trust, self._options)
            return self._adapters[trust]

    def _proxies(self, url: str) -> dict[str, str]:
        """The proxy for a URL's host, by its scheme; empty where it is reached directly.

        Raises:
            UsageError: the proxy is of no kind that can be used.
        """
        try:
            scheme, host, port = origin(url)
        except ValueError:
            return {}
        proxy = self._options.proxies.get(scheme, "")
        if not proxy or is_loopback(host) or among(host, port, self._options.no_proxy, below=True):
            return {}
        return {scheme: _usable(proxy)}


class Reply:
    """An answer: its status and headers, and its body as it arrives. One thread reads; any may `shutdown`.

    Attributes:
        on_failure: Told when the body fails to come, if somebody wants to know.
    """

    def __init__(self, response: requests.Response, method: str, url: str, options: Options) -> None:
        self._response = response
        self._method = method
        self._options = options
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self.on_failure: Callable[[RegistryError], None] | None = None

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
                raise self._failed(f"{what} came too slowly")
        if self.length is not None and total < self.length and self._method != "HEAD":
            raise self.ended_early(what)
        return b"".join(pieces)

    def ended_early(self, what: str = "the body") -> Retriable:
        """The failure of an answer that has fewer bytes than it should."""
        return self._failed(f"{what} ended early")

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
            fault = _failure(error, self._method, self.url, self._options)
            self._tell(fault)
            raise fault from _root(error)
        return data

    def _failed(self, text: str) -> Retriable:
        error = RegistryError(text, method=self._method, url=shown(self.url), status=self.status)
        self._tell(fault := Retriable(error))
        return fault

    def _tell(self, fault: Exception) -> None:
        error = fault.error if isinstance(fault, Retriable) else fault
        if self.on_failure and isinstance(error, RegistryError):
            self.on_failure(error)


class _Adapter(HTTPAdapter):
    """An adapter for hosts that are met in one way."""

    def __init__(self, trust: Trust | None, options: Options) -> None:
        self._options = options
        self._context = trust.context() if trust else None
        if trust and not trust.verified:
            # The user asked for this registry by name; a warning at every request would only be noise.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        super().__init__(pool_connections=_POOL, pool_maxsize=_POOL, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = pool_classes(self._options)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        if self._context is not None:
            kwargs["ssl_context"] = self._context
        if proxy.lower().startswith("https:"):
            ca_file = self._options.ca_file
            kwargs["proxy_ssl_context"] = Trust(authorities=(ca_file,) if ca_file else ()).context()
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known and proxy.lower().startswith("http"):
            manager.pool_classes_by_scheme = pool_classes(self._options)
        return manager


def _usable(proxy: str) -> str:
    """A proxy's address as the libraries below read it: with its scheme.

    Raises:
        UsageError: it is of a kind that they do not know, or that needs a package which is not here.
    """
    scheme, split, _ = proxy.partition("://")
    if not split:
        return f"http://{proxy}"
    if scheme.lower().startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socks") is None:
            raise UsageError(
                f"the proxy {shown(proxy)} speaks SOCKS, for which a Python package is missing",
                hint="install PySocks beside img, or name an HTTP proxy",
            )
    elif scheme.lower() not in ("http", "https"):
        raise UsageError(f"the proxy {shown(proxy)} is none that can be used: http, https and socks5 are")
    return proxy


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


def _failure(error: BaseException, method: str, url: str, options: Options, proxy: str = "") -> Exception:
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
    reason, hint = _proxy_reason(chain, proxy) or _reason(chain, options)
    garbled = any(isinstance(one, http.client.BadStatusLine | ConnectionResetError) for one in chain)
    return Retriable(registry_error(f"{where}: {reason}", hint), cause=_root(error), garbled=garbled)


def _proxy_reason(chain: list[BaseException], proxy: str) -> tuple[str, str] | None:
    """What the proxy did, where it was the proxy; its user and password are not told."""
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
        return f"TLS failed: {text}", "does the registry speak TLS? name it as insecure if it does not"
    new = first(urllib3.exceptions.NewConnectionError)
    if not new and first(urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {options.connect_seconds:g} seconds", down
    if first(TooSlow):
        return f"too slow: less than {options.least_bytes_per_second:g} bytes a second", trouble
    if first(urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return f"silent for {options.read_seconds:g} seconds", trouble
    for one in chain:
        if isinstance(one, OSError) and one.errno in errno.errorcode:
            return f"{'no connection' if new else 'the connection broke'}: {one.strerror}", trouble
    return "the connection broke", trouble
