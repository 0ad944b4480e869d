"""`PlanOptions`: what the caller asks of a plan, besides the Dockerfile. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from img.builder.plan.named import NamedContext
from img.oci import Platform
from img.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the caller asks for, besides the Dockerfile.

    Attributes:
        contexts: Named contexts by `context_name`.
        allow: Entitlements: `security.insecure`, `network.host`.
        network: For a RUN that names none.
        ignored: Tells whether the ignore file takes a path of the context away; None where nothing can be
            said, because there is no such file or it has exceptions.
        platform_given: The caller named the platform: the image is for it, whatever its base is for.
    """

    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=Platform.host)
    build_platform: Platform = field(default_factory=Platform.host)
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    network: str = "default"
    platform_given: bool = False
    ignored: Callable[[str], bool] | None = None
