"""The answers of `--print-graph`: a plan for people, as JSON, and in the language of Graphviz.

`calls` prints what these give. Nothing of a node is shown but what a build shows as well.
Source: Graphviz documentation, "DOT Language".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from img.builder.graph import BuildGraph, Node, SourceOp
from img.dockerfile.faults import printable

if TYPE_CHECKING:
    from img.oci import Platform

FORMAT = 1
"""Raised when a field of `graph_json` changes its meaning or goes."""


def kind_of(node: Node) -> str:
    """What a node does, in one word: `source`, `tree`, `http`, `git`, `run`, `copy`, `workdir`, `config`."""
    return type(node.op).__name__.removesuffix("Op").lower()


def graph_json(graph: BuildGraph) -> dict[str, Any]:
    """The whole plan as data: what a node stands on comes before it."""
    return {
        "format": FORMAT,
        "nodes": [_node(node) for node in graph.nodes],
        "targets": [
            {"target": target.stage, "platform": str(target.platform), "node": target.node}
            for target in graph.targets
        ],
    }


def _node(node: Node) -> dict[str, Any]:
    image = node.op.image if isinstance(node.op, SourceOp) else None
    return {
        "number": node.number,
        "op": kind_of(node),
        "title": printable(node.title),
        "stage": node.stage,
        "where": node.where,
        "lines": [node.span.start, node.span.end] if node.span else [],
        "inputs": list(node.inputs),
        "platform": _platform(node.platform),
        **({"digest": image.digest} if image else {}),
    }


def _platform(platform: Platform | None) -> str:
    return str(platform) if platform else ""


def graph_text(graph: BuildGraph) -> str:
    """A line for each node: its number, what it stands on, what it does, and where that is written."""
    rows = []
    for node in graph.nodes:
        inputs = " ".join(str(number) for number in node.inputs)
        title = printable(node.title).split("\n")[0]
        platform = _platform(node.platform)
        rows.append((str(node.number), inputs or "-", kind_of(node), node.stage, platform, node.where, title))
    head = ("NODE", "INPUTS", "OP", "STAGE", "PLATFORM", "WHERE", "STEP")
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head) - 1)]
    lines = [
        "   ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in (head, *rows)
    ]
    lines += ["", *(f"{target.stage} for {target.platform}: node {target.node}" for target in graph.targets)]
    return "\n".join(line.rstrip() for line in lines)


def graph_dot(graph: BuildGraph) -> str:
    """The plan for `dot -Tsvg`: the nodes of a stage in one box, targets with a double frame."""
    targets = {target.node for target in graph.targets}
    stages: dict[str, list[Node]] = {}
    for node in graph.nodes:
        stages.setdefault(node.stage, []).append(node)
    lines = ["digraph build {", "  rankdir=BT;", '  node [shape=box, fontname="monospace"];']
    for number, (stage, nodes) in enumerate(stages.items()):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(stage)};"]
        for node in nodes:
            title = printable(node.shown).split("\n")[0]
            title = title if len(title) <= 60 else title[:59] + "…"
            frame = ", peripheries=2" if node.number in targets else ""
            lines.append(f"    n{node.number} [label={_quoted(f'{node.number}: {title}')}{frame}];")
        lines.append("  }")
    lines += [
        f"  n{node.number} -> n{below};" for node in graph.nodes for below in dict.fromkeys(node.inputs)
    ]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    """A string of dot: only quotes and backslashes mean something in it, as in JSON."""
    return json.dumps(text, ensure_ascii=False)
