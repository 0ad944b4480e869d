"""`Web`: requests to the HTTP services behind a cache; their errors name the cache and hold no secret.

Called by `actions` and `azure`. It retries nothing: failures that may pass are `Passing`, for `Patience`. The
connections are those of the registry client (`img.registry.transport`), loaded with the first request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from img.cache.backend import Reach
from img.cache.patience import PIECE_BYTES, Limits, Passing, Patience, skipping
from img.errors import CacheError, InvalidDocument, RegistryError, SizeMismatch
from img.registry.endpoint import is_loopback, shown
from img.registry.faults import PASSING, clean
from img.registry.options import Options
from img.registry.retry import Retriable, retry_after

if TYPE_CHECKING:
    from img.registry.transport import Reply, Transport

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_ANSWER_BYTES = 1 << 20
_MAX_TEXT = 200


Sign = Callable[[str, str, Mapping[str, str], int], dict[str, str]]


class Web:
    """Connections of one cache. Safe from several threads."""

    def __init__(self, patience: Patience, reach: Reach, limits: Limits, secrets: Sequence[str]) -> None:
        """Prepares; no connection is made. `secrets` are kept out of what is quoted."""
        self._patience = patience
        self._secrets = tuple(filter(None, secrets))
        self._options = Options(
            proxies=reach.proxies,
            no_proxy=reach.no_proxy,
            ca_file=reach.ca_file or None,
            connect_seconds=limits.connect_seconds,
            read_seconds=limits.read_seconds,
        )
        self._lock = threading.Lock()
        self._transport: Transport | None = None

    def ask(
        self,
        what: str,
        method: str,
        url: str,
        *,
        ok: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Sends one request.

        Args:
            what: What it is about, for errors.
            ok: The statuses that are an answer.
        Returns:
            The answer, whose status is one of `ok`; the caller closes it.
        Raises:
            Passing: it failed in a way that may pass.
            CacheError: it failed.
        """
        try:
            reply = self._http().send(method, url, headers=headers or {}, body=body)
        except Retriable as fault:
            raise Passing(self._error(what, fault.error.message)) from None
        except RegistryError as error:
            raise self._error(what, error.message) from None
        if reply.status in ok:
            return reply
        raise self._refusal(what, reply)

    def json(self, what: str, reply: Reply) -> dict[str, Any]:
        """Reads an answer that is a JSON object, and closes it; one without a body is an empty object.

        Raises:
            Passing, CacheError: it broke off, or is none.
        """
        with reply:
            try:
                raw = reply.document(_MAX_ANSWER_BYTES, "answer")
                data = json.loads(raw) if raw else {}
            except Retriable as fault:
                raise Passing(self._error(what, fault.error.message)) from None
            except (ValueError, RecursionError, InvalidDocument):
                data = None
        if not isinstance(data, dict):
            raise self._error(what, "the answer is no JSON object")
        return data

    def pieces(
        self, what: str, url: str, offset: int, size: int | None, *, sign: Sign | None = None
    ) -> Iterator[bytes]:
        """Downloads from an offset on; follows redirects, which get no signature.

        Args:
            size: The whole file's, or None where it is not known.
            sign: Gives the headers that allow a request, of its method, URL, headers and length.

        Raises:
            SizeMismatch: the file has another size.
            Passing, CacheError: as `ask`.
        """
        if offset and size is not None and offset >= size:
            return
        headers: Mapping[str, str] = {"Range": f"bytes={offset}-"} if offset else {}
        with self._followed(what, url, headers, sign) as reply:
            partial = offset if reply.status == 206 else 0
            if size is not None and reply.length is not None and reply.length + partial != size:
                raise SizeMismatch(size, reply.length + partial)
            yield from skipping(self._body(what, reply), offset - partial)

    def close(self) -> None:
        """Closes idle connections; safe to call twice."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _http(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from img.registry.transport import Transport

                self._transport = Transport(self._options)
            return self._transport

    def _followed(self, what: str, url: str, headers: Mapping[str, str], sign: Sign | None) -> Reply:
        first = sign("GET", url, headers, 0) if sign else headers
        for number in range(_MOST_REDIRECTS + 1):
            sent = headers if number else first
            reply = self.ask(what, "GET", url, ok=(200, 206, *_REDIRECTS), headers=sent)
            if reply.status not in _REDIRECTS:
                return reply
            there = urljoin(url, reply.headers.get("Location", ""))
            reply.close()
            url = self.checked(what, there, beside=url)
        raise self._error(what, f"more than {_MOST_REDIRECTS} redirects")

    def checked(self, what: str, url: str, *, beside: str) -> str:
        """Gives back a URL that a server named, if it may be followed from `beside`.

        Raises:
            CacheError: it is no web address, or leads from TLS to plain HTTP.
        """
        try:
            parts = urlsplit(url)
            scheme, host = parts.scheme, parts.hostname or ""
        except ValueError:
            scheme = host = ""
        if scheme not in ("http", "https") or not host:
            raise self._error(what, "the service names no web address")
        if scheme == "http" and urlsplit(beside).scheme == "https" and not is_loopback(host):
            raise self._error(what, f"the service leads to plain HTTP at {host}; that is not followed")
        return url

    def _body(self, what: str, reply: Reply) -> Iterator[bytes]:
        left = reply.length
        while left is None or left > 0:
            try:
                piece = reply.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
            except Retriable as fault:
                raise Passing(self._error(what, fault.error.message)) from None
            if not piece and left is not None:
                raise Passing(self._error(what, "the connection broke"))
            if not piece:
                return
            yield piece
            left = None if left is None else left - len(piece)

    def _refusal(self, what: str, reply: Reply) -> Exception:
        said = self._said(reply)
        place = shown(reply.url).partition("://")[2].partition("/")[0]
        reason = f"{place} refused with {reply.status}{': ' + said if said else ''}"
        hint = "the token may have expired, or may only read" if reply.status in (401, 403) else ""
        error = self._error(what, reason, hint)
        if reply.status in PASSING:
            return Passing(error, after_seconds=retry_after(reply.headers.get("Retry-After")))
        return error

    def _said(self, reply: Reply) -> str:
        """What a refusal says of itself, in JSON or in Azure's header."""
        with reply:
            code = reply.headers.get("x-ms-error-code", "")
            try:
                data = json.loads(reply.document(_MAX_ANSWER_BYTES, "answer"))
            except (ValueError, RecursionError, InvalidDocument, Retriable):
                data = {}
        found = [code]
        if isinstance(data, dict):
            found += [str(data.get(name) or "") for name in ("msg", "message")]
        return self.quoted("; ".join(filter(None, found)))

    def quoted(self, text: str) -> str:
        """Text from outside, short, without control characters, and empty where it repeats a secret."""
        return "" if any(secret in text for secret in self._secrets) else clean(text)[:_MAX_TEXT]

    def _error(self, what: str, reason: str, hint: str = "") -> CacheError:
        return self._patience.error(f"{what}: {reason}", hint)
