"""Carries out one node: its cache key, and, where the cache has nothing, the work itself.

One module for each kind of op, all over `step`; `solver` calls them. Every function that makes a layer
leaves its folder in a `Made`, still unpublished.
"""

from __future__ import annotations

from img.builder.graph import CopyOp, RunOp, WorkdirOp
from img.builder.key import CacheKey
from img.builder.perform.binds import Binds
from img.builder.perform.copy import Sources, copies_as_selected, copy, copy_key, open_sources, quick_key
from img.builder.perform.fetch import fetch
from img.builder.perform.run import quick_run_key, run, run_key
from img.builder.perform.step import Made, Step, folders_of
from img.builder.perform.workdir import workdir, workdir_key


def key_at_hand(step: Step) -> CacheKey | None:
    """The key of a step that can be told with nothing read; None where there is none."""
    op = step.node.op
    if isinstance(op, RunOp):
        return quick_run_key(step, op)
    if isinstance(op, CopyOp):
        return quick_key(step, op)
    return workdir_key(step, op) if isinstance(op, WorkdirOp) else None


__all__ = [
    "Binds",
    "Made",
    "Sources",
    "Step",
    "copies_as_selected",
    "copy",
    "copy_key",
    "fetch",
    "folders_of",
    "key_at_hand",
    "open_sources",
    "quick_key",
    "quick_run_key",
    "run",
    "run_key",
    "workdir",
    "workdir_key",
]
