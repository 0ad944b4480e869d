"""`regex.compile`: `re.compile`, done when the pattern is first used.

To compile a pattern takes a tenth of a millisecond. The modules of a build define some fifty, and most builds
use a dozen of them. Patterns of a module's own stand at its top and are made here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from re import compile
else:

    class _Pattern:
        """A pattern that becomes the standard library's, method by method."""

        def __init__(self, text, flags):
            self.pattern = text
            self._flags = flags

        def __getattr__(self, name):
            value = getattr(re.compile(self.pattern, self._flags), name)
            setattr(self, name, value)
            return value

        def __repr__(self):
            return f"regex.compile({self.pattern!r})"

    def compile(text, flags=0):
        """As `re.compile`; a mistake in the pattern is found with its first use."""
        return _Pattern(text, flags)


__all__ = ["compile"]
