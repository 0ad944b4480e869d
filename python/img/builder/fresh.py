"""`fresh_nodes`: which nodes run even where the cache has a record of them.

The engine asks it once a graph is planned: `--no-cache`, `--no-cache-filter`, `--no-cache-step`. Pure.
Source: Docker documentation, `docker buildx build --no-cache-filter`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from img.builder.graph import BuildGraph, CopyOp, Node, RunOp, WorkdirOp
from img.dockerfile import find_stage
from img.dockerfile.instructions import Dockerfile, Stage
from img.dockerfile.near import did_you_mean
from img.errors import DockerfileError, UsageError


def fresh_nodes(
    graph: BuildGraph,
    dockerfile: Dockerfile,
    *,
    everything: bool = False,
    stages: Sequence[str] = (),
    steps: Sequence[str] = (),
) -> dict[int, str]:
    """Gives the nodes that are to run whatever the cache knows: by number, the flag that says so.

    Args:
        everything: All of them.
        stages: Names or numbers of stages, all of whose steps run; an empty one means every stage.
        steps: `LINE`, a line of the Dockerfile that the step's instruction stands on; or a part of its text.
    Raises:
        UsageError: there is no such stage, or no step of this build fits.
    """
    nodes = [node for node in graph.nodes if isinstance(node.op, (RunOp, CopyOp, WorkdirOp))]
    chosen = [_stage(dockerfile, name) for name in stages if name]
    found = {node.number: "--no-cache-step" for text in steps for node in _fitting(nodes, text)}
    if everything:
        return dict.fromkeys((node.number for node in nodes), "--no-cache")
    for node in nodes:
        if len(chosen) < len(stages) or any(_is_in(dockerfile, node, stage) for stage in chosen):
            found[node.number] = "--no-cache-filter"
    return found


def _stage(dockerfile: Dockerfile, name: str) -> Stage:
    try:
        return find_stage(dockerfile, name)
    except DockerfileError as error:
        raise UsageError(f"--no-cache-filter: {error.message}", hint=error.hint) from error


def _is_in(dockerfile: Dockerfile, node: Node, stage: Stage) -> bool:
    """Tells whether a node's instruction stands in a stage; a base's triggers stand on the FROM."""
    if node.span is None:
        return False
    following = dockerfile.stages[stage.index + 1 :]
    end = following[0].from_.span.start if following else node.span.start + 1
    return stage.from_.span.start <= node.span.start < end


def _fitting(nodes: Iterable[Node], text: str) -> list[Node]:
    """The nodes that one `--no-cache-step` names."""
    if text.isascii() and text.isdecimal():
        line = int(text)
        found = [node for node in nodes if node.span and node.span.start <= line <= node.span.end]
        what = f"line {text}"
    else:
        found = [node for node in nodes if text and (text in node.title or _written(node, text))]
        what = repr(text)
    if not found:
        known = [line for node in nodes if node.span for line in node.span.text.split("\n")]
        hint = did_you_mean(text, known) if what[0] != "l" else ""
        raise UsageError(
            f"--no-cache-step: no step of this build fits {what}",
            hint=hint or "name a line of a RUN, COPY, ADD or WORKDIR of a stage that is built, or its text",
        )
    return found


def _written(node: Node, text: str) -> bool:
    return node.span is not None and text in node.span.text
