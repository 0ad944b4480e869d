"""`Finding`: something that is worth saying about a Dockerfile, and stops nothing.

`source`, the checks of this floor and the builder's make them; the engine passes them on, up to
`BuildResult.warnings` and the client. A finding is plain values, so that it crosses as JSON.
"""

from __future__ import annotations

from typing import Literal

from img.values import dataclass

Level = Literal["warning", "hint"]
"""A warning is shown after every build; a hint only where somebody asks for a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding.

    Attributes:
        rule: The rule's name; empty for a remark that no rule makes.
        message: What was found, in one clause.
        path: The Dockerfile's name as given, or empty.
        line: First line that it is about, from 1; 0 where it is about none.
        end_line: Last line.
        hint: How to mend it, or empty.
        excerpt: The first lines that it is about, as they stand in the file.
    """

    rule: str
    message: str
    path: str = ""
    line: int = 0
    end_line: int = 0
    level: Level = "warning"
    hint: str = ""
    excerpt: str = ""

    @property
    def where(self) -> str:
        """`Dockerfile:12`, or the path alone, or empty."""
        return f"{self.path}:{self.line}" if self.line else self.path

    def __str__(self) -> str:
        """`Dockerfile:12: Rule: message`."""
        return ": ".join(part for part in (self.where, self.rule, self.message) if part)
