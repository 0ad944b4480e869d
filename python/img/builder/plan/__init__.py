"""`make_plan`: from a parsed Dockerfile to a `BuildGraph`. Pure, but for the bases it is handed.

Stages are planned from the target backwards, so a stage that nothing needs is never looked at and its
base never resolved. Variables are expanded here, and only here; after this, nobody reads Dockerfile
text again.
Source: Dockerfile reference; the semantics of each instruction in the section of its name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from img.builder.configure import configure
from img.builder.graph import (
    BuildGraph,
    ConfigOp,
    CopyOp,
    CopyPart,
    GitOp,
    HistoryLine,
    HttpOp,
    Node,
    Op,
    RunOp,
    SourceOp,
    TreeOp,
    WorkdirOp,
)
from img.builder.plan.copy import copy_title, plan_copy
from img.builder.plan.named import NamedContext, context_name
from img.builder.plan.run import plan_run
from img.builder.scope import PROXIES, Scope, platform_args
from img.dockerfile import find_stage, parse_trigger, stage_named
from img.dockerfile import instructions as ins
from img.dockerfile.expand import expand_at
from img.dockerfile.faults import fault, without_passwords
from img.errors import InvalidReference, UsageError
from img.oci import Image, ImageConfig, Platform, Reference
from img.oci.config import DEFAULT_PATH

SCRATCH = "scratch"

Resolve = Callable[[Reference, Platform], Image]
"""Gives the image of a name, pinned; raises RegistryError or StoreError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the caller asks for, besides the Dockerfile.

    Attributes:
        contexts: Named contexts by `context_name`.
        allow: Entitlements: `security.insecure`, `network.host`.
        network: For a RUN that names none.
    """

    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=Platform.host)
    build_platform: Platform = field(default_factory=Platform.host)
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    network: str = "default"


@dataclass(slots=True)
class StageState:
    """A stage as far as it is planned; `node` is what it stands on now."""

    scope: Scope
    config: ImageConfig
    node: int
    platform: Platform
    history: list[HistoryLine] = field(default_factory=list)
    command_set: bool = False

    def child(self) -> StageState:
        """The state of a stage that is built on this one."""
        return StageState(
            scope=self.scope.inherit(),
            config=self.config,
            node=self.node,
            platform=self.platform,
            history=list(self.history),
        )


def make_plan(dockerfile: ins.Dockerfile, options: PlanOptions, resolve: Resolve) -> BuildGraph:
    """Plans a build.

    Args:
        resolve: Called for each base that the target needs, once.
    Raises:
        DockerfileError: something in the Dockerfile makes no sense; with its place.
    """
    return Planner(dockerfile, options, resolve).plan()


def needed_bases(dockerfile: ins.Dockerfile, options: PlanOptions) -> list[tuple[Reference, Platform]]:
    """The images that planning will ask for, as far as can be told without having them.

    For fetching them side by side; ONBUILD triggers of a base may add to them.
    """
    planner = Planner(dockerfile, options, _no_resolver)
    wanted: dict[tuple[Reference, Platform], None] = {}
    pending = [planner.target]
    seen: set[int] = set()
    while pending:
        stage = pending.pop()
        if stage.index in seen:
            continue
        seen.add(stage.index)
        own = planner.named_context(stage.name)
        if own is not None:
            pending.extend([find_stage(dockerfile, own.stage)] if own.kind == "stage" else [])
            continue
        name, platform = planner.base_of(stage)
        below = stage_named(dockerfile, name, before=stage.index)
        overriding = planner.named_context(name)
        if overriding is not None:
            pending.extend([find_stage(dockerfile, overriding.stage)] if overriding.kind == "stage" else [])
        elif below is not None:
            pending.append(below)
        elif name != SCRATCH:
            wanted[planner.reference(stage.from_.span, name), platform] = None
        for instruction in stage.instructions:
            if isinstance(instruction, ins.Copy) and instruction.from_:
                named = planner.named_context(instruction.from_)
                if named is not None:
                    pending.extend([find_stage(dockerfile, named.stage)] if named.kind == "stage" else [])
                    continue
                source = planner.stage_at(instruction.from_, before=stage.index)
                if source is not None:
                    pending.append(source)
                elif instruction.from_ != SCRATCH:
                    reference = planner.reference(instruction.span, instruction.from_)
                    wanted[reference, options.platform] = None
    return list(wanted)


def _no_resolver(reference: Reference, platform: Platform) -> Image:
    raise AssertionError("needed_bases resolves nothing")


class Planner:
    """Carries the nodes and the finished stages while one plan is made."""

    def __init__(self, dockerfile: ins.Dockerfile, options: PlanOptions, resolve: Resolve) -> None:
        self.dockerfile = dockerfile
        self.options = options
        self.resolve = resolve
        self.nodes: list[Node] = []
        self.states: dict[int, StageState] = {}
        self.images: dict[tuple[Reference, Platform], tuple[int, Image]] = {}
        self.named: dict[tuple[str, Platform], tuple[int, Image | None]] = {}
        self.fetches: dict[HttpOp | GitOp, int] = {}
        self.planning: list[ins.Stage] = []
        self.warnings: list[str] = []
        self.used: set[str] = set()
        self.outer = self._outer()
        self.target = find_stage(dockerfile, options.target) if options.target else dockerfile.stages[-1]

    def plan(self) -> BuildGraph:
        state = self.stage(self.target)
        config = state.config
        if self.options.labels:
            config = config.with_run(Labels={**config.labels, **self.options.labels})
        unused = set(self.options.build_args) - self.used - PROXIES
        unused = {name for name in unused if not name.startswith("BUILDKIT_") and name != "SOURCE_DATE_EPOCH"}
        if unused:
            self.warnings.append(f"build arguments that no ARG takes: {', '.join(sorted(unused))}")
        return BuildGraph(
            nodes=tuple(self.nodes),
            target=state.node,
            config=config,
            history=tuple(state.history),
            warnings=tuple(self.warnings),
        )

    # ---- names -------------------------------------------------------------------------------

    def _outer(self) -> dict[str, str]:
        """ARGs before the first FROM, and the automatic ones."""
        automatic = platform_args(self.options.platform, self.options.build_platform)
        automatic["TARGETSTAGE"] = self.options.target or "default"
        values = {k: self.options.build_args.get(k, v) for k, v in automatic.items()}
        for arg in self.dockerfile.args:
            for name, default in arg.pairs:
                if name in self.options.build_args:
                    values[name] = self.options.build_args[name]
                    self.used.add(name)
                elif default is not None:
                    values[name] = self.expand(arg, default, values)
        return values

    def expand(self, instruction: ins.Instruction, word: str, variables: Mapping[str, str]) -> str:
        """Expands a word; a mistake points at the instruction."""
        return expand_at(instruction.span, word, variables, self.dockerfile.escape)

    def base_of(self, stage: ins.Stage) -> tuple[str, Platform]:
        """What a FROM names, variables in place, and for which platform."""
        from_ = stage.from_
        name = self.expand(from_, from_.image, self.outer)
        if not name:
            raise fault(
                from_.span,
                f"the name of the base is empty once {from_.image!r} is expanded",
                at=from_.image,
                hint="give the ARG a default before FROM, or a value with --build-arg",
            )
        platform = self.options.platform
        if from_.platform:
            text = self.expand(from_, from_.platform, self.outer)
            try:
                platform = Platform.parse(text)
            except UsageError as error:
                raise fault(from_.span, error.message, at=from_.platform, hint=error.hint) from error
        return name, platform

    def reference(self, span: ins.Span, name: str) -> Reference:
        """Reads an image's name; a mistake points at it."""
        try:
            return Reference.parse(name)
        except InvalidReference as error:
            raise fault(span, f"{name!r} is no image: {error.reason}", at=name) from error

    def stage_at(self, name: str, *, before: int) -> ins.Stage | None:
        """The earlier stage that `--from` names or numbers; None where it must be an image."""
        found = stage_named(self.dockerfile, name, before=before)
        if found is None and name.isascii() and name.isdecimal() and int(name) < before:
            return self.dockerfile.stages[int(name)]
        return found

    # ---- stages ------------------------------------------------------------------------------

    def stage(self, stage: ins.Stage) -> StageState:
        """Plans a stage, once."""
        if stage.index not in self.states:
            self._enter(stage)
            own = self.named_context(stage.name)
            if own is not None:
                self.states[stage.index] = self._begin_named(stage, stage.name, own, self.base_of(stage)[1])
                self.planning.pop()
                return self.states[stage.index]
            state = self._begin(stage)
            for trigger in state.config.words("OnBuild") or ():
                self._step(stage, state, parse_trigger(trigger, where=stage.from_.span))
            state.config = state.config.with_run(OnBuild=None)
            for instruction in stage.instructions:
                self._step(stage, state, instruction)
            self.used |= state.scope.used
            self.states[stage.index] = state
            self.planning.pop()
        return self.states[stage.index]

    def _enter(self, stage: ins.Stage) -> None:
        """Refuses a stage that stands on itself, which only a named context can bring about."""
        if stage in self.planning:
            names = [s.name or str(s.index) for s in (*self.planning, stage)]
            raise fault(
                stage.from_.span,
                f"the stages go round in a circle: {' -> '.join(names)}",
                hint="a named context (--build-context) names a stage that is built on it",
            )
        self.planning.append(stage)

    def _begin(self, stage: ins.Stage) -> StageState:
        name, platform = self.base_of(stage)
        named = self.named_context(name)
        if named is not None:
            return self._begin_named(stage, name, named, platform)
        below = stage_named(self.dockerfile, name, before=stage.index)
        if below is not None:
            return self.stage(below).child()
        if name == SCRATCH:
            return self._scratch(stage, platform)
        node, image = self.image(stage, stage.from_, name, platform)
        self._warn_platform(stage, name, image.config, platform)
        return self._fresh(image.config, node, platform)

    def _fresh(self, config: ImageConfig, node: int, platform: Platform) -> StageState:
        scope = Scope(outer=self.outer, build_args=self.options.build_args, env=dict(config.env))
        return StageState(scope=scope, config=config, node=node, platform=platform)

    def _warn_platform(self, stage: ins.Stage, name: str, config: ImageConfig, platform: Platform) -> None:
        wanted = config.platform
        if wanted.os and wanted.architecture and not platform.accepts(wanted):
            self.warnings.append(f"{stage.from_.span.where}: {name} is for {wanted}, not for {platform}")

    def _begin_named(
        self, stage: ins.Stage, name: str, named: NamedContext, platform: Platform
    ) -> StageState:
        """A stage that begins with a named context: with an image, a stage, or the files of a tree."""
        if named.kind == "stage":
            return self.stage(find_stage(self.dockerfile, named.stage)).child()
        node, image = self._named(stage, stage.from_, name, named, platform)
        if image is not None:
            self._warn_platform(stage, name, image.config, platform)
            return self._fresh(image.config, node, platform)
        state = self._scratch(stage, platform)
        op = CopyOp(parts=(CopyPart(patterns=(".",), input=1),), dest="/")
        state.node = self.add(stage, op, (state.node, node), f"FROM {name}", stage.from_)
        state.history.append(HistoryLine(created_by=f"FROM {name}", node=state.node))
        return state

    def _scratch(self, stage: ins.Stage, platform: Platform) -> StageState:
        config = ImageConfig.scratch(platform).with_run(Env=[f"PATH={DEFAULT_PATH}"], WorkingDir="/")
        node = self.add(stage, SourceOp(name=SCRATCH), (), f"FROM {SCRATCH}", stage.from_)
        return self._fresh(config, node, platform)

    def image(
        self, stage: ins.Stage, at: ins.Instruction, name: str, platform: Platform
    ) -> tuple[int, Image]:
        """A node for an image, once for each name and platform."""
        reference = self.reference(at.span, name)
        if (reference, platform) not in self.images:
            image = self.resolve(reference, platform)
            op = SourceOp(image=image, name=str(reference))
            node = self.add(stage, op, (), f"FROM {reference.familiar}", at)
            self.images[reference, platform] = (node, image)
        return self.images[reference, platform]

    def source_node(self, stage: ins.Stage, at: ins.Instruction, name: str) -> int:
        """The node that `--from=name` or `from=name` reads: a stage, a named context, or an image."""
        named = self.named_context(name)
        if named is not None and named.kind == "stage":
            return self.stage(find_stage(self.dockerfile, named.stage)).node
        if named is not None:
            return self._named(stage, at, name, named, self.options.platform)[0]
        source = self.stage_at(name, before=stage.index)
        if source is not None:
            return self.stage(source).node
        if name.isdecimal() or name.lower() == stage.name:
            raise fault(
                at.span,
                f"--from={name} names no earlier stage",
                at=name,
                hint=f"stages are numbered from 0; this is stage {stage.index}",
            )
        if name == SCRATCH:
            return self.add(stage, SourceOp(name=SCRATCH), (), f"FROM {SCRATCH}", at)
        return self.image(stage, at, name, self.options.platform)[0]

    def named_context(self, name: str) -> NamedContext | None:
        """What the caller put in the place of a stage or image of this name."""
        if not name or not self.options.contexts:
            return None
        return self.options.contexts.get(context_name(name))

    def _named(
        self, stage: ins.Stage, at: ins.Instruction, name: str, named: NamedContext, platform: Platform
    ) -> tuple[int, Image | None]:
        """The node of a named context and its image, if it is one; once for each name and platform."""
        key = (context_name(name), platform)
        if key not in self.named:
            image = named.image(platform) if named.image is not None else None
            op: Op = TreeOp(name=key[0]) if image is None else SourceOp(image=image, name=name)
            self.named[key] = (self.add(stage, op, (), f"CONTEXT {name}", at), image)
        return self.named[key]

    def add(self, stage: ins.Stage, op: Op, inputs: tuple[int, ...], title: str, at: ins.Instruction) -> int:
        number = len(self.nodes)
        label = stage.name or str(stage.index)
        self.nodes.append(Node(number=number, op=op, inputs=inputs, title=title, stage=label, span=at.span))
        return number

    # ---- instructions ------------------------------------------------------------------------

    def _step(self, stage: ins.Stage, state: StageState, instruction: ins.Instruction) -> None:
        """Plans one instruction: its node, its config, its line of history."""
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
            state.config = state.config.with_run(WorkingDir=path)
        elif isinstance(instruction, ins.Arg):
            self._arg(state, instruction)
        else:
            self._configure(state, instruction)
        _refuse_stray_bytes(instruction, op)
        state.node = self.add(stage, op, inputs, title, instruction)
        state.history.append(HistoryLine(created_by=created_by, node=state.node))

    def _configure(self, state: StageState, instruction: ins.Instruction) -> None:
        def expand(word: str) -> str:
            return self.expand(instruction, word, state.scope.variables)

        state.config = configure(state.config, instruction, expand, command_set=state.command_set)
        if isinstance(instruction, ins.Cmd):
            state.command_set = True
        if isinstance(instruction, ins.Env):
            state.scope.env = dict(state.config.env)

    def _arg(self, state: StageState, instruction: ins.Arg) -> None:
        variables = state.scope.variables
        for name, default in instruction.pairs:
            value = None if default is None else self.expand(instruction, default, variables)
            state.scope.declare(name, value)

    def absolute(self, state: StageState, path: str) -> str:
        """A path made absolute from the working folder, `..` clamped at the root."""
        joined = posixpath.normpath(posixpath.join("/", state.config.working_dir, path or "."))
        return "/" + joined.lstrip("/")


def _refuse_stray_bytes(instruction: ins.Instruction, op: Op) -> None:
    """Refuses words that are not UTF-8 where a process or a path would be made of them."""
    words: tuple[str, ...] = ()
    if isinstance(op, RunOp):
        words = (*op.args, *(text for pair in (*op.env, *op.hidden_env) for text in pair), op.cwd, op.user)
    elif isinstance(op, CopyOp):
        names = (file.name for file in op.inline)
        words = (*op.sources, op.dest, op.chown, op.chmod, *op.exclude, *names)
    elif isinstance(op, WorkdirOp):
        words = (op.path, op.user)
    for word in words:
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise fault(instruction.span, "it holds bytes that are not UTF-8", hint="save the file as UTF-8")


__all__ = [
    "NamedContext",
    "PlanOptions",
    "Planner",
    "Resolve",
    "StageState",
    "context_name",
    "make_plan",
    "needed_bases",
]
