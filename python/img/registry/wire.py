"""`Wire`: one exchange with a registry, as the verbs of `Registry` need it.

It puts together what the small modules know: the endpoint's scheme, redirects that carry no credentials away,
the answer to a 401, and an error for every status that was not asked for. It retries nothing but a refused
token; `run` retries a whole piece of work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from img.errors import RegistryError
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.oci.reference import Reference
from img.progress import Progress
from img.registry.auth import Keychain
from img.registry.challenge import Scopes, scopes_for
from img.registry.endpoint import Endpoint, may_be_plain, named, origin, shown
from img.registry.faults import refusal
from img.registry.options import Options
from img.registry.retry import Backoff, Retriable
from img.registry.stop import Stop
from img.registry.tokens import Authorizer
from img.values import dataclass, field, replace

if TYPE_CHECKING:
    from img.registry.transport import Reply, Transport

T = TypeVar("T")
Body = bytes | Iterable[bytes]
"""Bytes, or an object with a length that gives the same pieces each time it is iterated."""

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_METHOD = frozenset({307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request before anything authorises it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = field(default=None, repr=False)
    may_redirect: bool = True


class Wire:
    """Every registry of one client, over one set of connections. Safe from several threads."""

    def __init__(self, keychain: Keychain | None, options: Options, progress: Progress) -> None:
        self._keychain = keychain
        self._options = options
        self._progress = progress
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._authorizers: dict[str, Authorizer] = {}

    def close(self) -> None:
        """Closes the connections; the next exchange opens new ones."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport:
            transport.close()

    def backoff(self, stop: Stop | None = None) -> Backoff:
        """Patience for one piece of work."""
        return Backoff(self._options, stop or Stop(), self._progress)

    def run(self, attempt: Callable[[], T], stop: Stop | None = None) -> T:
        """Calls `attempt`, again and again where its failures may pass."""
        return self.backoff(stop).run(attempt)

    def exchange(
        self,
        method: str,
        ref: Reference,
        url: str,
        *,
        what: str,
        ok: tuple[int, ...] = (200,),
        scopes: Scopes | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Reply:
        """Sends one request, with what authorises it, and follows its redirects.

        Args:
            url: Absolute, or from `/v2/` on.
            what: What is asked for, for errors.
            ok: The statuses that are an answer.
            scopes: What it needs to be allowed; by default to pull from the reference's repository.
        Returns:
            The answer, whose status is one of `ok`; the caller closes it.
        Raises:
            Retriable: it failed in a way that may pass.
            RegistryError: it failed.
        """
        endpoint, authorizer = self._known(ref.registry)
        wanted = scopes_for(ref.repository, "pull") if scopes is None else scopes
        request = Request(method=method, url=url, headers=headers or {}, body=body)

        def once() -> tuple[Reply, str]:
            """Sends with the Authorization that is known, and once more with what a 401 asks for."""
            target = replace(request, url=urljoin(endpoint.base + "/", url))
            own = endpoint.owns(target.url)
            authorization = authorizer.header(ref.repository, wanted) if own else ""
            reply = self.follow(target, authorization)
            if reply.status != 401 or not own or not endpoint.owns(reply.url):
                return reply, authorization
            asked = reply.headers.get("WWW-Authenticate", "")
            with reply:
                better = authorizer.answer(asked, ref.repository, wanted, refused=authorization)
                if not better:
                    raise refusal(
                        reply, method, what, host=ref.registry, secret=authorization, hint=hint(reply)
                    )
            return self.follow(target, better), better

        def hint(reply: Reply) -> str:
            return authorizer.hint(ref.repository) if reply.status in (401, 403) else ""

        reply, authorization = self._settle(endpoint, once)
        if reply.status in ok:
            return reply
        raise refusal(reply, method, what, host=ref.registry, secret=authorization, hint=hint(reply))

    def _known(self, registry: str) -> tuple[Endpoint, Authorizer]:
        with self._lock:
            if registry not in self._endpoints:
                self._endpoints[registry] = Endpoint(registry, self._options)
                request = _TokenServer(self, registry)
                self._authorizers[registry] = Authorizer(registry, self._keychain, self._options, request)
            return self._endpoints[registry], self._authorizers[registry]

    def _http(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from img.registry.transport import Transport

                self._transport = Transport(self._options)
            return self._transport

    def _settle(self, endpoint: Endpoint, once: Callable[[], tuple[Reply, str]]) -> tuple[Reply, str]:
        """Asks without TLS where that is allowed, and with TLS if the answer shows that it is wanted."""
        if endpoint.settled:
            return once()
        try:
            reply, authorization = once()
        except Retriable as fault:
            if not fault.garbled:
                raise
            return self._try_tls(endpoint, once, fault)
        if not _wants_tls(reply):
            endpoint.settled = True
            return reply, authorization
        reply.close()
        endpoint.switch_to_tls()
        return once()

    def _try_tls(
        self, endpoint: Endpoint, once: Callable[[], tuple[Reply, str]], fault: Retriable
    ) -> tuple[Reply, str]:
        """After an answer that was not HTTP: either TLS is spoken here, or the connection merely broke."""
        endpoint.switch_to_tls()
        try:
            return once()
        except Retriable:
            endpoint.switch_back()
            raise fault from fault.cause

    def follow(self, request: Request, authorization: str) -> Reply:
        """Sends, and follows redirects. Authorization stays with the origin that it was meant for.

        Raises:
            Retriable: it failed in a way that may pass.
            RegistryError: too many redirects, or one that may not be followed.
        """
        method, at, allowed = request.method, request.url, authorization
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {**request.headers, "Authorization": allowed} if allowed else request.headers
            reply = self._http().send(method, at, headers=headers, body=request.body)
            location = reply.headers.get("Location", "")
            followed = _REDIRECTS if method in ("GET", "HEAD") else _KEEPING_METHOD
            if reply.status not in followed or not location or not request.may_redirect:
                return reply
            reply.close()
            at = self.resolve(at, location, method)
            if origin(at) != origin(request.url):
                allowed = ""
        raise RegistryError(
            f"more than {_MAX_REDIRECTS} redirects; where they lead is not to be found out",
            method=method,
            url=shown(request.url),
        )

    def anonymous(self, url: str, headers: Mapping[str, str]) -> Reply:
        """Reads an address that is no registry's, and that nobody's credentials are for.

        Raises:
            As `follow`.
        """
        return self.follow(Request(method="GET", url=url, headers=headers), "")

    def resolve(self, base: str, location: str, method: str) -> str:
        """Makes a Location absolute, and refuses one that would leave TLS.

        Raises:
            RegistryError: it leads from TLS to plain HTTP, or to no web address.
        """
        try:
            target = urljoin(base, location)
            scheme, host, _ = origin(target)
        except ValueError:
            scheme, host, target = "", "", base
        if scheme not in ("http", "https") or not host:
            raise RegistryError("the registry sends to no address of the web", method=method, url=shown(base))
        from_tls = urlsplit(base).scheme == "https"
        told = named(target, self._options.plain_http)
        near = not from_tls and (may_be_plain(target, self._options) or origin(target) == origin(base))
        if scheme == "http" and not (told or near):
            raise RegistryError(
                f"the registry sends to plain HTTP at {host}; that is not followed",
                method=method,
                url=shown(base),
                hint="a proxy before it may have to say X-Forwarded-Proto: https, "
                "or name that host as plain HTTP if you trust the network",
            )
        return target


class _TokenServer:
    """How an `Authorizer` reaches a token server: over the same connections, with the same patience."""

    def __init__(self, wire: Wire, registry: str) -> None:
        self._wire = wire
        self._registry = registry

    def __call__(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> bytes:
        what = "a token"
        plain = {name: value for name, value in headers.items() if name != "Authorization"}
        authorization = headers.get("Authorization", "")

        def attempt() -> bytes:
            # A body is a secret here: it goes to the server that it was meant for, and nowhere else.
            request = Request(method=method, url=url, headers=plain, body=body, may_redirect=body is None)
            with self._wire.follow(request, authorization) as reply:
                if reply.status == 200:
                    return reply.document(MAX_DOCUMENT_BYTES, "token")
                raise refusal(reply, method, what, host=self._registry, secret=authorization)

        return self._wire.run(attempt)


def _wants_tls(reply: Reply) -> bool:
    """Tells whether an answer to plain HTTP is a TLS server's complaint: a 400 that no registry gives."""
    return (
        reply.status == 400
        and "json" not in reply.headers.get("Content-Type", "").lower()
        and "Docker-Distribution-Api-Version" not in reply.headers
    )
