"""The solver's order: how many at once, who goes first, what a failure stops. Nodes are trees: no disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from img.builder import BuildGraph
from img.builder.graph import ConfigOp, CopyOp, Goal, HttpOp, Node, Op, SourceOp, TreeOp
from img.builder.ready import Ready
from img.builder.site import Site
from img.builder.solver import Solver
from img.context import Context
from img.errors import ImgError
from img.executor import SandboxExecutor
from img.oci import ImageConfig, Platform
from img.progress import Event, StepDone
from img.snapshot.overlay import OverlaySnapshotter
from img.store import Store

from tests.unit.builder.planning import Bases

HOST = Platform.host()


class Trees(Mapping[str, Context]):
    """Calls back when a node looks its tree up, in that node's thread; counts how many do at once."""

    def __init__(self, at: Callable[[str], None] = lambda name: None) -> None:
        self.at = at
        self.order: list[str] = []
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Context:
        with self._lock:
            self.order.append(name)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.at(name)
        finally:
            with self._lock:
                self.now -= 1
        return Context(root=Path("/"), name=name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Events:
    """Remembers errors of steps; `first` is set with the first."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.first = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.error:
            self.errors.append(event.error)
            self.first.set()


MakeSolver = Callable[..., Solver]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def make_solver(tmp_path: Path, events: Events) -> Iterator[MakeSolver]:
    store = Store(tmp_path / "store")

    def make(
        trees: Trees, *inputs: tuple[int, ...], jobs: int, room: bool = True, fail_fast: bool = False
    ) -> Solver:
        """A node for each tuple: the nodes that it stands on. All are targets."""
        nodes = tuple(
            Node(number=n, op=TreeOp(name=str(n)), inputs=below, title=str(n))
            for n, below in enumerate(inputs)
        )
        site = Site(
            store=store,
            snapshots=OverlaySnapshotter(tmp_path, tmp_path),
            executor=SandboxExecutor(tmp_path),
            images=Bases(),  # type: ignore[arg-type]  # no base here
            context=Context(root=tmp_path, name="."),
            scratch=tmp_path,
            progress=events,
            now=lambda: "",
            stop=lambda stop: None,
            trees=trees,
            roomy=lambda: room,
        )
        return Solver(graph_of(nodes), site, jobs=jobs, fail_fast=fail_fast)

    yield make
    store.close()


def graph_of(nodes: tuple[Node, ...]) -> BuildGraph:
    config = ImageConfig(platform=HOST)
    goals = (
        Goal(stage=str(n.number), platform=HOST, node=n.number, config=config, history=()) for n in nodes
    )
    return BuildGraph(nodes=nodes, targets=tuple(goals))


def test_all_that_is_ready_is_at_work_at_once(make_solver: MakeSolver) -> None:
    meeting = threading.Barrier(4)

    def at(name: str) -> None:
        meeting.wait(60)

    trees = Trees(at)
    assert set(make_solver(trees, (), (), (), (), jobs=4).solve()) == {0, 1, 2, 3}


@pytest.mark.parametrize(("jobs", "room"), [(1, True), (8, False)])
def test_one_at_a_time_where_there_is_one_job_or_no_memory_for_more(
    make_solver: MakeSolver, jobs: int, room: bool
) -> None:
    trees = Trees()
    make_solver(trees, (), (), (0,), (1,), (2, 3), jobs=jobs, room=room).solve()
    assert trees.most == 1


def test_the_longest_chain_goes_first_and_inputs_before_what_stands_on_them() -> None:
    ops: list[tuple[Op, tuple[int, ...]]] = [
        (HttpOp(url="http://a"), ()),  # 0: one step behind it
        (HttpOp(url="http://b"), ()),  # 1: two
        (CopyOp(parts=(), dest="/"), (0,)),
        (ConfigOp(), (1,)),
        (CopyOp(parts=(), dest="/"), (3,)),
        (ConfigOp(), (2,)),
        (ConfigOp(), (5,)),
        (CopyOp(parts=(), dest="/"), (4,)),
    ]
    nodes = tuple(Node(number=n, op=op, inputs=inputs, title="") for n, (op, inputs) in enumerate(ops))
    ready, order = Ready(graph_of(nodes)), []
    while (node := ready.pop(lambda: True)) is not None:
        order.append(node.number)
        ready.solved(node)
    assert order == [1, 3, 0, 4, 2, 5, 6, 7], "of equal chains the first written"


def test_what_is_done_at_once_is_not_held_up_by_a_want_of_room() -> None:
    nodes = (
        Node(number=0, op=HttpOp(url="http://a"), title=""),
        Node(number=1, op=SourceOp(), title=""),
        Node(number=2, op=ConfigOp(), inputs=(1,), title=""),
    )
    ready = Ready(graph_of(nodes))
    assert ready.pop(lambda: False) == nodes[1]
    ready.solved(nodes[1])
    assert ready.pop(lambda: False) == nodes[2]
    assert ready.pop(lambda: False) is None
    assert ready.pop(lambda: True) == nodes[0]
    assert ready.pop(lambda: True) is None


def test_a_node_that_two_stand_on_is_solved_once(make_solver: MakeSolver) -> None:
    trees = Trees()
    make_solver(trees, (), (0, 0), (0, 1), jobs=2).solve()
    assert sorted(trees.order) == ["0", "1", "2"]


@pytest.mark.parametrize("fail_fast", [False, True])
def test_after_a_failure_nothing_begins_and_its_neighbour_ends(
    make_solver: MakeSolver, events: Events, fail_fast: bool
) -> None:
    def at(name: str) -> None:
        if name == "0":
            raise ImgError("broken")
        assert events.first.wait(60)

    trees = Trees(at)
    solver = make_solver(trees, (), (), (0,), (1,), jobs=2, fail_fast=fail_fast)
    with pytest.raises(ImgError, match="broken"):
        solver.solve()
    assert set(solver.results) == {1}
    assert sorted(trees.order) == ["0", "1"]
    assert events.errors == ["broken"]


def test_a_second_failure_is_told_and_the_first_is_raised(make_solver: MakeSolver, events: Events) -> None:
    def at(name: str) -> None:
        assert name == "0" or events.first.wait(60)
        raise ImgError(f"broken {name}")

    with pytest.raises(ImgError, match="broken 0"):
        make_solver(Trees(at), (), (), jobs=2).solve()
    assert events.errors == ["broken 0", "broken 1"]


def test_what_touches_nothing_is_done_at_once_and_in_order(make_solver: MakeSolver) -> None:
    solver = make_solver(Trees(), (), jobs=1)
    nodes = (
        Node(number=0, op=SourceOp(name="scratch"), title="FROM scratch"),
        *(Node(number=n, op=ConfigOp(), inputs=(n - 1,), title="ENV") for n in range(1, 2000)),
    )
    assert len(Solver(graph_of(nodes), solver.site).solve()) == 2000
