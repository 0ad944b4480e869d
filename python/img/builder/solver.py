"""`solve`: carries a `BuildGraph` out, every node whose inputs are ready at the same time.

For each node: a cache key; a record under it is a hit; else the work is done, its layer published and
recorded (`keeper`). Of several nodes that are ready, the one with the most steps after it goes first.
After the first failure nothing begins any more; what runs goes on to its end, or is ended where the caller
wants that. The first failure is raised once every thread has come home.
The solver never reads Dockerfile text, and no op knows of the cache.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from img import _core
from img.builder import perform
from img.builder.ahead import Ahead
from img.builder.graph import (
    BuildGraph,
    ConfigOp,
    CopyOp,
    GitOp,
    HttpOp,
    Node,
    RunOp,
    SourceOp,
    TreeOp,
    WorkdirOp,
)
from img.builder.keeper import Keeper, done_event
from img.builder.key import EMPTY, CacheKey
from img.builder.perform import Step
from img.builder.ready import Ready
from img.builder.site import BuiltLayer, Result, SharedLost, Site
from img.errors import BuildError
from img.oci import chain_id
from img.progress import ENDED, StepDone
from img.values import dataclass, field, replace


class _NotBegun(Exception):
    """Another node failed before the work of this one began."""


@dataclass(slots=True)
class Solver:
    """One solution in the making.

    Attributes:
        memo: File digests of the context, or None.
        jobs: Nodes at work at once, at the most.
        fresh: Nodes that run even where the cache has a record of them (and are recorded).
        fail_fast: A failure ends what runs beside it.
    """

    graph: BuildGraph
    site: Site
    memo: Any = None
    jobs: int = 2
    fresh: Mapping[int, str] = field(default_factory=dict)
    fail_fast: bool = False
    results: dict[int, Result] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _running: set[int] = field(default_factory=set)
    _begun: set[int] = field(default_factory=set)
    _failure: BaseException | None = None
    _ending: bool = False
    _keeper: Keeper = field(init=False)
    _ahead: Ahead = field(init=False)
    _ready: Ready = field(init=False)

    def __post_init__(self) -> None:
        self._keeper = Keeper(self.site, fresh=self.fresh, nodes=self.graph.nodes)
        self._ahead = Ahead(self.graph, self.site.images)
        self._ready = Ready(self.graph)

    def solve(self) -> dict[int, Result]:
        """Solves every node that a target needs; gives the results by node number.

        Raises:
            BuildError, DockerfileError, CopyError, StoreError, …: of the first node that failed.
            SharedLost: it has to be begun again. Whatever `Site.go_on` raises.
        """
        try:
            with self._changed:
                self._start_ready()
                while self._running and not (self._failure and self.fail_fast):
                    # A slice, not for ever: a signal's handler runs between two waits, and memory that
                    # others gave back is seen.
                    self._changed.wait(0.2)
                    self.site.go_on()
                    self._start_ready()
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._come_home()
        if self._failure is not None:
            raise self._failure
        return self.results

    def _start_ready(self) -> None:
        """Starts a thread for each node that can begin now."""
        while (node := self._next()) is not None:
            # Where no thread can be had, nothing runs that anybody would wait for; the
            # thread itself cannot end before this lock is given up.
            threading.Thread(target=self._work, args=(node,), daemon=True).start()
            self._running.add(node.number)

    def _next(self) -> Node | None:
        """The next node that needs a thread. Nodes that touch nothing are done on the way, in this one."""
        while self._failure is None and (node := self._ready.pop(self._has_room)) is not None:
            result = self._at_once(node)
            if result is None:
                return node
            self._solved(node, result)
        return None

    def _has_room(self) -> bool:
        """Whether one more node may be at work. One always may; beside it, memory has to last."""
        return not self._running or (len(self._running) < self.jobs and self.site.roomy())

    def _solved(self, node: Node, result: Result) -> None:
        self.results[node.number] = result
        self._ready.solved(node)

    def _at_once(self, node: Node) -> Result | None:
        """The result of a node that needs no thread: nothing is to be done, or the store alone knows it."""
        if isinstance(node.op, SourceOp):
            return source_result(node.op)
        if isinstance(node.op, ConfigOp):
            below = self.results[node.inputs[0]]
            result = replace(below, own_layer=False, cached=True)
            self.site.progress(done_event(node, result, started=time.monotonic()))
            return result
        step = self._step(node)
        key = perform.key_at_hand(step)
        return self._keeper.at_hand(step, key) if key else None

    def _work(self, node: Node) -> None:
        """One thread: one node, and then the next that is ready, since most steps stand on the one before."""
        following: Node | None = node
        while following is not None:
            node = following
            try:
                result = self._node(node)
            except BaseException as error:  # noqa: BLE001 - raised again by `solve`, in its own thread
                return self._failed(node, error)
            with self._changed:
                self._solved(node, result)
                self._running.discard(node.number)
                following = self._following()
                # `solve` sees the end, and starts threads for what else is ready.
                if following is None or self._ready:
                    self._changed.notify()
        return None

    def _following(self) -> Node | None:
        """The next node for this thread, which is at work from now on."""
        try:
            node = self._next()
        except BaseException as error:  # noqa: BLE001 - raised again by `solve`, in its own thread
            self._failure = self._failure or error
            return None
        if node is not None:
            self._running.add(node.number)
        return node

    def _failed(self, node: Node, error: BaseException) -> None:
        """A node failed, the first of all or not."""
        with self._changed:
            first = self._failure is None
            self._failure = self._failure or error
        try:
            if not isinstance(error, SharedLost):
                self._report(node, error, first=first)
        finally:
            # Whoever is told may be gone (a pipe that broke), and must not be waited for.
            with self._changed:
                self._running.discard(node.number)
                self._changed.notify()

    def _report(self, node: Node, error: BaseException, *, first: bool) -> None:
        """Says that a node failed, or was ended where it had begun; of one that had not, nothing."""
        ended = not first and (self._ending or isinstance(error, (KeyboardInterrupt, _NotBegun)))
        if ended and node.number not in self._begun:
            return
        code = error.exit_code_of_step if isinstance(error, BuildError) else 1
        text = f"exit code {code}" if isinstance(error, BuildError) else str(error).partition("\n")[0]
        if ended:
            code, text = 130, ENDED
        self.site.progress(
            StepDone(
                step=node.number, title=node.shown, exit_code=code, error=text, where=node.where,
                stage=node.stage,
            )
        )  # fmt: skip

    def _come_home(self) -> None:
        """Waits for every thread; what still runs after a failure is ended first."""
        try:
            if self._failure is not None:
                self._ending = bool(self._running)
                self.site.stop(True)
                if self._running:
                    self.site.executor.kill_all()
            with self._changed:
                while self._running:
                    self._changed.wait(0.2)
            self._ahead.close()
        finally:
            self.site.stop(False)

    def _step(self, node: Node) -> Step:
        return Step(self.site, node, [self.results[number] for number in node.inputs])

    # ---- one node ------------------------------------------------------------------------------

    def _node(self, node: Node) -> Result:
        step = self._step(node)
        with step.located():
            if isinstance(node.op, RunOp):
                return self._run(step, node.op)
            if isinstance(node.op, WorkdirOp):
                return self._workdir(step, node.op)
            if isinstance(node.op, CopyOp):
                return self._copy(step, node.op)
            assert isinstance(node.op, (HttpOp, GitOp, TreeOp))
            return perform.fetch(step, node.op)

    def _begin(
        self, step: Step, keys: Sequence[CacheKey] = (), selections: Sequence[_core.Selection] = ()
    ) -> float:
        """The work of a node begins, unless another one has failed; gives the time for `Keeper.keep`."""
        if self._failure is not None:
            raise _NotBegun
        self._begun.add(step.node.number)
        self._ahead.missed(step.node)
        return self._keeper.announce(step, keys, selections)

    def _run(self, step: Step, op: RunOp) -> Result:
        """A RUN with bind mounts from stages is first asked for by their stacks, which needs no mount."""
        keys: list[CacheKey] = []
        quick = perform.quick_run_key(step, op)
        if quick is not None and (hit := self._keeper.look(step, keys, quick)) is not None:
            return hit
        binds = perform.Binds(step, op)
        try:
            if binds.by_place:
                key = perform.run_key(step, op, content=binds.digests(self.memo))
                if (hit := self._keeper.look(step, keys, key)) is not None:
                    return hit
            with self._keeper.claim(step, keys) as hit:
                if hit is not None:
                    return hit
                started = self._begin(step, keys, binds.selections)
                return self._keeper.keep(step, keys, perform.run(step, op, binds), started)
        finally:
            binds.close()

    def _workdir(self, step: Step, op: WorkdirOp) -> Result:
        keys: list[CacheKey] = []
        if (hit := self._keeper.look(step, keys, perform.workdir_key(step, op))) is not None:
            return hit
        with self._keeper.claim(step, keys) as hit:
            if hit is not None:
                return hit
            started = self._begin(step, keys)
            return self._keeper.keep(step, keys, perform.workdir(step, op), started)

    def _copy(self, step: Step, op: CopyOp) -> Result:
        """A COPY from a stage is first asked for by that stage's stack, which needs no mount."""
        keys: list[CacheKey] = []
        quick = perform.quick_key(step, op)
        if quick is not None and (hit := self._keeper.look(step, keys, quick)) is not None:
            return hit
        sources = perform.open_sources(step, op)
        try:
            if perform.copies_as_selected(op) and self._keeper.is_new(step):
                with self._keeper.claim_place(step):
                    # Asked again: who held the claim may have made it.
                    if self._keeper.is_new(step):
                        return self._copy_at_once(step, op, sources, keys)
            key = perform.copy_key(step, op, content=sources.digests(self.memo))
            if (hit := self._keeper.look(step, keys, key)) is not None:
                return hit
            with self._keeper.claim(step, keys) as hit:
                if hit is not None:
                    return hit
                started = self._begin(step, keys, sources.selections)
                made = perform.copy(step, op, sources, self._keeper.earlier(step))
                return self._keeper.keep(step, keys, made, started)
        finally:
            sources.close()

    def _copy_at_once(self, step: Step, op: CopyOp, sources: perform.Sources, keys: list[CacheKey]) -> Result:
        """A COPY that no cache can know is not asked for: its files are read once, and that makes its key."""
        started = self._begin(step)
        sources.recall(self.memo)
        made = perform.copy(step, op, sources)
        try:
            keys.append(perform.copy_key(step, op, content=sources.digests(self.memo)))
            self._keeper.explain_new(step, keys, sources.selections)
        except BaseException:
            made.discard()
            raise
        return self._keeper.keep(step, keys, made, started)


def source_result(op: SourceOp) -> Result:
    """A base as a result: named by its chain ID, since nothing of it need be here."""
    if op.image is None:
        return Result()
    image = op.image
    layers = tuple(
        BuiltLayer(diff_id=layer.diff_id, content=layer.diff_id, descriptor=layer.descriptor.as_oci)
        for layer in image.layers
    )
    content = f"chain:{chain_id(image.config.diff_ids)}" if layers else EMPTY
    return Result(layers=layers, content=content, base=image, created=image.config.created, cached=True)
