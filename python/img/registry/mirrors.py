"""`Mirrors`: which mirrors are asked just now, and what those that are not have said.

The wire asks it before it reads anything. A mirror that failed rests for a while, so that the work goes on
with the next place and is not held up by it again and again. In memory only. Safe from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from img.errors import NotFound, RegistryError
from img.oci.reference import Reference
from img.registry.routes import Route

REST_SECONDS = 300.0
_FOR_GOOD = float("inf")

_Key = tuple[str, str, str]


class Mirrors:
    """What is known of the mirrors of one client."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._resting: dict[_Key, tuple[float, str]] = {}

    def awake(self, ref: Reference, path: str, routes: Iterable[Route]) -> list[Route]:
        """The mirrors among `routes` that are to be asked for a path, in order."""
        return [
            route
            for route in routes
            if route.mirror and route.serves(ref, path) and not self._reason(ref, route)
        ]

    def lied(self, route: Route) -> None:
        """Leaves a mirror's repository out for good: what came from it was wrong."""
        with self._lock:
            self._resting[route.host, route.repository, ""] = (_FOR_GOOD, "it gave wrong bytes")

    def failed(self, ref: Reference, route: Route, error: Exception) -> None:
        """Has a mirror rest: for this reference where it has it not, for all where nobody answers there."""
        suffix = ref.suffix if isinstance(error, NotFound) else ""
        answered = not isinstance(error, RegistryError) or error.status
        key = (route.host, route.repository if answered else "", suffix)
        text = error.message if isinstance(error, RegistryError) else str(error)
        with self._lock:
            if self._resting.get(key, (0.0, ""))[0] < _FOR_GOOD:
                self._resting[key] = (self._clock() + REST_SECONDS, text)

    def wake(self, routes: Sequence[Route]) -> None:
        """Lets mirrors that were not there be asked again: the registry itself is not there either."""
        hosts = {route.host for route in routes if route.mirror}
        with self._lock:
            self._resting = {
                key: value
                for key, value in self._resting.items()
                if key[0] not in hosts or key[2] or value[0] == _FOR_GOOD
            }

    def said(self, ref: Reference, routes: Iterable[Route]) -> str:
        """Why mirrors of a reference are not asked, for an error; empty where there are none."""
        reasons = [
            f"its mirror {route.host}: {reason}"
            for route in routes
            if route.mirror and (reason := self._reason(ref, route))
        ]
        return "; ".join(reasons)

    def _reason(self, ref: Reference, route: Route) -> str:
        keys: list[_Key] = [(route.host, "", ""), (route.host, route.repository, "")]
        keys.append((route.host, route.repository, ref.suffix))
        with self._lock:
            found = [self._resting[key] for key in keys if key in self._resting]
        return next((reason for until, reason in found if self._clock() < until), "")
