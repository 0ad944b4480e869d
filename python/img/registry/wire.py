"""`Wire`: one exchange with a registry, as the verbs of `Registry` need it.

It puts together what the small modules know: the places of a reference, an endpoint's scheme, redirects that
carry no credentials away, the answer to a 401, and an error for every status that was not asked for. What is
only read is asked of mirrors first; every place gets its own credentials. It retries nothing but a refused
token; `run` retries a whole piece of work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from img.errors import InvalidDocument, RegistryError
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.oci.reference import Reference
from img.progress import Note, Progress
from img.registry.auth import Keychain
from img.registry.challenge import Scopes, scopes_for
from img.registry.endpoint import Endpoint, may_be_plain, named, origin, shown
from img.registry.faults import lookup_hint, refusal
from img.registry.mirrors import Mirrors
from img.registry.options import Options
from img.registry.places import Places
from img.registry.retry import Backoff, Retriable
from img.registry.routes import Route
from img.registry.schemes import settle
from img.registry.stop import Stop
from img.values import dataclass, field, replace
from img.web.stretch import Stretch

if TYPE_CHECKING:
    from img.registry.notices import Notices
    from img.registry.transport import Reply, Transport

T = TypeVar("T")
Body = bytes | Iterable[bytes | Stretch]
"""Bytes, or an object with a length that gives the same pieces each time it is iterated."""

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HIDING = frozenset({401, 403, 404})
"""What registries answer to one who shows nothing, about what they have for those that they know."""
_KEEPING_METHOD = frozenset({307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request before anything authorises it.

    Attributes:
        endpoint: The registry whose business it is, if any.
        certified: The host may see the client certificate that is kept for it.
    """

    method: str
    url: str
    endpoint: Endpoint | None = None
    certified: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = field(default=None, repr=False)
    may_redirect: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """What is asked of whichever place gives it.

    Attributes:
        path: Below the repository, from `/v2/` on, or a whole address.
        scopes: In the words of the reference.
    """

    method: str
    ref: Reference
    path: str
    what: str
    ok: tuple[int, ...]
    scopes: Scopes
    headers: Mapping[str, str]
    body: Body | None = field(default=None, repr=False)

    @property
    def may_go_to_mirrors(self) -> bool:
        """Only what is read of a repository, by one who wants no more than to read."""
        below = not self.path.startswith("/") and "://" not in self.path
        reading = self.method in ("GET", "HEAD") and all(action == "pull" for _, action in self.scopes)
        return below and reading


class Wire:
    """Every registry of one client, over one set of connections. Safe from several threads."""

    def __init__(self, keychain: Keychain | None, options: Options, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._direct: set[str] = set()
        self._mirrors = Mirrors()
        self._places = Places(keychain, options, partial(_TokenServer, self))
        self._notices: Notices | None = None

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
            url: A path below the repository (`manifests/v1`), which its mirrors are asked for first where it
                is only read; one from `/v2/` on; or a whole address.
            what: What is asked for, for errors.
            ok: The statuses that are an answer.
            scopes: What it needs to be allowed; by default to pull from the reference's repository.
        Returns:
            The answer, whose status is one of `ok`; the caller closes it.
        Raises:
            Retriable: it failed in a way that may pass.
            RegistryBlocked: a rule forbids to ask.
            RegistryError: it failed.
        """
        wanted = scopes_for(ref.repository, "pull") if scopes is None else scopes
        errand = _Errand(
            method=method,
            ref=ref,
            path=url,
            what=what,
            ok=ok,
            scopes=wanted,
            headers=headers or {},
            body=body,
        )
        routes = self._places.routes(ref)
        if "://" in url:
            return self._at(self._places.owner(routes, url), errand)
        if len(routes) == 1 or not errand.may_go_to_mirrors or ref.name in self._direct:
            return self._at(routes[-1], errand)
        reply = self._from_mirror(routes, errand)
        if reply is not None:
            return reply
        try:
            return self._at(routes[-1], errand)
        except Retriable as fault:
            _add(fault.error, self._mirrors.said(ref, routes))
            self._mirrors.wake(routes)
            raise
        except RegistryError as error:
            _add(error, self._mirrors.said(ref, routes))
            raise

    def ask_directly(self, ref: Reference) -> None:
        """Asks nobody but the registry itself for anything of the reference's repository from now on."""
        self._direct.add(ref.name)

    def doubt(self, ref: Reference) -> bool:
        """Leaves a reference's mirrors out from now on: something that came from one of them was wrong.

        Returns:
            False where there is none that could have been it.
        """
        routes = self._places.routes(ref)
        known = [route for route in routes if route in self._mirrors.awake(ref, "blobs/", routes)]
        for route in known:
            self._mirrors.lied(route)
        return bool(known)

    def beside(self, ref: Reference, repository: str) -> str:
        """What another repository of the reference's registry is called where the reference is."""
        return self._places.beside(ref, repository)

    def _from_mirror(self, routes: tuple[Route, ...], errand: _Errand) -> Reply | None:
        """Asks the mirrors in turn; None where none of them has it."""
        for route in self._mirrors.awake(errand.ref, errand.path, routes):
            try:
                reply = self._patiently(route, errand)
            except (Retriable, RegistryError, InvalidDocument) as fault:
                error = fault.error if isinstance(fault, Retriable) else fault
                self._mirrors.failed(errand.ref, route, error)
                self._say(f"mirror {route.host} is passed over: {error}")
                continue
            reply.on_failure = partial(self._mirrors.failed, errand.ref, route)
            self._say(f"{errand.what}: from mirror {route.host}")
            return reply
        return None

    def _patiently(self, route: Route, errand: _Errand) -> Reply:
        """Asks a mirror; once more where the connection broke, as one does that was kept for too long."""
        errand = replace(errand, ok=tuple(status for status in errand.ok if status != 404))
        try:
            return self._at(route, errand)
        except Retriable as fault:
            if not fault.garbled:
                raise
            return self._at(route, errand)

    def _say(self, text: str) -> None:
        self._progress(Note(level="debug", text=text))

    def _at(self, route: Route, errand: _Errand) -> Reply:
        """Asks one place, with its own credentials."""
        place, repository = self._places.at(route), route.repository
        scopes = self._translated(errand, repository)
        below = errand.path.startswith("/") or "://" in errand.path
        path = errand.path if below else f"/v2/{quote(repository)}/{errand.path}"
        request = Request(
            method=errand.method, url=path, headers=errand.headers, body=errand.body, endpoint=place.endpoint
        )

        def send(base: str) -> tuple[Reply, str]:
            """Sends with the Authorization that is known, and once more with what a 401 asks for."""
            url = urljoin(base + "/", path)
            own = origin(url) == origin(base)
            target = replace(request, url=url, certified=own)
            authorization = place.authorizer.header(repository, scopes) if own else ""
            reply = self.follow(target, authorization)
            if not own or origin(reply.url) != origin(base):
                return reply, authorization
            asked = reply.headers.get("WWW-Authenticate", "") if reply.status == 401 else ""
            if not asked and not authorization and reply.status in _HIDING:
                asked = place.authorizer.words(repository, partial(self._ask_base, place.endpoint, base))
            if reply.status != 401 and not asked:
                return reply, authorization
            with reply:
                better = place.authorizer.answer(asked, repository, scopes, refused=authorization)
                if not better and reply.status in errand.ok:
                    return reply, authorization
                if not better:
                    raise refused(reply, authorization)
            return self.follow(target, better), better

        def refused(reply: Reply, authorization: str) -> Exception:
            if origin(reply.url)[1:] != origin(place.endpoint.base)[1:]:
                return refusal(reply, errand.method, errand.what, host=route.host, storage=True)
            hint = lookup_hint(errand.ref) if reply.status == 404 else ""
            if reply.status in (401, 403):
                hint = place.authorizer.hint(repository)
            return refusal(
                reply, errand.method, errand.what, host=route.host, secret=authorization, hint=hint
            )

        reply, authorization = settle(place.endpoint, send)
        if "Warning" in reply.headers and place.endpoint.owns(reply.url):
            self._hear(route.host, reply, authorization)
        if reply.status in errand.ok:
            return reply
        raise refused(reply, authorization)

    def _ask_base(self, endpoint: Endpoint, base: str) -> str:
        """What a registry's base asks for, which docker and others ask first.

        So a registry may rely on it, and hide what it has from one who shows nothing.
        """
        try:
            with self.follow(Request(method="GET", url=f"{base}/v2/", endpoint=endpoint), "") as reply:
                told = reply.status == 401 and origin(reply.url) == origin(base)
                return reply.headers.get("WWW-Authenticate", "") if told else ""
        except (Retriable, RegistryError):
            return ""

    def _hear(self, host: str, reply: Reply, authorization: str) -> None:
        """Passes on what a registry warns of."""
        from img.registry.notices import Notices  # few registries warn

        with self._lock:
            notices = self._notices = self._notices or Notices(self._progress)
        notices.hear(host, reply.headers["Warning"], authorization)

    def _translated(self, errand: _Errand, repository: str) -> Scopes:
        """The scopes in the words of the place that is asked."""
        if repository == errand.ref.repository:
            return errand.scopes
        own = f"repository:{errand.ref.repository}"
        return frozenset((f"repository:{repository}" if r == own else r, a) for r, a in errand.scopes)

    def _http(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from img.registry.transport import Transport

                self._transport = Transport(self._options)
            return self._transport

    def follow(self, request: Request, authorization: str) -> Reply:
        """Sends, and follows redirects. Authorization stays with the origin that it was meant for.

        What only reads may be shown the client certificate of wherever it is sent on to, as storage behind a
        registry may want it. What changes something may not: a registry could have it change things
        elsewhere, in the name of whoever is let in there.

        Raises:
            Retriable: it failed in a way that may pass.
            RegistryError: too many redirects, or one that may not be followed.
        """
        method, at, allowed, certified = request.method, request.url, authorization, request.certified
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {**request.headers, "Authorization": allowed} if allowed else request.headers
            try:
                reply = self._http().send(
                    method,
                    at,
                    headers=headers,
                    body=request.body,
                    behalf=request.endpoint,
                    certified=certified,
                )
            except (Retriable, RegistryError) as fault:
                if origin(at)[1:] != origin(request.url)[1:]:
                    error = fault.error if isinstance(fault, Retriable) else fault
                    _add(error, f"{urlsplit(shown(request.url)).netloc} sends there")
                raise
            location = reply.headers.get("Location", "")
            followed = _REDIRECTS if method in ("GET", "HEAD") else _KEEPING_METHOD
            if reply.status not in followed or not location or not request.may_redirect:
                return reply
            reply.close()
            at = self.resolve(at, location, method)
            if origin(at) != origin(request.url):
                allowed = ""
                certified = certified and method in ("GET", "HEAD")
        raise RegistryError(
            f"more than {_MAX_REDIRECTS} redirects; where they lead is not to be found out",
            method=method,
            url=shown(request.url),
        )

    def anonymous(self, url: str, headers: Mapping[str, str]) -> Reply:
        """Reads an address that is no registry's, and that nobody's credentials or certificates are for.

        Raises:
            As `follow`.
        """
        return self.follow(Request(method="GET", url=url, headers=headers, certified=False), "")

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
        told = named(target, self._options.plain_http) or self._places.is_insecure(target)
        near = not from_tls and (may_be_plain(target, self._options) or origin(target) == origin(base))
        if scheme == "http" and not (told or near):
            raise RegistryError(
                f"the registry sends to plain HTTP at {host}; that is not followed",
                method=method,
                url=shown(base),
                hint="a proxy before it may have to say X-Forwarded-Proto: https, "
                "or name that host as insecure if you trust the network",
            )
        return target


class _TokenServer:
    """How an `Authorizer` reaches a token server: over the same connections, with the same patience."""

    def __init__(self, wire: Wire, endpoint: Endpoint) -> None:
        self._wire = wire
        self._endpoint = endpoint

    def __call__(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> bytes:
        what = "a token"
        plain = {name: value for name, value in headers.items() if name != "Authorization"}
        authorization = headers.get("Authorization", "")

        def attempt() -> bytes:
            # A body is a secret here: it goes to the server that it was meant for, and nowhere else.
            request = Request(
                method=method,
                url=url,
                endpoint=self._endpoint,
                headers=plain,
                body=body,
                may_redirect=body is None,
            )
            with self._wire.follow(request, authorization) as reply:
                if reply.status == 200:
                    return reply.document(MAX_DOCUMENT_BYTES, "token")
                secret = authorization or f"Form {_identity(body)}"
                raise refusal(reply, method, what, host=self._endpoint.registry, secret=secret)

        return self._wire.run(attempt)


def _add(error: RegistryError, said: str) -> None:
    """Tells in an error what came before it, of mirrors or of a redirect."""
    if said and said not in error.message:
        error.message += f"; {said}"


def _identity(body: bytes | None) -> str:
    """The identity token in a form, for not repeating it."""
    return parse_qs((body or b"").decode()).get("refresh_token", [""])[0]
