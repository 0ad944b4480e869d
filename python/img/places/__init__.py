"""Places: where images are and go, and how one is copied from there to here without being unpacked.

`Source` and `Target` say what a place can do; each kind of place is a module: `remote` (registries), `layout`
(OCI image layouts, as folders and as archives), `docker_archive`, `folder` (skopeo's `dir:`) and `stored`
(img's own store). `Copier` moves an image between them. Nothing here prints, or asks what a text means:
`img.oci.location` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img.places.copier import Copied, Copier, Selection
    from img.places.place import Document, Source, Target

__all__ = ["Copied", "Copier", "Document", "Selection", "Source", "Target"]

_HOMES = {"copier": ("Copied", "Copier", "Selection"), "place": ("Document", "Source", "Target")}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: most commands copy nothing."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"img.places.{home}"), name)
    raise AttributeError(f"module 'img.places' has no attribute {name!r}")
