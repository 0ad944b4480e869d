"""`Places`: the places of references as the wire meets them: with an endpoint, and with what opens it.

It reads the rules of routing with the first reference, and keeps one endpoint and one authorizer for each
host, so that a mirror never sees what is meant for another. Safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from img.oci.reference import Reference
from img.registry.auth import Keychain
from img.registry.endpoint import Endpoint, is_insecure
from img.registry.options import Options
from img.registry.routes import Route, Routes, Rule, caller_mirrors
from img.registry.tokens import Authorizer, TokenRequest
from img.values import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One host that is asked."""

    endpoint: Endpoint
    authorizer: Authorizer


class Places:
    """Every place of one client."""

    def __init__(
        self, keychain: Keychain | None, options: Options, ask_for_token: Callable[[Endpoint], TokenRequest]
    ) -> None:
        """Reads nothing yet."""
        self._keychain = keychain
        self._options = options
        self._ask_for_token = ask_for_token
        self._lock = threading.Lock()
        self._routes: Routes | None = None
        self._known: dict[tuple[str, bool], Place] = {}

    def routes(self, ref: Reference) -> tuple[Route, ...]:
        """Where a reference is asked for: its mirrors, and the registry last.

        Raises:
            RegistryBlocked: a rule forbids it. UsageError: a file of rules is broken.
        """
        with self._lock:
            if self._routes is None:
                self._routes = self._read()
            routes = self._routes
        return routes.of(ref)

    def at(self, route: Route) -> Place:
        """The place that a route leads to.

        Raises:
            InvalidReference: its host is none that can be connected to.
        """
        with self._lock:
            key = route.host, route.insecure
            if key not in self._known:
                endpoint = Endpoint(route.host, self._options, insecure=route.insecure)
                authorizer = Authorizer(
                    route.host,
                    self._keychain,
                    self._options,
                    self._ask_for_token(endpoint),
                    insecure=endpoint.insecure,
                )
                self._known[key] = Place(endpoint=endpoint, authorizer=authorizer)
            return self._known[key]

    def owner(self, routes: tuple[Route, ...], url: str) -> Route:
        """The route that a whole address belongs to: an upload's, or the next page of a list."""
        return next((route for route in routes if self.at(route).endpoint.owns(url)), routes[-1])

    def beside(self, ref: Reference, repository: str) -> str:
        """What another repository of the reference's registry is called where the reference is."""
        own = self.routes(ref)[-1]
        other = self.routes(replace(ref, repository=repository))[-1]
        return other.repository if other.host == own.host else repository

    def is_insecure(self, url: str) -> bool:
        """Tells whether what a URL leads to may be met without TLS: by the options, or by a rule.

        A rule is about a registry, and so about its port: another one of its host is another server.
        """
        with self._lock:
            known = [place.endpoint for place in self._known.values() if place.endpoint.insecure]
        return is_insecure(url, self._options) or any(endpoint.is_at(url) for endpoint in known)

    def _read(self) -> Routes:
        rules: tuple[Rule, ...] = ()
        if self._options.registries_conf:
            from img.registry.registries_conf import read_rules

            rules = read_rules(self._options.registries_conf)
        return Routes(rules, caller_mirrors(self._options.mirrors))
