"""`PartLengths`: how long the next part of an upload is.

A `Session` has one. Parts are shorter after one that failed and longer again after one that did not, and
never longer than what was once refused for its length. Pure.
"""

from __future__ import annotations

LEAST_BYTES = 1 << 20
"""Parts are not made shorter than this, however often they fail."""


class PartLengths:
    """The length of the next part."""

    def __init__(self, least: int, most: int) -> None:
        """Begins with the lengths that are wanted."""
        self._least = least
        self._most = self._limit = most

    def between(self, shortest: int) -> tuple[int, int]:
        """The shortest and the longest, where the registry takes none that is shorter than `shortest`."""
        return max(min(self._least, self._most), shortest), max(self._most, shortest)

    def shorten(self) -> None:
        """Notes that a part failed."""
        self._most = max(min(LEAST_BYTES, self._limit), self._most // 2)

    def lengthen(self) -> None:
        """Notes that a part arrived."""
        self._most = min(self._limit, self._most * 2)

    def limit(self, refused: int, shortest: int) -> bool:
        """Notes that a part was too long; tells whether a shorter one may be tried."""
        self._most = self._limit = max(1, refused // 2)
        return self._limit >= max(LEAST_BYTES, shortest)
