"""`solve`: carries a `BuildGraph` out, every node whose inputs are ready at the same time.

For each node: a cache key; a record under it is a hit; else the work is done, its layer published and
recorded (`keeper`). The first failure stops what has not begun, ends the containers that run, and is
raised once every thread has come home.
The solver never reads Dockerfile text, and no op knows of the cache.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from img.builder import perform
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
from img.builder.site import BuiltLayer, Result, Site
from img.errors import BuildError
from img.oci import Descriptor, chain_id
from img.oci.descriptor import DOCKER_LAYER, DOCKER_LAYER_GZIP, OCI_LAYER, OCI_LAYER_GZIP
from img.progress import StepDone
from img.values import dataclass, field, replace


@dataclass(slots=True)
class Solver:
    """One solution in the making.

    Attributes:
        memo: File digests of the context, or None.
        jobs: Nodes at work at once, at the most.
        use_cache: False runs everything (and records it).
    """

    graph: BuildGraph
    site: Site
    memo: Any = None
    jobs: int = 2
    use_cache: bool = True
    results: dict[int, Result] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _running: set[int] = field(default_factory=set)
    _failure: BaseException | None = None
    _keeper: Keeper = field(init=False)

    def __post_init__(self) -> None:
        self._keeper = Keeper(self.site, use_cache=self.use_cache)

    def solve(self) -> dict[int, Result]:
        """Solves every node; gives the results by node number.

        Raises:
            BuildError, DockerfileError, CopyError, StoreError, …: of the first node that failed.
        """
        wanted = self._reachable()
        try:
            with self._changed:
                while self._failure is None and len(self.results) < len(wanted):
                    self._start_ready(wanted)
                    if self._failure is None and self._running:
                        # A slice, not for ever: a signal's handler runs between two waits.
                        self._changed.wait(0.2)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._come_home()
        if self._failure is not None:
            raise self._failure
        return self.results

    def _reachable(self) -> set[int]:
        """The nodes that the target needs."""
        wanted: set[int] = set()
        pending = [self.graph.target]
        while pending:
            number = pending.pop()
            if number not in wanted:
                wanted.add(number)
                pending.extend(self.graph.nodes[number].inputs)
        return wanted

    def _start_ready(self, wanted: set[int]) -> None:
        """Starts what can start. Nodes that touch nothing are done at once, in this thread."""
        progressed = True
        while progressed and self._failure is None:
            progressed = False
            for node in self.graph.nodes:
                if node.number not in wanted or node.number in self.results or node.number in self._running:
                    continue
                if any(number not in self.results for number in node.inputs):
                    continue
                if isinstance(node.op, (SourceOp, ConfigOp)):
                    self.results[node.number] = self._at_once(node)
                    progressed = True
                elif len(self._running) < self.jobs:
                    # Where no thread can be had, nothing runs that anybody would wait for; the
                    # thread itself cannot end before this lock is given up.
                    threading.Thread(target=self._work, args=(node,), daemon=True).start()
                    self._running.add(node.number)

    def _at_once(self, node: Node) -> Result:
        if isinstance(node.op, SourceOp):
            return source_result(node.op)
        below = self.results[node.inputs[0]]
        result = replace(below, own_layer=False, cached=True)
        self.site.progress(done_event(node, result, started=time.monotonic()))
        return result

    def _work(self, node: Node) -> None:
        """One thread: one node."""
        try:
            result = self._node(node)
        except BaseException as error:  # noqa: BLE001 - raised again by `solve`, in its own thread
            with self._changed:
                first = self._failure is None
                self._failure = self._failure or error
                self._running.discard(node.number)
                self._changed.notify()
            if first:
                self._report(node, error)
            return
        with self._changed:
            self.results[node.number] = result
            self._running.discard(node.number)
            self._changed.notify()

    def _report(self, node: Node, error: BaseException) -> None:
        code = error.exit_code_of_step if isinstance(error, BuildError) else 1
        text = f"exit code {code}" if isinstance(error, BuildError) else str(error).partition("\n")[0]
        self.site.progress(
            StepDone(
                step=node.number, title=node.title, exit_code=code, error=text, where=node.where,
                stage=node.stage,
            )
        )  # fmt: skip

    def _come_home(self) -> None:
        """Waits for every thread; what still runs after a failure is ended first."""
        if self._failure is not None and self._running:
            self.site.stop(True)
            self.site.executor.kill_all()
        try:
            with self._changed:
                while self._running:
                    self._changed.wait(0.2)
        finally:
            self.site.stop(False)

    # ---- one node ------------------------------------------------------------------------------

    def _node(self, node: Node) -> Result:
        step = Step(self.site, node, [self.results[number] for number in node.inputs])
        with step.located():
            if isinstance(node.op, RunOp):
                return self._run(step, node.op)
            if isinstance(node.op, WorkdirOp):
                return self._workdir(step, node.op)
            if isinstance(node.op, CopyOp):
                return self._copy(step, node.op)
            assert isinstance(node.op, (HttpOp, GitOp, TreeOp))
            return perform.fetch(step, node.op)

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
            started = self._keeper.announce(step, keys)
            return self._keeper.keep(step, keys, perform.run(step, op, binds), started)
        finally:
            binds.close()

    def _workdir(self, step: Step, op: WorkdirOp) -> Result:
        key = perform.workdir_key(step, op)
        hit = self._keeper.hit(step, key)
        if hit is not None:
            return hit
        started = self._keeper.announce(step, [key])
        return self._keeper.keep(step, [key], perform.workdir(step, op), started)

    def _copy(self, step: Step, op: CopyOp) -> Result:
        """A COPY from a stage is first asked for by that stage's stack, which needs no mount."""
        keys: list[CacheKey] = []
        quick = perform.quick_key(step, op)
        if quick is not None and (hit := self._keeper.look(step, keys, quick)) is not None:
            return hit
        sources = perform.open_sources(step, op)
        try:
            key = perform.copy_key(step, op, content=sources.digests(self.memo))
            if (hit := self._keeper.look(step, keys, key)) is not None:
                return hit
            started = self._keeper.announce(step, keys)
            return self._keeper.keep(step, keys, perform.copy(step, op, sources), started)
        finally:
            sources.close()


def source_result(op: SourceOp) -> Result:
    """A base as a result: named by its chain ID, since nothing of it need be here."""
    if op.image is None:
        return Result()
    image = op.image
    layers = tuple(
        BuiltLayer(diff_id=layer.diff_id, content=layer.diff_id, descriptor=_as_oci(layer.descriptor))
        for layer in image.layers
    )
    content = f"chain:{chain_id(image.config.diff_ids)}" if layers else EMPTY
    return Result(layers=layers, content=content, base=image, created=image.config.created, cached=True)


def _as_oci(descriptor: Descriptor) -> Descriptor:
    """A base's layer under its OCI media type: the manifest that it goes into is an OCI one."""
    kind = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP}.get(descriptor.media_type)
    return replace(descriptor, media_type=kind) if kind else descriptor
