"""`Scope`: the variables of one stage: its ARGs, and the environment that beats them.

A stage's scope begins with what the Dockerfile's head declares and the platform names; a stage built
on a stage inherits that one's. Pure values, made by `plan` alone.
Source: Dockerfile reference, "ARG", "Scope" and "Using ARG variables"; "Automatic platform ARGs".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from img.oci import Platform
from img.oci.config import DEFAULT_PATH

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Build arguments that need no ARG, and leave no trace in history or cache key."""


def platform_args(target: Platform, build: Platform) -> dict[str, str]:
    """The automatic platform arguments."""
    values = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        values[f"{prefix}PLATFORM"] = str(platform)
        values[f"{prefix}OS"] = platform.os
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
        used: Names of build arguments that some ARG took.
    """

    outer: Mapping[str, str]
    build_args: Mapping[str, str]
    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def variables(self) -> dict[str, str]:
        """What expansion sees: ENV beats ARG."""
        return {**self.args, **self.env}

    def declare(self, name: str, default: str | None) -> None:
        """Carries out `ARG name[=default]`; the default is expanded already."""
        if name in self.build_args:
            self.used.add(name)
            self.args[name] = self.build_args[name]
        elif default is not None:
            self.args[name] = default
        elif name in self.outer:
            self.args[name] = self.outer[name]

    def run_env(self) -> tuple[tuple[str, str], ...]:
        """What a RUN's process sees, in a stable order: ARGs first, since ENV beats them."""
        env = {"PATH": DEFAULT_PATH, **{k: v for k, v in self.args.items() if k not in PROXIES}, **self.env}
        return tuple(env.items())

    def proxies(self) -> tuple[tuple[str, str], ...]:
        """Proxy settings that the caller gave, where ENV does not set them."""
        given = {**{k: v for k, v in self.args.items() if k in PROXIES}, **self.build_args}
        return tuple((k, v) for k, v in given.items() if k in PROXIES and k not in self.env)

    def inherit(self) -> Scope:
        """The scope with which a stage built on this one begins."""
        return Scope(
            outer=self.outer,
            build_args=self.build_args,
            args=dict(self.args),
            env=dict(self.env),
            used=self.used,
        )
