"""`Wire`: sends one GET, follows its redirects, and gives the `Answer` with its body still unread.

The only module of this floor that imports requests; loaded with the first fetch. It retries nothing:
`http` does. Failures that may pass are `Passing`, others `FetchError`; neither shows a URL's user,
password or query. Authorization is made anew for each host, so none follows a redirect to another.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from types import TracebackType
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from img.errors import FetchError
from img.remote.giturl import shown
from img.remote.reach import Reach
from img.remote.tokens import Tokens, without_user
from img.web.adapter import Adapter, Trust, usable
from img.web.blame import Kind, blame

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
        authorities = (reach.ca_file,) if reach.ca_file else ()
        self._adapter = Adapter(Trust(authorities=authorities), reach, ca_file=reach.ca_file)
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
            proxies = {scheme: usable(proxy) for scheme, proxy in self._reach.proxies_for(here).items()}
            response = self._answered(prepared, proxies)
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
        proxy = self._reach.proxies_for(url).get(url.partition(":")[0].lower(), "")
        found = blame(error, self._reach, proxy)
        if found.kind is Kind.CERTIFICATE:
            hint = "name a file with its authority's certificate in SSL_CERT_FILE"
            return FetchError(shown(url), f"the TLS certificate was refused: {found.text}", hint)
        if found.kind is Kind.ADDRESS:
            return FetchError(shown(url), "it is no address to connect to")
        return Passing(FetchError(shown(url), found.text))

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
