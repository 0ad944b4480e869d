"""`assemble`: from a solved graph to an `Image`: layers, history and times put into the config. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from img.builder.graph import BuildGraph, Goal, SourceOp
from img.builder.site import Result
from img.oci import History, Image

EPOCH_START = "1970-01-01T00:00:00Z"


def assemble(graph: BuildGraph, target: Goal, results: Mapping[int, Result], *, created: str | None) -> Image:
    """Puts the image of one target together.

    Args:
        created: RFC 3339 time for everything (SOURCE_DATE_EPOCH), or None for each step's own.
            Since a cached step keeps the time at which it ran, an unchanged build gives the same image.
    """
    config = target.config
    for line in target.history:
        result = results[line.node]
        own = result.own_layer and not isinstance(graph.nodes[line.node].op, SourceOp)
        config = config.with_history(
            History(
                created=created or result.created or EPOCH_START,
                created_by=line.created_by,
                comment="img",
                empty_layer=not own,
            )
        )
    stack = results[target.node]
    config = replace(
        config.with_layers([layer.diff_id for layer in stack.layers]),
        created=created or stack.created or EPOCH_START,
    )
    return Image.make(config, tuple(layer.descriptor for layer in stack.layers))
