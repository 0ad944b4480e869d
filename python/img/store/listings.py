"""`Listings`: lists of the files that steps copied, so that a later miss can say which of them changed.

`builder.explain` makes one at a miss. Each is a file of `listings/` that is named by a digest of what is
in it and written by one rename; records name it, and `gc` takes those away that none names. What is in
one is the extension's business; a list that is missing or damaged costs an explanation, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from img import _core
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How two lists differ.

    Attributes:
        differences: The first of them, in the order of the paths: path, what changed, what it was and is
            (`_core.compare_listings`).
        total: How many differences there are; what lies in a folder that came or went is none of its own.
        added: Objects that came, those in new folders included.
        removed: Objects that went.
        changed: Objects that are in both, and differ.
    """

    differences: tuple[tuple[str, str, str, str], ...]
    total: int
    added: int
    removed: int
    changed: int


class Listings:
    """The lists of one store."""

    def __init__(self, root: Path) -> None:
        """Uses a folder that exists."""
        self._root = root

    def put(self, selections: Sequence[_core.Selection]) -> str:
        """Writes down what selections took, which must be digested; gives the list's name.

        Raises:
            DiskFull, OSError: it cannot be written.
        """
        return _core.write_listing(selections, str(self._root))

    def compare(self, old: str, new: str, *, limit: int) -> Compared | None:
        """Compares two lists by name; None where one is missing or damaged.

        Args:
            limit: Differences that are given one by one, at the most.
        """
        found = _core.compare_listings(str(self._root / old), str(self._root / new), limit)
        if found is None:
            return None
        differences, total, added, removed, changed = found
        return Compared(
            differences=tuple(differences), total=total, added=added, removed=removed, changed=changed
        )

    def drop(self, *, keep: set[str], written_before: float) -> int:
        """Removes lists that are not to be kept and are not new; gives bytes of disk that came back.

        Args:
            keep: Names of those that records have.
            written_before: A list written later (seconds since the epoch) may be named by a record to come.
        """
        freed = 0
        for path in self._root.iterdir():
            with suppress(FileNotFoundError):
                stat = path.stat()
                if path.name not in keep and stat.st_mtime < written_before:
                    path.unlink()
                    freed += stat.st_blocks * 512
        return freed
