"""`Platform`: os/architecture[/variant], as images and `--platform` name it.

Source: OCI image-spec v1.1, image-index.md, "platform"; names as Go's GOOS and GOARCH.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from img.errors import UsageError
from img.values import dataclass

_MACHINES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}
_VARIANTS = {"arm": ("v5", "v6", "v7", "v8"), "amd64": ("v1", "v2", "v3", "v4")}
"""Variants of an architecture, each of which runs what was made for those before it."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture, and its variant (empty where there is none).

    Attributes:
        os_version: Version of the system that it needs, which Windows images name.
        os_features: What of the system it needs, such as `win32k`.
        features: What of the processor it needs, as docker's lists may say.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.os, self.architecture] + ([self.variant] if self.variant else [])
        return "/".join(parts)

    def to_json(self) -> dict[str, object]:
        """Gives the document form."""
        data: dict[str, object] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            data["os.version"] = self.os_version
        if self.os_features:
            data["os.features"] = list(self.os_features)
        if self.variant:
            data["variant"] = self.variant
        if self.features:
            data["features"] = list(self.features)
        return data

    @classmethod
    def from_json(cls, data: Mapping[object, object]) -> Platform:
        """Reads the document form; what is missing is empty."""
        return cls(
            str(data.get("os", "")),
            str(data.get("architecture", "")),
            str(data.get("variant") or ""),
            str(data.get("os.version") or ""),
            _words(data.get("os.features")),
            _words(data.get("features")),
        )

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Reads `linux/amd64`, `linux/arm/v7`, `arm64` (of Linux) or `local`.

        Raises:
            UsageError: it is none of these.
        """
        if text == "local":
            return cls.host()
        parts = text.lower().split("/")
        if not all(parts) or len(parts) > 3:
            raise UsageError(
                f"bad platform {text!r}", hint="write os/architecture[/variant], e.g. linux/arm64"
            )
        if len(parts) == 1:
            parts = [parts[0], cls.host().architecture] if parts[0] == "linux" else ["linux", *parts]
        architecture, variant = _MACHINES.get(parts[1], (parts[1], ""))
        if len(parts) == 3:
            variant = parts[2]
        if architecture == "arm" and not variant:
            variant = "v7"
        if architecture == "arm64" and variant == "v8":
            variant = ""
        return cls(parts[0], architecture, variant)

    @classmethod
    def host(cls) -> Platform:
        """The platform of this machine."""
        machine = os.uname().machine
        return cls("linux", *_MACHINES.get(machine, (machine, "")))

    def accepts(self, other: Platform) -> bool:
        """Tells whether an image of `other` is one for this platform (an unnamed variant fits any)."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        ours = "" if self.architecture == "arm64" and self.variant == "v8" else self.variant
        theirs = "" if other.architecture == "arm64" and other.variant == "v8" else other.variant
        return not ours or not theirs or ours == theirs

    @property
    def below(self) -> tuple[Platform, ...]:
        """The same architecture in its lesser variants, whose programs run here, too; the nearest first."""
        known = _VARIANTS.get(self.architecture, ())
        lesser = known[: known.index(self.variant)] if self.variant in known else ()
        return tuple(Platform(self.os, self.architecture, variant) for variant in reversed(lesser))


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(word) for word in value) if isinstance(value, list) else ()
