"""`make_outline` and `list_targets`: what a Dockerfile offers to whoever builds it. Pure.

The engine calls them for `--call=outline` and `--call=targets`. No base is resolved: what a default
takes from a base's environment stays as it is written.
Source: Docker documentation, `docker buildx build --call`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from img.builder.plan.names import Names
from img.builder.plan.options import PlanOptions
from img.builder.scope import Scope
from img.dockerfile import ExpandError, expand, referenced
from img.dockerfile import instructions as ins
from img.dockerfile.faults import printable
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineArg:
    """A build argument. `value` is its default, or what the caller gave; None where it has neither."""

    name: str
    value: str | None = None
    description: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineMount:
    """A secret, an ssh agent or a cache that a RUN uses, by its id."""

    name: str
    required: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What the build of one target takes.

    Attributes:
        name: The target's; empty where it has none.
        description: From the comment above its FROM, `# name description`.
    """

    name: str
    description: str = ""
    args: tuple[OutlineArg, ...] = ()
    secrets: tuple[OutlineMount, ...] = ()
    ssh: tuple[OutlineMount, ...] = ()
    caches: tuple[OutlineMount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A stage that can be asked for.

    Attributes:
        name: Empty where it has none.
        default: It is built where no target is named.
        base: What its FROM names.
        platform: What its FROM says, variables in place, or empty.
    """

    name: str
    default: bool = False
    description: str = ""
    base: str = ""
    platform: str = ""
    line: int = 0


def list_targets(dockerfile: ins.Dockerfile, options: PlanOptions) -> tuple[Target, ...]:
    """Lists the stages, in order.

    Raises:
        DockerfileError: a FROM names nothing once its variables are in place.
    """
    names = Names(dockerfile, options)
    targets = []
    for stage in dockerfile.stages:
        targets.append(
            Target(
                name=stage.name,
                default=stage is dockerfile.stages[-1],
                description=_description(dockerfile, stage.from_, stage.name),
                base=printable(names.base_of(stage)),
                platform=str(names.platform_of(stage)) if stage.from_.platform else "",
                line=stage.from_.span.start,
            )
        )
    return tuple(targets)


def make_outline(dockerfile: ins.Dockerfile, options: PlanOptions) -> Outline:
    """Tells what the target takes, and every stage that it needs.

    Raises:
        DockerfileError: there is no such target, or a FROM names nothing.
    """
    names = Names(dockerfile, options)
    outline = _Outlining(names)
    outline.stage(names.target)
    return Outline(
        name=names.target.name,
        description=_description(dockerfile, names.target.from_, names.target.name),
        args=tuple(sorted(outline.args.values(), key=lambda arg: arg.line)),
        secrets=tuple(outline.mounts["secret"].values()),
        ssh=tuple(outline.mounts["ssh"].values()),
        caches=tuple(outline.mounts["cache"].values()),
    )


def _description(dockerfile: ins.Dockerfile, at: ins.Instruction, name: str) -> str:
    """What a comment right above says about a name."""
    comments = dockerfile.comments.get(at.span.start, ()) if name else ()
    about = (text.removeprefix(f"{name} ") for text in comments if text.startswith(f"{name} "))
    return printable(next(about, "").strip())


class _Outlining:
    """Walks from the target over the stages that it needs, each once, and gathers what they take."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.args: dict[str, OutlineArg] = {}
        self.mounts: dict[str, dict[str, OutlineMount]] = {"secret": {}, "ssh": {}, "cache": {}}
        self.scopes: dict[int, Scope] = {}

    def stage(self, stage: ins.Stage) -> Scope:
        """Gathers from a stage and from all below it; gives its variables at its end."""
        if stage.index in self.scopes:
            return self.scopes[stage.index]
        names = self.names
        below = names.uses(stage)[0].stage
        if below is None:
            scope = Scope(outer=names.outer, build_args=names.options.build_args)
        else:
            scope = self.stage(below).inherit()
        self.scopes[stage.index] = scope
        self._head(stage)
        for instruction in stage.instructions:
            if isinstance(instruction, ins.Arg):
                self._arg(scope, instruction)
            elif isinstance(instruction, ins.Env):
                env = {name: self._value(value, scope) for name, value in instruction.pairs}
                scope.set_env(env)
            elif isinstance(instruction, ins.Run):
                self._run(stage, scope, instruction)
            elif isinstance(instruction, ins.Copy) and instruction.from_:
                self._other(instruction, instruction.from_)
        return scope

    def _other(self, at: ins.Instruction, name: str) -> None:
        found = self.names.find(at, name).stage
        if found is not None:
            self.stage(found)

    def _head(self, stage: ins.Stage) -> None:
        """The ARGs before the first FROM that this FROM uses, and those that they use."""
        from_ = stage.from_
        wanted = set(_names((from_.image, from_.platform), self.names.dockerfile.escape))
        for arg in reversed(self.names.dockerfile.args):
            for name, default in arg.pairs:
                if name in wanted:
                    wanted |= set(_names((default or "",), self.names.dockerfile.escape))
                    self._add(arg, name, self.names.outer.get(name))

    def _arg(self, scope: Scope, arg: ins.Arg) -> None:
        for name, default in arg.pairs:
            scope.declare(name, None if default is None else partial(self._value, default, scope))
            head = next((a for a in self.names.dockerfile.args for n, _ in a.pairs if n == name), None)
            inherited = head if default is None else None
            itself = default is None and name in self.names.automatic()
            if itself and head is None and name not in self.names.options.build_args:
                continue  # a platform's name, which nobody needs to give
            self._add(inherited or arg, name, scope.args.get(name), also=arg)

    def _add(self, arg: ins.Arg, name: str, value: str | None, *, also: ins.Arg | None = None) -> None:
        """Takes an ARG in; a later one of the name counts, but a description is kept."""
        said = [_description(self.names.dockerfile, at, name) for at in (also or arg, arg)]
        known = self.args.get(name)
        description = next((text for text in said if text), known.description if known else "")
        self.args[name] = OutlineArg(
            name=printable(name),
            value=None if value is None else printable(value),
            description=description,
            line=arg.span.start,
        )

    def _run(self, stage: ins.Stage, scope: Scope, run: ins.Run) -> None:
        for mount in run.mounts:
            options = {name: self._value(value, scope) for name, value in mount.options}
            kind = options["type"].lower()
            if options.get("from"):
                self._other(run, options["from"])
            if kind not in self.mounts:
                continue
            name = _id_of(kind, options)
            required = options.get("required", "false").lower() == "true"
            known = self.mounts[kind].get(name)
            if known is None or (required and not known.required):
                line = known.line if known else run.span.start
                self.mounts[kind][name] = OutlineMount(name=name, required=required, line=line)

    def _value(self, word: str, scope: Scope) -> str:
        """A word with its variables in place, or as it is written where that cannot be."""
        try:
            return printable(expand(word, scope.variables, self.names.dockerfile.escape))
        except ExpandError:
            return printable(word)


def _id_of(kind: str, options: dict[str, str]) -> str:
    """A mount's id. Source: Dockerfile reference, "RUN --mount": what it is by default."""
    if options.get("id"):
        return options["id"]
    if kind == "ssh":
        return "default"
    path = options.get("source") or options.get("target") or options.get("env", "")
    return path.rpartition("/")[2] if kind == "secret" else options.get("target", "")


def _names(words: Sequence[str], escape: str) -> Iterator[str]:
    for word in words:
        yield from referenced(word, escape)
