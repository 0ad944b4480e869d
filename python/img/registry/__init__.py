"""The wire: what `img` says to a registry, and how it believes what comes back.

`Registry` speaks the protocol, one verb a method; `fetch` and `push` move whole images in parallel;
`ConfigFile` finds credentials. Importing this package loads no HTTP library: that happens with the
first network call. Nothing here touches the store; bytes leave through a `Sink` that the caller hands in.
"""

from img.registry.auth import ConfigFile, Credentials, Keychain
from img.registry.client import Registry, Sink, Upload
from img.registry.options import Options
from img.registry.stop import Stop, Stopped
from img.registry.transfer import fetch, push

__all__ = [
    "ConfigFile",
    "Credentials",
    "Keychain",
    "Options",
    "Registry",
    "Sink",
    "Stop",
    "Stopped",
    "Upload",
    "fetch",
    "push",
]
