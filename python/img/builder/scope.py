"""`Scope`: the variables of one stage: its ARGs and its environment, of which the later one counts.

A stage's scope begins with what the Dockerfile's head declares and the platform names; a stage built
on a stage inherits that one's. Pure values, made by `plan` alone.
Source: Dockerfile reference, "ARG", "Scope" and "Using ARG variables"; "Automatic platform ARGs".
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping

from img.oci import Platform
from img.oci.config import DEFAULT_PATH
from img.values import dataclass, field

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Build arguments that need no ARG, and without one leave no trace in history or cache key."""

NOT_SEEN = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""ARGs that speak to the builder alone: no expansion and no process sees them."""


AUTOMATIC = frozenset(
    f"{side}{part}"
    for side in ("TARGET", "BUILD")
    for part in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
) | {"TARGETSTAGE"}
"""ARGs that have a value without being given one."""


def platform_args(target: Platform, build: Platform) -> dict[str, str]:
    """The automatic platform arguments."""
    values = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        values[f"{prefix}PLATFORM"] = str(platform)
        values[f"{prefix}OS"] = platform.os
        values[f"{prefix}OSVERSION"] = ""
        values[f"{prefix}ARCH"] = platform.architecture
        values[f"{prefix}VARIANT"] = platform.variant
    return values


@dataclass(slots=True)
class Scope:
    """The variables at one point of a stage.

    Attributes:
        outer: ARGs of the Dockerfile's head and automatic ones: a bare `ARG name` brings one in.
        build_args: What the caller gave.
        args: ARGs in scope that have a value, in the order of their declaration.
        env: The environment that the config has.
        late: Those of `args` that were declared after an ENV of their name: they hide it.
        used: Names of build arguments that some ARG took.
    """

    outer: Mapping[str, str]
    build_args: Mapping[str, str]
    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def variables(self) -> Mapping[str, str]:
        """What expansion sees, as it is at any time: of ENV and ARG, the one declared last."""
        return ChainMap(self.late, self.env, self.args)

    def set_env(self, added: Mapping[str, str]) -> None:
        """Carries out an ENV."""
        self.env.update(added)
        for name in added:
            self.late.pop(name, None)

    def declare(self, name: str, default: Callable[[], str] | None) -> None:
        """Carries out `ARG name[=default]`. `default` is expanded only where its value is needed."""
        if name in self.build_args:
            self.used.add(name)
        if name in NOT_SEEN:
            return
        if name in self.build_args:
            self.args[name] = self.build_args[name]
        elif default is not None:
            self.args[name] = default()
        elif name in self.outer:
            self.args[name] = self.outer[name]
        else:
            return
        if name in self.env:
            self.late[name] = self.args[name]

    def run_env(self) -> tuple[tuple[str, str], ...]:
        """What a RUN's process sees, in a stable order."""
        return tuple({"PATH": DEFAULT_PATH, **self.args, **self.env, **self.late}.items())

    def run_args(self) -> dict[str, str]:
        """The ARGs that a RUN's line of history shows."""
        return {n: value for n, value in self.args.items() if n not in self.env or n in self.late}

    def proxies(self) -> tuple[tuple[str, str], ...]:
        """Proxy settings that the caller gave, in both cases, where neither ENV nor an ARG has them."""
        given = sorted(self.build_args.keys() & PROXIES)
        if not given:
            return ()
        known = {name.lower() for name in (*self.args, *self.env)}
        found: dict[str, str] = {}
        for name in given:
            if name.lower() not in known:
                found[name.upper()] = found[name.lower()] = self.build_args[name]
        return tuple(found.items())

    def inherit(self) -> Scope:
        """The scope with which a stage built on this one begins."""
        return Scope(
            outer=self.outer,
            build_args=self.build_args,
            args=dict(self.args),
            env=dict(self.env),
            late=dict(self.late),
            used=self.used,
        )
