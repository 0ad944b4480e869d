"""`Nodes`: the nodes of one graph while it is planned, each once for all targets that need it.

Every `plan.Planner` of a graph adds to the same one. Equal work of the same instruction on the same inputs
is one node: what two targets have in common, and what does not depend on the platform.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from img.builder.graph import GitOp, HttpOp, Node, Op, SourceOp
from img.dockerfile.instructions import Span
from img.oci import Image, Platform, Reference


@dataclass(slots=True)
class Nodes:
    """What the planners of one graph share.

    Attributes:
        all: The nodes, inputs before what stands on them.
        images: The node of each base and its image.
        named: The node of each named context, and its image where it is one.
        fetches: The node of each fetch.
        warnings: Remarks for people.
    """

    all: list[Node] = field(default_factory=list)
    images: dict[tuple[Reference, Platform], tuple[int, Image]] = field(default_factory=dict)
    named: dict[tuple[str, Platform], tuple[int, Image | None]] = field(default_factory=dict)
    fetches: dict[HttpOp | GitOp, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _known: dict[object, int] = field(default_factory=dict)

    def add(self, node: Node) -> int:
        """Adds a node, or finds the one that does the same; gives its number. Its own is not looked at."""
        op: Op | str | None = node.op
        if isinstance(op, SourceOp):  # an image cannot be hashed, its digest can
            op = op.image.digest if op.image else None
        key = (type(node.op), op, node.inputs, _place(node.span))
        number = self._known.setdefault(key, len(self.all))
        if number == len(self.all):
            self.all.append(replace(node, number=number))
        else:
            known = self.all[number]
            self.all[number] = replace(
                known,
                platform=known.platform if known.platform == node.platform else None,
                label=known.label if known.label == node.label else "",
            )
        return number

    def labelled(self) -> tuple[Node, ...]:
        """The nodes; only those that have their like for another platform keep their labels."""
        labels: dict[object, set[str]] = {}
        for node in self.all:
            labels.setdefault((_place(node.span), node.title), set()).add(node.label)
        return tuple(
            node if len(labels[_place(node.span), node.title]) > 1 else replace(node, label="")
            for node in self.all
        )


def _place(span: Span | None) -> tuple[str, int, int] | None:
    return None if span is None else (span.path, span.start, span.end)
