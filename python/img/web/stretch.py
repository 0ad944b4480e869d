"""`Stretch`: some bytes of a file, as a piece of a request's body.

Whoever sends a file yields these in the place of bytes. A connection without TLS has the kernel send them,
and they never come into this process; any other reads them. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Bytes of an open file.

    Attributes:
        file: Its descriptor, open until the next piece is asked for.
        read: Reads so many bytes from an offset on, with the errors of whoever has the file; at least one.
    """

    file: int
    offset: int
    count: int
    read: Callable[[int, int], bytes]

    def __len__(self) -> int:
        return self.count
