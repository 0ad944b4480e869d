"""`Wire`: sends one GET, follows its redirects, and gives the `Answer` with its body still unread.

The only module of this floor that imports requests; loaded with the first fetch. It retries nothing:
`http` does. Failures that may pass are `Passing`, others `FetchError`; neither shows a URL's user,
password or query. Authorization is made anew for each host, so none follows a redirect to another.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from img.errors import FetchError, UsageError
from img.remote.giturl import shown
from img.remote.reach import Reach
from img.remote.tokens import Tokens, without_user

MOST_REDIRECTS = 10
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be different the next time."""
_LOOK_SECONDS = 0.2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Passing(Exception):
    """A failure that may pass. `error` is raised where it does not."""

    def __init__(self, error: FetchError) -> None:
        super().__init__(str(error))
        self.error = error


class Wire:
    """Connections to whatever a build names. Safe from several threads."""

    def __init__(self, reach: Reach, tokens: Tokens) -> None:
        """Prepares; no connection is made.

        Raises:
            UsageError: the CA file cannot be used.
        """
        self._reach = reach
        self._tokens = tokens
        self._adapter = _Adapter(_trusting(reach.ca_file))
        self._open: set[Answer] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Asks for a file.

        Returns:
            The answer, whatever its status; the caller closes it.
        Raises:
            Passing: no connection, no answer, or a broken one.
            FetchError: the certificate was refused, or a redirect leads nowhere.
        """
        here = url
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._once(here, url, headers)
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            there = urljoin(here, location)
            if urlsplit(there).scheme.lower() not in ("http", "https"):
                raise FetchError(shown(url), f"it redirects to {shown(there)}, which is no web address")
            here = there
        raise FetchError(shown(url), f"it redirects more than {MOST_REDIRECTS} times")

    def _once(self, here: str, first: str, headers: Mapping[str, str]) -> Answer:
        sent = {"User-Agent": "img", "Accept-Encoding": "identity", **headers}
        # What was asked for under TLS is not told to somebody who listens in.
        downgraded = first.lower().startswith("https:") and not here.lower().startswith("https:")
        secret = "" if downgraded else self._tokens.for_web(here)
        if secret:
            sent["Authorization"] = secret
        try:
            prepared = requests.Request("GET", without_user(here), headers=sent).prepare()
            response = self._answered(prepared, self._reach.proxies_for(here))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self.failure(error, here) from None  # its text may hold what the URL holds
        answer = Answer(self, response, here)
        with self._lock:
            self._open.add(answer)
        return answer

    def _answered(self, request: requests.PreparedRequest, proxies: dict[str, str]) -> requests.Response:
        """Sends a request, in a thread of its own: who waits for an answer's head cannot be woken.

        That thread dies with its time-out, or with the process.
        """
        future: Future[requests.Response] = Future()
        timeout = (self._reach.connect_seconds, self._reach.read_seconds)

        def send() -> None:
            try:
                answer = self._adapter.send(
                    request, stream=True, timeout=timeout, verify=True, proxies=proxies
                )
                future.set_result(answer)
            except BaseException as error:  # noqa: BLE001 - raised again by `result`
                future.set_exception(error)

        threading.Thread(target=send, daemon=True).start()
        while not wait([future], _LOOK_SECONDS).done:
            if self._stopped.is_set():
                raise FetchError(shown(request.url or ""), "the build was stopped")
        return future.result()

    def failure(self, error: BaseException, url: str) -> Exception:
        """Says what happened, in words that hold no secret."""
        chain = list(_chain(error))
        for one in chain:
            if isinstance(one, ssl.SSLCertVerificationError):
                reason = one.verify_message or "the certificate does not fit"
                hint = "name a file with its authority's certificate in SSL_CERT_FILE"
                return FetchError(shown(url), f"the TLS certificate was refused: {reason}", hint)
        if any(
            isinstance(one, (requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError))
            for one in chain
        ):
            return FetchError(shown(url), "it is no address to connect to")
        return Passing(FetchError(shown(url), _reason(chain, self._reach)))

    def forget(self, answer: Answer) -> None:
        """Notes that an answer is closed."""
        with self._lock:
            self._open.discard(answer)

    def stop(self) -> None:
        """Makes whoever waits for a server in another thread return at once."""
        self._stopped.set()
        with self._lock:
            answers = list(self._open)
        for answer in answers:
            answer.shutdown()

    def close(self) -> None:
        """Closes idle connections."""
        self._adapter.close()


class Answer:
    """An answer: status, headers, and the body as it arrives."""

    def __init__(self, wire: Wire, response: requests.Response, url: str) -> None:
        self._wire = wire
        self._response = response
        self.url = url
        self.status: int = response.status_code
        self.reason: str = response.reason or ""
        self.headers: Mapping[str, str] = response.headers

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def encoded(self) -> bool:
        """The server compressed the body though nobody asked it to."""
        return self.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")

    @property
    def length(self) -> int:
        """Bytes that the body has; 0 where that is not known."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isdecimal() and len(value) < 20 and not self.encoded else 0

    def read(self, count: int) -> bytes:
        """Reads up to `count` bytes; empty at the end.

        Raises:
            Passing: the connection broke, or the body ended before its announced length.
        """
        try:
            data: bytes = self._response.raw.read(count, decode_content=self.encoded)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._wire.failure(error, self.url) from None
        return data

    def shutdown(self) -> None:
        """Makes a read that waits return at once."""
        try:
            self._response.raw.shutdown()
        except (AttributeError, OSError, RuntimeError, ValueError):
            pass  # an older urllib3, or closed already: the read time-out ends it

    def close(self) -> None:
        """Ends the exchange."""
        self._wire.forget(self)
        self._response.close()


class _Adapter(HTTPAdapter):
    """An adapter over one TLS context; no Session, which would read the environment and keep cookies."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=8, pool_maxsize=8, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)


def _trusting(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"cannot use the CA file {ca_file}") from error
    return context


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Every exception inside what requests and urllib3 wrap around the one that happened."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [getattr(one, "reason", None), one.__cause__, *one.args, one.__context__]


def _reason(chain: list[BaseException], reach: Reach) -> str:
    """What went wrong, in the system's own words where there are some."""

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if met(socket.gaierror):
        return "there is no such host"
    if met(ConnectionRefusedError):
        return "connection refused"
    for one in chain:
        if isinstance(one, ssl.SSLError):
            return f"TLS failed: {(one.reason or 'handshake failed').replace('_', ' ').lower()}"
    if met(urllib3.exceptions.ConnectTimeoutError) and not met(urllib3.exceptions.NewConnectionError):
        return f"no connection within {reach.connect_seconds:g} seconds"
    if met(urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return f"silent for {reach.read_seconds:g} seconds"
    if met(urllib3.exceptions.ProxyError):
        return "the proxy gave no connection"
    return "the connection broke"
