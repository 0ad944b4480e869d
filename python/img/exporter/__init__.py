"""Where an image goes when it leaves the store: archives, and image layouts on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img.exporter.archive import Form, Named, read_archive, write_archive

__all__ = ["Form", "Named", "read_archive", "write_archive"]


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: a build writes no archive."""
    if name in __all__:
        from img.exporter import archive

        return getattr(archive, name)
    raise AttributeError(f"module 'img.exporter' has no attribute {name!r}")
