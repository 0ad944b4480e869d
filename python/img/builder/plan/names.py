"""`Names`: what the names in a Dockerfile mean: bases, platforms, stages, and the variables in them.

FROM sees the stages before it, the last of a name; `--from` sees all, the last of a name, or a number.
`plan.Planner` asks; nothing is resolved here.
Source: Dockerfile reference, "FROM", "ARG", "COPY --from", "ONBUILD".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from img import regex
from img.builder.plan.named import NamedContext, context_name
from img.builder.plan.options import PlanOptions
from img.builder.plan.stages import Use
from img.builder.scope import platform_args
from img.dockerfile import find_stage, referenced, sources
from img.dockerfile import instructions as ins
from img.dockerfile.expand import expand_at, near_variable
from img.dockerfile.faults import fault
from img.errors import InvalidReference, UsageError, without_password
from img.oci import Platform, Reference
from img.values import replace

_NUMBER = regex.compile(r"[+-]?[0-9]+", re.ASCII)


class Names:
    """The names of one Dockerfile, for one caller.

    Attributes:
        outer: ARGs before the first FROM, and the automatic ones, with their values.
        target: The stage that the caller wants.
        used: Names of build arguments that some ARG took.
    """

    def __init__(self, dockerfile: ins.Dockerfile, options: PlanOptions) -> None:
        self.dockerfile = dockerfile
        self.options = options
        self.used: set[str] = set()
        self.target = find_stage(dockerfile, options.target) if options.target else dockerfile.stages[-1]
        self.outer = self._outer()
        self._uses: dict[int, tuple[Use, ...]] = {}
        self._stages: dict[str, list[ins.Stage]] = {}
        for stage in reversed(dockerfile.stages):
            if stage.name:
                self._stages.setdefault(stage.name, []).append(stage)

    def automatic(self) -> dict[str, str]:
        """The automatic ARGs."""
        automatic = platform_args(self.options.platform, self.options.build_platform)
        automatic["TARGETSTAGE"] = self.options.target or self.target.name or "default"
        return automatic

    def _outer(self) -> dict[str, str]:
        """ARGs before the first FROM, and the automatic ones."""
        automatic = self.automatic()
        values = {k: self.options.build_args.get(k, v) for k, v in automatic.items()}
        for arg in self.dockerfile.args:
            for name, default in arg.pairs:
                if name in self.options.build_args:
                    values[name] = self.options.build_args[name]
                    self.used.add(name)
                elif default is not None:
                    values[name] = self._expand(arg, default, values)
        return values

    def base_of(self, stage: ins.Stage) -> str:
        """What a FROM names, variables in place."""
        from_ = stage.from_
        name = self._expand(from_, from_.image, self.outer)
        if not name:
            raise fault(
                from_.span,
                f"the name of the base is empty once {from_.image!r} is expanded",
                at=from_.image,
                hint=self._near(from_.image)
                or "give the ARG a default before FROM, or a value with --build-arg",
            )
        return name

    def platform_of(self, stage: ins.Stage) -> Platform:
        """The platform that a FROM asks for."""
        from_ = stage.from_
        if not from_.platform:
            return self.options.platform
        text = self._expand(from_, from_.platform, self.outer)
        at = from_.platform
        if not text:
            hint = self._near(at) or "give the variable a value before FROM, or leave --platform out"
            raise fault(from_.span, f"the platform is empty once {at!r} is expanded", at=at, hint=hint)
        try:
            return Platform.parse(text)
        except UsageError as error:
            raise fault(from_.span, error.message, at=at, hint=error.hint) from error

    def _near(self, word: str) -> str:
        """The hint `did you mean $NAME?` for the first variable of a word that FROM cannot see."""
        for name in referenced(word, self.dockerfile.escape):
            if name not in self.outer:
                return near_variable(name, self.outer)
        return ""

    def reference(self, span: ins.Span, name: str) -> Reference:
        """Reads an image's name; a mistake points at it."""
        try:
            return Reference.parse(name)
        except InvalidReference as error:
            safe = without_password(name)
            quoted = replace(span, text=span.text.replace(name, safe))
            raise fault(quoted, f"{safe!r} is no image: {error.reason}", at=safe, hint=error.hint) from error

    def uses(self, stage: ins.Stage) -> tuple[Use, ...]:
        """Everything that a stage names, its base first.

        Triggers of a stage that it is built on are its own; those of an image are not known yet.
        """
        if stage.index not in self._uses:
            self._uses[stage.index] = tuple(self._find_all(stage))
        return self._uses[stage.index]

    def _find_all(self, stage: ins.Stage) -> Iterator[Use]:
        self.platform_of(stage)  # one that makes no sense is a mistake, needed or not
        own = self.context(stage.name)
        if own is not None:  # it stands for the whole stage
            below = self._stage_of(own)
            yield Use(at=stage.from_, name=stage.name, written=stage.from_.image, stage=below)
            return
        name = self.base_of(stage)
        named = self.context(name)
        below = self._stage_of(named) if named else self._named(name, before=stage.index)
        yield Use(at=stage.from_, name=name, written=stage.from_.image, stage=below)
        instructions: tuple[ins.Instruction, ...] = stage.instructions
        if below is not None:
            triggers = (i.instruction for i in below.instructions if isinstance(i, ins.Onbuild))
            instructions = (*(found for found in triggers if found), *instructions)
        for instruction in instructions:
            for source in sources(instruction):
                yield self.find(instruction, source)

    def find(self, at: ins.Instruction, written: str) -> Use:
        """Finds what a `--from` means.

        Raises:
            DockerfileError: a variable in it has no value, or it is a number and no stage has it.
        """
        name = self._expand(at, written, self.outer) if "$" in written else written
        if not name:
            hint = (
                self._near(written)
                or "only ARGs before the first FROM, and automatic ones, have a value here"
            )
            flag = "--from" if isinstance(at, ins.Copy) else "from"
            raise fault(at.span, f"{flag}={written} is empty once it is expanded", at=written, hint=hint)
        named = self.context(name)
        if named is not None:
            found = self._stage_of(named)
        else:
            found = self._numbered(at, name, written) or self._named(name, before=self._index_of(at))
            found = found or self._named(name)
        return Use(at=at, name=name, written=written, stage=found)

    def _index_of(self, at: ins.Instruction) -> int:
        """The number of the stage that an instruction stands in."""
        line = at.span.start
        return max((s.index for s in self.dockerfile.stages if s.from_.span.start <= line), default=0)

    def _named(self, name: str, before: int | None = None) -> ins.Stage | None:
        """The last stage of a name, among all or among those before a number."""
        found = self._stages.get(name.lower(), [])
        return next((stage for stage in found if before is None or stage.index < before), None)

    def context(self, name: str) -> NamedContext | None:
        """What the caller put in the place of a stage or image of this name."""
        if not name or not self.options.contexts:
            return None
        return self.options.contexts.get(context_name(name))

    def _stage_of(self, named: NamedContext) -> ins.Stage | None:
        """The stage that a named context is, where it is one."""
        return find_stage(self.dockerfile, named.stage) if named.kind == "stage" else None

    def _numbered(self, at: ins.Instruction, name: str, written: str) -> ins.Stage | None:
        if not _NUMBER.fullmatch(name):
            return None
        stages = self.dockerfile.stages
        number = int(name) if len(name) < 10 else -1
        if not 0 <= number < len(stages):
            last = len(stages) - 1
            hint = f"stages are numbered from 0 to {last}" if last else "there is one stage, number 0"
            raise fault(at.span, f"there is no stage {name}", at=written, hint=hint)
        return stages[number]

    def _expand(self, instruction: ins.Instruction, word: str, variables: Mapping[str, str]) -> str:
        return expand_at(instruction.span, word, variables, self.dockerfile.escape)
