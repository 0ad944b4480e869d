"""Dockerfiles: text in, values out. No disk, no network, no variables of this process.

`parse` gives a `Dockerfile` of `Stage`s; `expand` and its kin serve the builder, which knows the
variables; `parse_ignore` reads `.dockerignore`. The instruction classes are in `instructions`.
"""

from __future__ import annotations

from img.dockerfile.expand import (
    ExpandError,
    expand,
    expand_at,
    expand_heredoc,
    expand_words,
    referenced,
    referenced_heredoc,
)
from img.dockerfile.findings import Finding
from img.dockerfile.ignore import ignore_names, numbered_ignore, parse_ignore
from img.dockerfile.instructions import Dockerfile, Instruction, Span, Stage
from img.dockerfile.near import near
from img.dockerfile.stages import (
    find_stage,
    image_words,
    near_stage,
    parse,
    parse_trigger,
    sources,
    stage_named,
)

__all__ = [
    "Dockerfile",
    "ExpandError",
    "Finding",
    "Instruction",
    "Span",
    "Stage",
    "expand",
    "expand_at",
    "expand_heredoc",
    "expand_words",
    "find_stage",
    "ignore_names",
    "image_words",
    "near",
    "near_stage",
    "numbered_ignore",
    "parse",
    "parse_ignore",
    "parse_trigger",
    "referenced",
    "referenced_heredoc",
    "sources",
    "stage_named",
]
