"""`make_plan`: from a parsed Dockerfile to a `BuildGraph`. Pure, but for the bases it is handed.

Only the targets and the stages that they need are planned, each after those that it needs itself; the base
of any other is never resolved. A `Planner` plans one target for one platform; all of a graph share `Nodes`.
Variables are expanded here, and only here; after this, nobody reads Dockerfile text again.
Source: Dockerfile reference; the semantics of each instruction in the section of its name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain

from img.builder.configure import configure, pairs_of
from img.builder.draft import ConfigDraft
from img.builder.graph import (
    BuildGraph,
    ConfigOp,
    CopyOp,
    CopyPart,
    Goal,
    HistoryLine,
    Op,
    RunOp,
    SourceOp,
    TreeOp,
    WorkdirOp,
)
from img.builder.plan.checks import PlanChecks
from img.builder.plan.copy import copy_title, plan_copy
from img.builder.plan.named import NamedContext, context_name
from img.builder.plan.names import Names
from img.builder.plan.nodes import Nodes
from img.builder.plan.options import PlanOptions
from img.builder.plan.run import plan_run
from img.builder.plan.stages import Use, circle, in_order
from img.builder.plan.texts import STRAY, host_name, without_stray_bytes
from img.builder.scope import AUTOMATIC, PROXIES, Scope
from img.dockerfile import find_stage, near_stage, parse_trigger
from img.dockerfile import instructions as ins
from img.dockerfile.expand import expand_at
from img.dockerfile.faults import fault, spelled, without_passwords
from img.errors import ImgError
from img.oci import Image, ImageConfig, Platform, Reference
from img.oci.config import DEFAULT_PATH
from img.values import dataclass, field, replace

SCRATCH = "scratch"

Resolve = Callable[[Reference, Platform], Image]
"""Gives the image of a name, pinned; raises RegistryError or StoreError."""


@dataclass(slots=True)
class StageState:
    """A stage as far as it is planned; `node` is what it stands on now."""

    scope: Scope
    config: ConfigDraft
    node: int
    platform: Platform
    history: list[HistoryLine] = field(default_factory=list)
    command_set: bool = False

    def child(self) -> StageState:
        """The state of a stage that is built on this one."""
        return StageState(
            scope=self.scope.inherit(),
            config=self.config.copy(),
            node=self.node,
            platform=self.platform,
            history=list(self.history),
        )


def make_plan(dockerfile: ins.Dockerfile, options: PlanOptions, resolve: Resolve) -> BuildGraph:
    """Plans the build of one target for one platform.

    Args:
        resolve: Called for each base that the target needs, once.
    Raises:
        DockerfileError: something in the Dockerfile makes no sense; with its place.
    """
    return plan_together(dockerfile, (options,), resolve)


def plan_together(dockerfile: ins.Dockerfile, wanted: Sequence[PlanOptions], resolve: Resolve) -> BuildGraph:
    """Plans the build of several targets and platforms as one graph, what they share in it once.

    Args:
        wanted: One for each target and platform, at least one. They differ in nothing else.
        resolve: Called for each base and platform that one of them needs, once.
    Raises:
        DockerfileError: something in the Dockerfile makes no sense; with its place.
    """
    nodes = Nodes()
    several = len({options.platform for options in wanted}) > 1
    planners = [
        Planner(dockerfile, options, resolve, nodes, str(options.platform) if several else "")
        for options in wanted
    ]
    targets = tuple(planner.plan() for planner in planners)
    say_unused(planners)
    checks = planners[0].checks.options
    findings = checks.sift(found for planner in planners for found in planner.checks.findings())
    return BuildGraph(
        nodes=nodes.labelled(),
        targets=targets,
        warnings=tuple(dict.fromkeys(nodes.warnings)),
        findings=findings,
        fatal=checks.fatal(findings),
    )


def say_unused(planners: Sequence[Planner]) -> None:
    """Remarks on build arguments that none of the targets takes."""
    options = planners[0].options
    used = set().union(*(planner.names.used for planner in planners))
    unused = set(options.build_args) - used - PROXIES - AUTOMATIC
    unused = {name for name in unused if not name.startswith("BUILDKIT_") and name != "SOURCE_DATE_EPOCH"}
    if unused:
        planners[0].warnings.append(f"build arguments that no ARG takes: {', '.join(sorted(unused))}")


def needed_bases(dockerfile: ins.Dockerfile, options: PlanOptions) -> list[tuple[Reference, Platform]]:
    """The images that planning will ask for, as far as can be told without having them.

    For fetching them side by side; ONBUILD triggers of a base may add to them.
    """
    names = Names(dockerfile, options)
    return _bases_of(names, in_order((names.target,), names.uses))


def all_bases(dockerfile: ins.Dockerfile, options: PlanOptions) -> list[tuple[Reference, Platform]]:
    """Like `needed_bases`, of every stage, whether the target needs it or not."""
    return _bases_of(Names(dockerfile, options), dockerfile.stages)


def needs_all(dockerfile: ins.Dockerfile, options: PlanOptions) -> bool:
    """Tells whether the target needs every stage."""
    names = Names(dockerfile, options)
    return len(in_order((names.target,), names.uses)) == len(dockerfile.stages)


def _bases_of(names: Names, stages: Iterable[ins.Stage]) -> list[tuple[Reference, Platform]]:
    wanted: dict[tuple[Reference, Platform], None] = {}
    for stage in stages:
        for use in names.uses(stage):
            if use.stage is None and use.name != SCRATCH and names.context(use.name) is None:
                platform = names.platform_of(stage) if use.at is stage.from_ else names.options.platform
                wanted[names.reference(use.at.span, use.name), platform] = None
    return list(wanted)


class Planner:
    """Carries the finished stages while one target is planned for one platform."""

    def __init__(
        self,
        dockerfile: ins.Dockerfile,
        options: PlanOptions,
        resolve: Resolve,
        nodes: Nodes | None = None,
        platform_label: str = "",
    ) -> None:
        """Plans nothing yet.

        Args:
            nodes: Those of the graph so far; None begins a graph.
            platform_label: What tells its nodes from their like for other platforms, or empty.
        """
        self.dockerfile = dockerfile
        self.options = options
        self.resolve = resolve
        self.nodes = nodes or Nodes()
        self.platform_label = platform_label
        self.fetches = self.nodes.fetches
        self.warnings = self.nodes.warnings
        self.states: dict[int, StageState] = {}
        self.planning: set[int] = set()
        self.hostname = host_name(options.build_args)
        self.names = Names(dockerfile, options)
        self.checks = PlanChecks(self)

    def plan(self) -> Goal:
        """Plans the target and all that it needs."""
        names = self.names
        self.checks.file()
        in_order(self.dockerfile.stages, names.uses)  # a circle is one, whether it is built or not
        for stage in in_order((names.target,), names.uses):
            self.stage(stage)
        state = self.states[names.target.index]
        config = state.config.finished()
        if self.options.labels:
            config = config.with_run(Labels={**config.labels, **self.options.labels})
        if self.options.platform_given:
            config = replace(config, platform=_given(self.options.platform, config.platform))
        named = find_stage(self.dockerfile, label(names.target)) is names.target
        return Goal(
            stage=label(names.target) if named else str(names.target.index),
            platform=config.platform,
            node=state.node,
            config=without_stray_bytes(config),
            history=tuple(state.history),
        )

    def warn(self, at: ins.Span, text: str) -> None:
        """Adds a finding, once."""
        line = f"{at.where}: {spelled(text)}"
        if line not in self.warnings:
            self.warnings.append(line)

    def expand(self, instruction: ins.Instruction, word: str, variables: Mapping[str, str]) -> str:
        """Expands a word; a mistake points at the instruction."""
        return expand_at(instruction.span, word, variables, self.dockerfile.escape)

    # ---- stages ------------------------------------------------------------------------------

    def stage(self, stage: ins.Stage) -> StageState:
        """Plans a stage, once."""
        if stage.index not in self.states:
            self.planning.add(stage.index)
            own = self.names.context(stage.name)
            if own is not None:
                platform = self.names.platform_of(stage)
                self.states[stage.index] = self._begin_named(stage, stage.name, own, platform)
                self.planning.remove(stage.index)
                return self.states[stage.index]
            state = self._begin(stage)
            for trigger in state.config.take_triggers():
                self._step(stage, state, parse_trigger(trigger, where=stage.from_.span))
            for instruction in stage.instructions:
                self._step(stage, state, instruction)
            self.names.used |= state.scope.used
            self.states[stage.index] = state
            self.planning.remove(stage.index)
        return self.states[stage.index]

    def _begin(self, stage: ins.Stage) -> StageState:
        use, *_ = self.names.uses(stage)
        name, below, platform = use.name, use.stage, self.names.platform_of(stage)
        named = self.names.context(name)
        if named is not None:
            return self._begin_named(stage, name, named, platform)
        if below is not None:
            return self.stage(below).child()
        if name == SCRATCH:
            return self._scratch(stage)
        node, image = self.image(stage, stage.from_, name, platform)
        self.checks.base(stage, name, platform, image.config.platform)
        return self._fresh(image.config, node, platform)

    def _fresh(self, config: ImageConfig, node: int, platform: Platform) -> StageState:
        """A stage that begins with the config of an image, or with none."""
        if "PATH" not in config.env and platform.os != "windows":
            config = config.with_run(Env=[*(config.words("Env") or ()), f"PATH={DEFAULT_PATH}"])
        if config.run.get("WorkingDir"):  # of a base it may be relative
            config = config.with_run(WorkingDir=absolute("/", config.working_dir))
        scope = Scope(outer=self.names.outer, build_args=self.options.build_args, env=dict(config.env))
        return StageState(scope=scope, config=ConfigDraft(config), node=node, platform=platform)

    def _begin_named(
        self, stage: ins.Stage, name: str, named: NamedContext, platform: Platform
    ) -> StageState:
        """A stage that begins with a named context: with an image, a stage, or the files of a tree."""
        if named.kind == "stage":
            return self.stage(find_stage(self.dockerfile, named.stage)).child()
        node, image = self._named(stage, stage.from_, name, named, platform)
        if image is not None:
            self.checks.base(stage, name, platform, image.config.platform)
            return self._fresh(image.config, node, platform)
        state = self._scratch(stage)
        op = CopyOp(parts=(CopyPart(patterns=(".",), input=1),), dest="/")
        state.node = self.add(stage, op, (state.node, node), f"FROM {name}", stage.from_)
        state.history.append(HistoryLine(created_by=f"FROM {name}", node=state.node))
        return state

    def _scratch(self, stage: ins.Stage) -> StageState:
        """A stage that begins with nothing; that is for every platform, so FROM's is not asked."""
        config = ImageConfig.scratch(self.options.platform).with_run(WorkingDir="/")
        node = self.add(stage, SourceOp(name=SCRATCH), (), f"FROM {SCRATCH}", stage.from_)
        return self._fresh(config, node, self.options.platform)

    def image(
        self, stage: ins.Stage, at: ins.Instruction, name: str, platform: Platform
    ) -> tuple[int, Image]:
        """A node for an image, once for each name and platform."""
        reference = self.names.reference(at.span, name)
        images = self.nodes.images
        if (reference, platform) not in images:
            try:
                image = self.resolve(reference, platform)
            except ImgError as error:
                error.hint = near_stage(self.dockerfile, name) or error.hint
                raise
            op = SourceOp(image=image, name=str(reference))
            node = self.add(stage, op, (), f"FROM {reference.familiar}", at)
            images[reference, platform] = (node, image)
        return images[reference, platform]

    def source_node(self, stage: ins.Stage, at: ins.Instruction, name: str) -> int:
        """The node that `--from=name` or `from=name` reads: a stage, a named context, or an image.

        Raises:
            DockerfileError: no stage has the number, or it comes later, or the stages need each other.
        """
        use = self.names.find(at, name)
        flag = "--from" if isinstance(at, ins.Copy) else "from"
        if "$" in name and use.name != name:
            self.warn(at.span, f"{flag}={name} holds a variable, which docker build refuses")
        named = self.names.context(use.name)
        if named is not None and named.kind != "stage":
            return self._named(stage, at, use.name, named, self.options.platform)[0]
        if use.stage is not None:
            if named is None and use.stage.index > stage.index:
                raise fault(
                    at.span,
                    f"the stage {use.name} comes only later",
                    at=use.written,
                    hint="a stage can take from those before it: move it up",
                    also=(use.stage.from_.span,),
                )
            self._plan_before(use)
            return self.stage(use.stage).node
        if use.name == SCRATCH:
            return self.add(stage, SourceOp(name=SCRATCH), (), f"FROM {SCRATCH}", at)
        return self.image(stage, at, use.name, self.options.platform)[0]

    def _plan_before(self, use: Use) -> None:
        """Plans what a trigger of an image asks for; what others ask for is planned already."""
        assert use.stage is not None
        missing = () if use.stage.index in self.states else (use.stage,)
        for stage in in_order(missing, self.names.uses):
            if stage.index in self.planning:
                raise circle([stage] if stage is use.stage else [stage, use.stage], (use,))
            self.stage(stage)

    def _named(
        self, stage: ins.Stage, at: ins.Instruction, name: str, named: NamedContext, platform: Platform
    ) -> tuple[int, Image | None]:
        """The node of a named context and its image, if it is one; once for each name and platform."""
        key = (context_name(name), platform)
        if key not in self.nodes.named:
            image = named.image(platform) if named.image is not None else None
            op: Op = TreeOp(name=key[0]) if image is None else SourceOp(image=image, name=name)
            self.nodes.named[key] = (self.add(stage, op, (), f"CONTEXT {name}", at), image)
        return self.nodes.named[key]

    def add(self, stage: ins.Stage, op: Op, inputs: tuple[int, ...], title: str, at: ins.Instruction) -> int:
        """Adds a node to the graph, or finds the one that does the same; gives its number."""
        image = op.image if isinstance(op, SourceOp) else None
        return self.nodes.add(
            op,
            inputs,
            title=title,
            stage=label(stage),
            span=at.span,
            platform=image.platform if image else self.names.platform_of(stage),
            label=self.platform_label,
        )

    # ---- instructions ------------------------------------------------------------------------

    def _step(self, stage: ins.Stage, state: StageState, instruction: ins.Instruction) -> None:
        """Plans one instruction: its node, its config, its line of history."""
        self.checks.step(stage, state, instruction)
        created_by = instruction.original
        inputs: tuple[int, ...] = (state.node,)
        op: Op = ConfigOp()
        title = instruction.original
        if isinstance(instruction, ins.Run):
            op, inputs, created_by = plan_run(self, stage, state, instruction)
            title = f"RUN [{' '.join(op.args)}]"
        elif isinstance(instruction, ins.Copy):
            op, inputs = plan_copy(self, stage, state, instruction)
            title = copy_title(op)
            created_by = without_passwords(created_by)
        elif isinstance(instruction, ins.Workdir):
            path = self.absolute(state, self.expand(instruction, instruction.path, state.scope.variables))
            op = WorkdirOp(path=path, user=state.config.user)
            state.config.set(WorkingDir=path)
        elif isinstance(instruction, ins.Arg):
            self._arg(state, instruction)
        else:
            self._configure(state, instruction)
        _refuse_stray_bytes(instruction, op)
        state.node = self.add(stage, op, inputs, title, instruction)
        state.history.append(HistoryLine(created_by=STRAY.sub("\ufffd", created_by), node=state.node))

    def _configure(self, state: StageState, instruction: ins.Instruction) -> None:
        expand = partial(self._expand_in, state, instruction)
        if isinstance(instruction, ins.Env):
            added = pairs_of(instruction, expand)
            state.config.add("Env", added)
            state.scope.set_env(added)
            return
        configure(state.config, instruction, expand, command_set=state.command_set)
        if isinstance(instruction, ins.Cmd):
            state.command_set = True
        if isinstance(instruction, ins.Onbuild) and instruction.instruction is None:
            text = f"no build can carry out the trigger {instruction.trigger!r}: it is no valid instruction"
            self.warn(instruction.span, text)

    def _arg(self, state: StageState, instruction: ins.Arg) -> None:
        # Each default sees the ARGs before it, in the same instruction too, as docker has it.
        for name, default in instruction.pairs:
            value = None if default is None else partial(self._expand_in, state, instruction, default)
            state.scope.declare(name, value)

    def _expand_in(self, state: StageState, instruction: ins.Instruction, word: str) -> str:
        return self.expand(instruction, word, state.scope.variables)

    def absolute(self, state: StageState, path: str) -> str:
        """A path made absolute from the working folder, `..` clamped at the root."""
        return absolute(state.config.working_dir, path)


def label(stage: ins.Stage) -> str:
    """What people call a stage: its name, or its number."""
    return stage.name or str(stage.index)


def absolute(folder: str, path: str) -> str:
    """A path made absolute and clean, `..` clamped at the root."""
    joined = posixpath.normpath(posixpath.join("/", folder, path or "."))
    return "/" + joined.lstrip("/")


def _refuse_stray_bytes(instruction: ins.Instruction, op: Op) -> None:
    """Refuses words that are not UTF-8 where a process or a path would be made of them."""
    words: tuple[str, ...] = ()
    if isinstance(op, RunOp):
        mounts = (text for m in op.mounts for text in (m.target, m.source, m.id, m.env))
        variables = chain.from_iterable((*op.env, *op.hidden_env))
        words = (*op.args, *variables, op.cwd, op.user, *mounts)
    elif isinstance(op, CopyOp):
        names = (file.name for file in op.inline)
        words = (*op.sources, op.dest, op.chown, op.chmod, *op.exclude, *names)
    elif isinstance(op, WorkdirOp):
        words = (op.path, op.user)
    whole = "".join(words)
    if whole.isascii() and "\0" not in whole:
        return
    for word in words:
        if STRAY.search(word):
            raise fault(instruction.span, "it holds bytes that are not UTF-8", hint="save the file as UTF-8")
        if "\0" in word:
            raise fault(instruction.span, "it holds a NUL byte", hint="no path and no argument can have one")


def _given(asked: Platform, base: Platform) -> Platform:
    """The platform of an image whose caller asked for one: the base's variant stays where none was asked."""
    same = (asked.os, asked.architecture) == (base.os, base.architecture)
    return base if same and not asked.variant else asked


__all__ = [
    "NamedContext",
    "PlanOptions",
    "Planner",
    "Resolve",
    "StageState",
    "all_bases",
    "context_name",
    "make_plan",
    "needed_bases",
    "needs_all",
    "plan_together",
    "say_unused",
]
