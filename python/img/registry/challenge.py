"""`Challenge`: what a registry asks for in WWW-Authenticate; `Scopes`: what a token may do.

Pure: text in, values out. Source: RFC 9110, section 11.6.1; the distribution project's token
authentication specification, "Requesting a Token".
"""

from __future__ import annotations

from collections.abc import Mapping

from img import regex
from img.values import dataclass, field

Scopes = frozenset[tuple[str, str]]
"""Pairs of a resource (`repository:library/alpine`) and an action (`pull`). Merging is union."""

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETER = regex.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = regex.compile(rf"[\s,]*({_TOKEN})(?=[\s,]|$)")
_MAX_HEADER = 8192
_ESCAPE = regex.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way in that a registry offers.

    Attributes:
        scheme: `basic`, `bearer`, …; lower case.
        parameters: `realm`, `service`, `scope`, …; names in lower case.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> Scopes:
        """The scopes that it names."""
        return read_scopes(self.parameters.get("scope", ""))


def read_challenges(header: str) -> tuple[Challenge, ...]:
    """Reads the header, several challenges in one included; what cannot be read ends the list."""
    found: list[tuple[str, dict[str, str]]] = []
    at, header = 0, header[:_MAX_HEADER]
    while at < len(header):
        if found and (match := _PARAMETER.match(header, at)):
            name, quoted, bare = match.groups()
            found[-1][1].setdefault(name.lower(), _ESCAPE.sub(r"\1", quoted) if bare is None else bare)
        elif match := _SCHEME.match(header, at):
            found.append((match[1].lower(), {}))
        else:
            break
        at = match.end()
    return tuple(Challenge(scheme=scheme, parameters=parameters) for scheme, parameters in found)


def scopes_for(repository: str, *actions: str) -> Scopes:
    """The scopes of actions on one repository."""
    return frozenset((f"repository:{repository}", action) for action in actions)


def read_scopes(text: str) -> Scopes:
    """Reads `repository:a/b:pull,push repository:c:pull`."""
    pairs: set[tuple[str, str]] = set()
    for word in text.split():
        resource, _, actions = word.rpartition(":")
        pairs.update((resource, action) for action in actions.split(",") if resource and action)
    return frozenset(pairs)


def write_scopes(scopes: Scopes) -> list[str]:
    """Writes scopes as the token server reads them, one text a resource, in a stable order."""
    resources = sorted({resource for resource, _ in scopes})
    return [f"{r}:{','.join(sorted(action for s, action in scopes if s == r))}" for r in resources]
