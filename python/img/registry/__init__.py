"""The wire: what `img` says to a registry, and how it believes what comes back.

`Registry` speaks the protocol, one verb a method; `fetch` and `push` move whole images in parallel;
`ConfigFile` finds credentials. Importing this package loads no HTTP library: that happens with the
first network call. Nothing here touches the store; bytes leave through a `Sink` that the caller hands in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img.registry.auth import Chain, Credentials, Given, Keychain
    from img.registry.client import Registry, Sink, Upload
    from img.registry.config_file import ConfigFile, ConfigText
    from img.registry.options import Options
    from img.registry.place import Place
    from img.registry.stop import Stop, Stopped
    from img.registry.transfer import fetch, in_parallel, push

__all__ = [
    "Chain",
    "ConfigFile",
    "ConfigText",
    "Credentials",
    "Given",
    "Keychain",
    "Options",
    "Place",
    "Registry",
    "Sink",
    "Stop",
    "Stopped",
    "Upload",
    "fetch",
    "in_parallel",
    "push",
]

_HOMES = {
    "auth": ("Chain", "Credentials", "Given", "Keychain"),
    "client": ("Registry", "Sink", "Upload"),
    "config_file": ("ConfigFile", "ConfigText"),
    "options": ("Options",),
    "place": ("Place",),
    "stop": ("Stop", "Stopped"),
    "transfer": ("fetch", "in_parallel", "push"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: most commands never speak to a registry."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"img.registry.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'img.registry' has no attribute {name!r}")
