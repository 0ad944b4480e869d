"""img: builds Dockerfile and OCI container images fast, without a daemon, without root.

    import img

    result = img.build(".", tag="app:dev", build_args={"V": "3"})
    print(result.digest, result.cached_steps, "of", result.steps)

What `__all__` names is promised; the rest may change. Importing this costs little: the names are
looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from img.version import __version__

if TYPE_CHECKING:
    from img.builder.graph import BuildGraph
    from img.builder.outline import Outline, OutlineArg, OutlineMount, Target
    from img.client import Client, build, pull, push
    from img.dockerfile import Finding
    from img.engine import (
        BuildResult,
        BuiltImage,
        LockEntry,
        LockResult,
        LoginResult,
        PruneResult,
        PullResult,
        Usage,
    )
    from img.errors import (
        BuildError,
        DockerfileError,
        FetchError,
        ImgError,
        LockError,
        RegistryError,
        SandboxError,
        StoreError,
    )
    from img.oci import Image, ImageConfig, Platform, Reference
    from img.store import BuildRow, Store
    from img.store.build_record import BuildRecord, StepRecord
    from img.store.check import Defect, StoreReport

__all__ = [
    "BuildError",
    "BuildGraph",
    "BuildRecord",
    "BuildResult",
    "BuildRow",
    "BuiltImage",
    "Client",
    "Defect",
    "DockerfileError",
    "FetchError",
    "Finding",
    "Image",
    "ImageConfig",
    "ImgError",
    "LockEntry",
    "LockError",
    "LockResult",
    "LoginResult",
    "Outline",
    "OutlineArg",
    "OutlineMount",
    "Platform",
    "PruneResult",
    "PullResult",
    "Reference",
    "RegistryError",
    "SandboxError",
    "StepRecord",
    "Store",
    "StoreError",
    "StoreReport",
    "Target",
    "Usage",
    "__version__",
    "build",
    "pull",
    "push",
]

_HOMES = {
    "img.client": ("Client", "build", "pull", "push"),
    "img.builder.graph": ("BuildGraph",),
    "img.builder.outline": ("Outline", "OutlineArg", "OutlineMount", "Target"),
    "img.dockerfile": ("Finding",),
    "img.engine": (
        "BuildResult",
        "BuiltImage",
        "LockEntry",
        "LockResult",
        "LoginResult",
        "LoginResult",
        "PruneResult",
        "PullResult",
        "Usage",
    ),
    "img.errors": (
        "BuildError",
        "DockerfileError",
        "FetchError",
        "ImgError",
        "LockError",
        "RegistryError",
        "SandboxError",
        "StoreError",
    ),
    "img.oci": ("Image", "ImageConfig", "Platform", "Reference"),
    "img.store": ("BuildRow", "Store"),
    "img.store.build_record": ("BuildRecord", "StepRecord"),
    "img.store.check": ("Defect", "StoreReport"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'img' has no attribute {name!r}")
