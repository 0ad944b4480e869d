"""`Routes`: where a reference is asked for: its mirrors in order, and the registry itself last.

Pure: rules in, places out. The wire follows them; `registries_conf` reads the rules from files. Names are
compared as `str(Reference)` has them, complete.
Source: containers-registries.conf(5), "NAMESPACED [[registry]] SETTINGS", for what rules mean.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from img.errors import RegistryBlocked, UsageError
from img.oci.reference import DEFAULT_REGISTRY, Reference
from img.values import dataclass, replace

_DOCKER_HUB = frozenset({"index.docker.io", "registry-1.docker.io"})


class Use(enum.Enum):
    """Which manifests a mirror is asked for; blobs, which a digest always proves, it is asked for by all."""

    ALL = "all"
    DIGESTS = "digest-only"
    TAGS = "tag-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Another place that may have what a registry has.

    Attributes:
        location: `host[:port]`, and the beginning of the repository's name there.
        insecure: Its certificate is not verified, and plain HTTP will do.
    """

    location: str
    insecure: bool = False
    use: Use = Use.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds for references that begin with `prefix`.

    Attributes:
        prefix: `host[:port][/namespace…][:tag|@digest]`, or `*.domain…` for every host below a domain.
        location: What stands in the prefix's place when the registry is asked; empty for the prefix itself.
        insecure: The registry's certificate is not verified, and plain HTTP will do.
        blocked: Nothing is asked at all.
        mirrors: Asked before the registry, in this order.
        source: The file that says so.
    """

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    source: str = ""

    def covers(self, ref: Reference) -> int:
        """How many characters of the reference's name are the prefix's; 0 where the rule is for others."""
        whole, prefix = str(ref), self.prefix
        if prefix.startswith("*."):
            domain, slash, rest = prefix[1:].partition("/")
            if not ref.registry.endswith(domain) or len(ref.registry) == len(domain):
                return 0
            prefix = ref.registry + slash + rest
        ends = "/" if "/" not in prefix else "/:@"
        after = whole[len(prefix) : len(prefix) + 1]
        return len(prefix) if whole.startswith(prefix) and (not after or after in ends) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One place to ask.

    Attributes:
        host: `host[:port]`, as references and credentials name it.
        repository: The repository's name there.
    """

    host: str
    repository: str
    insecure: bool = False
    mirror: bool = False
    use: Use = Use.ALL

    def serves(self, ref: Reference, path: str) -> bool:
        """Tells whether it is asked for a path below a repository (`manifests/v1`, `blobs/sha256:…`)."""
        kind, _, target = path.partition("/")
        if self.use is Use.ALL or kind == "blobs":
            return True
        return ":" in target if self.use is Use.DIGESTS else not ref.digest


class Routes:
    """The rules that hold."""

    def __init__(self, rules: Iterable[Rule] = (), mirrors: Iterable[Rule] = ()) -> None:
        """Takes them.

        Args:
            rules: Of files: the one with the longest prefix holds, the last one of several.
            mirrors: Of the caller: the mirrors of all that fit come before those of the files.
        """
        self._rules = tuple(rules)
        self._mirrors = tuple(mirrors)

    def of(self, ref: Reference) -> tuple[Route, ...]:
        """Gives the places for a reference: mirrors, and then the registry itself.

        Raises:
            RegistryBlocked: a rule forbids it.
            UsageError: a rule leads to no repository.
        """
        rule = self._ruling(ref)
        if rule.blocked:
            raise RegistryBlocked(ref.familiar, rule.prefix, rule.source)
        found = [
            replace(
                _route(chosen, mirror.location, ref), insecure=mirror.insecure, mirror=True, use=mirror.use
            )
            for chosen in (*(extra for extra in self._mirrors if extra.covers(ref)), rule)
            for mirror in chosen.mirrors
        ]
        own = replace(_route(rule, rule.location, ref), insecure=rule.insecure)
        return (*dict.fromkeys(found), own)

    def _ruling(self, ref: Reference) -> Rule:
        best, length = Rule(prefix=ref.registry), (0, False)
        for rule in self._rules:
            covered = rule.covers(ref), not rule.prefix.startswith("*.")
            if covered[0] and covered >= length:
                best, length = rule, covered
        return best


def caller_mirrors(pairs: Iterable[str]) -> list[Rule]:
    """Makes rules of `HOST=MIRROR`: a registry (or the beginning of a name), and a mirror of it.

    Args:
        pairs: A mirror may begin with `https://`, or `http://` for one that needs no TLS, as docker's do.
    Raises:
        UsageError: one of them names no host.
    """
    rules = []
    for pair in pairs:
        prefix, _, location = pair.partition("=")
        scheme, split, place = location.partition("://")
        if not split:
            scheme, place = "https", location
        place, prefix = place.strip("/"), prefix.strip("/")
        if not prefix or not place or scheme not in ("http", "https") or "@" in place:
            shown = f"{prefix}=***@{place.rpartition('@')[2]}" if "@" in place else pair
            raise UsageError(f"{shown} is no registry and mirror: HOST=MIRROR")
        mirror = Mirror(location=place, insecure=scheme == "http")
        rules.append(Rule(prefix=prefix, mirrors=(mirror,)))
    return rules


def _route(rule: Rule, location: str, ref: Reference) -> Route:
    """Puts a location in the place of the rule's prefix."""
    name = location + ref.name[rule.covers(ref) :] if location else ref.name
    host, _, repository = name.partition("/")
    if not repository:
        raise UsageError(
            f"{rule.source or 'a mirror'}: {location!r} in the place of {rule.prefix!r} is no repository",
            hint="write the location with the repository",
        )
    if host in _DOCKER_HUB:
        host = DEFAULT_REGISTRY
    if host == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return Route(host=host, repository=repository)
