"""`Transport`: sends one request, once, and gives its `Reply` with the body still unread.

The only module that imports requests; loaded with the first network call. It follows no redirect, adds no
credentials, reads no environment and retries nothing: the wire decides those. Failures become `Retriable`
where they may pass, `RegistryError` where they cannot; neither quotes a URL's query.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from img.errors import InvalidDocument, RegistryError
from img.registry.certificates import Certificates
from img.registry.endpoint import Endpoint, is_insecure, origin, shown
from img.registry.options import Options
from img.registry.retry import Retriable
from img.values import replace
from img.web.adapter import Adapter, Trust, usable
from img.web.blame import Kind, blame
from img.web.hosts import proxy_for
from img.web.stretch import Stretch

_DRAIN_BYTES = 64 << 10
_DOCUMENT_PIECE_BYTES = 64 << 10


class Transport:
    """Connections to every registry of one client. Safe from several threads."""

    def __init__(self, options: Options) -> None:
        """Prepares; no connection is made."""
        self._options = options
        self._certificates = Certificates(options)
        self._lock = threading.Lock()
        self._adapters: dict[Trust | None, Adapter] = {}

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes | Stretch] | None = None,
        behalf: Endpoint | None = None,
        certified: bool = True,
    ) -> Reply:
        """Sends a request and reads the head of its answer.

        Args:
            body: Bytes, or pieces of them from an object that has a length.
            behalf: The registry whose business it is: what verifies its certificate also verifies that of the
                token server and of the storage that it names.
            certified: The client certificate that is kept for the URL's host may be shown to it.
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
            trust = self._trust(prepared.url or url, behalf, certified=certified)
            response = self._adapter(trust).send(
                prepared,
                stream=True,
                timeout=timeout,
                verify=trust is None or trust.verified,
                proxies=proxies,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            proxy = proxies.get(urlsplit(url).scheme.lower(), "")
            fault = _failure(error, method, url, self._options, proxy)
            raise fault from (fault.cause if isinstance(fault, Retriable) else None)
        return Reply(response, method, url, self._options)

    def close(self) -> None:
        """Closes idle connections."""
        with self._lock:
            adapters, self._adapters = self._adapters, {}
        for adapter in adapters.values():
            adapter.close()

    def _trust(self, url: str, behalf: Endpoint | None, *, certified: bool) -> Trust | None:
        """How a URL's host is met: by its own files, and by the authorities of `behalf`. None without TLS."""
        if not url.lower().startswith("https:"):
            return None
        netloc = urlsplit(url).netloc.rpartition("@")[2]
        own = behalf is not None and netloc.lower() == behalf.host.lower()
        trust = self._certificates.of(behalf.names if behalf is not None and own else (netloc,))
        if not certified or (self._options.cert_dir and not own):
            trust = replace(trust, pairs=())  # the one folder for all is for registries that the user names
        verified = not is_insecure(url, self._options)
        if behalf is None or own:
            return replace(trust, verified=verified and not (behalf and behalf.insecure))
        further = self._certificates.of(behalf.names).authorities
        authorities = tuple(dict.fromkeys((*trust.authorities, *further)))
        return replace(trust, verified=verified and not behalf.insecure, authorities=authorities)

    def _adapter(self, trust: Trust | None) -> Adapter:
        with self._lock:
            if trust not in self._adapters:
                self._adapters[trust] = Adapter(trust, self._options, ca_file=self._options.ca_file or "")
            return self._adapters[trust]

    def _proxies(self, url: str) -> dict[str, str]:
        """The proxy for a URL's host, by its scheme; empty where it is reached directly.

        Raises:
            UsageError: the proxy is of no kind that can be used.
        """
        proxy = proxy_for(url, self._options.proxies, self._options.no_proxy)
        return {urlsplit(url).scheme.lower(): usable(proxy)} if proxy else {}


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
            raise fault from (fault.cause if isinstance(fault, Retriable) else None)
        return data

    def _failed(self, text: str) -> Retriable:
        error = RegistryError(text, method=self._method, url=shown(self.url), status=self.status)
        self._tell(fault := Retriable(error))
        return fault

    def _tell(self, fault: Exception) -> None:
        error = fault.error if isinstance(fault, Retriable) else fault
        if self.on_failure and isinstance(error, RegistryError):
            self.on_failure(error)


def _failure(error: BaseException, method: str, url: str, options: Options, proxy: str = "") -> Exception:
    """Says what happened, in words that name host and port and hold no secret."""
    found, where = blame(error, options, proxy), _place(url)

    def registry_error(message: str, hint: str = "") -> RegistryError:
        return RegistryError(message, method=method, url=shown(url), hint=hint)

    if found.kind is Kind.CERTIFICATE:
        return registry_error(
            f"the TLS certificate of {where} was refused: {found.text}", _certificate_hint(found.text)
        )
    if found.kind is Kind.ADDRESS:
        return registry_error(f"{where} is no address to connect to")
    hint = found.hint
    if isinstance(found.root, socket.gaierror):
        from img.oci.misspelled import meant_docker  # only a mistake pays for this import

        hint = meant_docker(where.rpartition(":")[0]) or hint
    return Retriable(registry_error(f"{where}: {found.text}", hint), cause=found.root, garbled=found.garbled)


def _certificate_hint(reason: str) -> str:
    """What helps against a refusal that OpenSSL puts so."""
    if "expired" in reason or "not yet valid" in reason:
        return "the registry needs a new certificate, unless this machine's clock is wrong"
    if "mismatch" in reason:
        return "name the registry as its certificate does, or have it get one for this name"
    return (
        "trust its authority (--tls-ca FILE, or a folder of certs.d), "
        "or, if you trust the network, name the registry as insecure (--insecure-registry)"
    )


def _place(url: str) -> str:
    try:
        _, host, port = origin(url)
    except ValueError:
        return shown(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
