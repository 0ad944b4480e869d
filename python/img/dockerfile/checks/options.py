"""`CheckOptions`: which rules a Dockerfile wants, from its check directive or a build argument.

`# check=skip=A,B|all;error=true;experimental=A|all`. The builder asks `check_options` once for a
plan; the build argument `BUILDKIT_DOCKERFILE_CHECK` stands in the directive's place altogether.
Source: Dockerfile reference, "check"; Docker documentation, "Checking your build configuration".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from img.dockerfile.checks.rules import RULES, Rule, finding
from img.dockerfile.faults import fault
from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Dockerfile
from img.dockerfile.near import did_you_mean
from img.errors import UsageError
from img.values import dataclass

ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
ALL = "all"
_OPTIONS = ("skip", "error", "experimental")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What is wanted.

    Attributes:
        skip: Rules that are left out, or `all`.
        experimental: Experimental rules that run, or `all`.
        error: A warning of one of BuildKit's rules fails the build.
        unknown: Names among them that are no rule's.
    """

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False
    unknown: tuple[str, ...] = ()

    def wants(self, rule: Rule) -> bool:
        """Tells whether a rule's findings count. One that is skipped by name never does."""
        if rule.name in self.skip:
            return False
        if rule.experimental:
            return bool({ALL, rule.name} & self.experimental)
        return ALL not in self.skip

    def sift(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Gives the findings that count, each once, in the order of their lines."""
        order = {name: number for number, name in enumerate(RULES)}
        wanted = {
            (f.path, f.line, order[f.rule], f.message): f for f in findings if self.wants(RULES[f.rule])
        }
        return tuple(wanted[key] for key in sorted(wanted))

    def fatal(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Gives those of them that fail a build, because the Dockerfile wants it so."""
        return tuple(f for f in findings if self.error and not RULES[f.rule].own)


class _Mistake(ValueError):
    """What is wrong, where, and what to write instead."""

    def __init__(self, message: str, at: str, hint: str) -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint


def check_options(
    dockerfile: Dockerfile, build_args: Mapping[str, str]
) -> tuple[CheckOptions, tuple[Finding, ...]]:
    """Reads the options of a build.

    Returns:
        The options, and what was found in the directive itself: a name that is no rule's, which
        stops nothing, since a newer BuildKit may know it.
    Raises:
        DockerfileError: the directive cannot be read. UsageError: the build argument cannot.
    """
    given = build_args.get(ARGUMENT)
    if given is not None:
        try:
            return _read(given), ()
        except _Mistake as mistake:
            raise UsageError(f"--build-arg {ARGUMENT}: {mistake}", hint=mistake.hint) from mistake
    span = dockerfile.check_span
    if span is None:
        return CheckOptions(), ()
    try:
        options = _read(dockerfile.check)
    except _Mistake as mistake:
        raise fault(span, str(mistake), at=mistake.at, hint=mistake.hint) from mistake
    found = tuple(
        finding("UnknownRule", span, f"there is no rule {name!r}", mend=did_you_mean(name, RULES))
        for name in options.unknown
    )
    return options, found


def _read(text: str) -> CheckOptions:
    """Reads the directive's value. A repeated option counts as it was last written, but `all` stays."""
    sets: dict[str, frozenset[str]] = {}
    error = False
    for part in text.split(";") if text.strip() else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in _OPTIONS or not equals:
            form = "write skip=Rule,…|all;error=true;experimental=Rule,…|all"
            if name in _OPTIONS:
                raise _Mistake(f"{name!r} needs a value", part.strip(), form)
            raise _Mistake(
                f"check has no option {name!r}", part.strip(), did_you_mean(name, _OPTIONS) or form
            )
        if name == "error":
            if value not in (*_TRUE, *_FALSE):
                raise _Mistake(f"error is true or false, not {value!r}", part.strip(), "write error=true")
            error = value in _TRUE
        else:
            rules = frozenset(rule.strip() for rule in value.split(",") if rule.strip())
            sets[name] = rules | ({ALL} & sets.get(name, frozenset()))
    named = sorted(sets.get("skip", frozenset()) | sets.get("experimental", frozenset()))
    return CheckOptions(
        skip=sets.get("skip", frozenset()),
        experimental=sets.get("experimental", frozenset()),
        error=error,
        unknown=tuple(name for name in named if name != ALL and name not in RULES),
    )
