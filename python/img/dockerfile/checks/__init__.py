"""The checks of a Dockerfile: `RULES`, which of them a build wants, and those that are pure.

`check_text` needs the Dockerfile alone, and so does `habits.check_habits`, which no build asks for;
`builder.plan.checks` has those that need variables or bases, and the engine the one that looks into the
context.
"""

from __future__ import annotations

from img.dockerfile.checks.options import CheckOptions, check_options
from img.dockerfile.checks.rules import RULES, Rule, finding
from img.dockerfile.checks.secrets import looks_secret
from img.dockerfile.checks.text import check_text, keyword_of

__all__ = [
    "RULES",
    "CheckOptions",
    "Rule",
    "check_options",
    "check_text",
    "finding",
    "keyword_of",
    "looks_secret",
]
