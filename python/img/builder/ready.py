"""`Ready`: which node of a graph begins next.

The solver takes nodes out, and tells of each that is solved. A node is ready once all that it stands on is
solved. Of several that are ready, the one with the most steps in a row behind it goes first, since it holds
up most. Nothing here runs anything, or waits; it is for one thread at a time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from img.builder.graph import INPUTS, BuildGraph, ConfigOp, Node, SourceOp


class Ready:
    """The nodes that the targets need and that have not begun."""

    def __init__(self, graph: BuildGraph) -> None:
        """Those that stand on nothing are ready."""
        self._nodes = graph.nodes
        wanted = needed(graph)
        self._open = {number: len(set(graph.nodes[number].inputs)) for number in wanted}
        self._followers: dict[int, list[int]] = {number: [] for number in wanted}
        self._chain = dict.fromkeys(wanted, 0)
        for number in sorted(wanted, reverse=True):
            node = graph.nodes[number]
            length = self._chain[number] + (not isinstance(node.op, (*INPUTS, ConfigOp)))
            for below in set(node.inputs):
                self._followers[below].append(number)
                self._chain[below] = max(self._chain[below], length)
        # What is done at once waits apart from what needs a thread: it is never held up.
        self._quick: deque[int] = deque()
        self._slow: list[tuple[int, int]] = []
        for number in sorted(wanted):
            if not self._open[number]:
                self._push(number)

    def _push(self, number: int) -> None:
        if isinstance(self._nodes[number].op, (SourceOp, ConfigOp)):
            self._quick.append(number)
        else:
            heapq.heappush(self._slow, (-self._chain[number], number))

    def __bool__(self) -> bool:
        """Whether something is ready."""
        return bool(self._quick or self._slow)

    def pop(self, has_room: Callable[[], bool]) -> Node | None:
        """Gives what begins next, once; None where nothing is ready.

        Args:
            has_room: Asked for each node that needs a thread; where it says no, there is none either.
        """
        if self._quick:
            return self._nodes[self._quick.popleft()]
        return self._nodes[heapq.heappop(self._slow)[1]] if self._slow and has_room() else None

    def solved(self, node: Node) -> None:
        """A node has its result: what waited for nothing else is ready."""
        for number in self._followers[node.number]:
            self._open[number] -= 1
            if not self._open[number]:
                self._push(number)


def needed(graph: BuildGraph) -> set[int]:
    """The nodes that the targets need."""
    wanted: set[int] = set()
    pending = [target.node for target in graph.targets]
    while pending:
        number = pending.pop()
        if number not in wanted:
            wanted.add(number)
            pending.extend(graph.nodes[number].inputs)
    return wanted
