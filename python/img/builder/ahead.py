"""`Ahead`: brings bases while other steps run, as soon as it is likely that a step will read them.

The solver tells it of each step that begins since the cache had nothing for it. Whatever stands on that step
will most likely run as well, so the bases that it reads are fetched and extracted now, beside the steps.
A base that nothing reads (only COPY --link and the config stand on it) is never asked for.
"""

from __future__ import annotations

import threading

from img.builder.graph import BuildGraph, CopyOp, Node, RunOp, SourceOp, WorkdirOp
from img.builder.site import Images
from img.oci import Image


class Ahead:
    """The bases of one build that are under way before a step waits for them. Safe for several threads."""

    def __init__(self, graph: BuildGraph, images: Images) -> None:
        """Asks for nothing yet."""
        self._graph = graph
        self._images = images
        self._changed = threading.Condition()
        self._missed: set[int] = set()
        self._bases: list[int | None] = []
        self._left: set[int] | None = None
        self._running = 0

    def missed(self, node: Node) -> None:
        """A step begins, and brings what it reads itself; brings what the steps after it will read.

        Returns at once.
        """
        with self._changed:
            if self._left is None:
                self._bases = _bases(self._graph)
                self._left = {base for each in self._graph.nodes for base in self._read_by(each)}
            if not self._left:
                return
            self._left -= self._read_by(node).keys()
            self._missed.add(node.number)
            wanted: dict[int, Image] = {}
            for later in self._graph.nodes[node.number + 1 :]:
                if not self._missed.isdisjoint(later.inputs):
                    self._missed.add(later.number)
                    wanted.update(self._read_by(later))
            for number in wanted.keys() & self._left:
                threading.Thread(target=self._bring, args=(wanted[number],), daemon=True).start()
                self._running += 1
            self._left -= wanted.keys()

    def _read_by(self, node: Node) -> dict[int, Image]:
        """The bases whose files a node looks at."""
        if isinstance(node.op, CopyOp) and node.op.link:
            inputs = node.inputs[1:]
        elif isinstance(node.op, (CopyOp, RunOp, WorkdirOp)):
            inputs = node.inputs
        else:
            return {}
        found: dict[int, Image] = {}
        for number in inputs:
            base = self._bases[number]
            if base is not None:
                op = self._graph.nodes[base].op
                assert isinstance(op, SourceOp) and op.image is not None
                found[base] = op.image
        return found

    def _bring(self, image: Image) -> None:
        """One thread: one base."""
        try:
            self._images.bring_early(image)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Ends what nobody waits for any more; returns when all of it has ended."""
        with self._changed:
            self._left = set()
            if self._running:
                self._images.end_early()
            while self._running:
                self._changed.wait(0.2)  # in slices: a signal's handler runs between two


def _bases(graph: BuildGraph) -> list[int | None]:
    """For each node the base that it stands on, or is; None where that is none, or nothing."""
    bases: list[int | None] = []
    for node in graph.nodes:
        if isinstance(node.op, SourceOp):
            bases.append(node.number if node.op.image is not None else None)
        else:
            bases.append(bases[node.inputs[0]] if node.inputs else None)
    return bases
