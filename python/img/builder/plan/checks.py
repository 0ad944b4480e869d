"""`PlanChecks`: the checks that follow a build: they know the variables, the bases, the platform.

`plan.Planner` tells it of every base and of every instruction of the stages that it plans, before
the instruction takes effect, and asks for the findings at the end. It changes nothing of the plan.
The checks that need the text alone are in `dockerfile.checks`.
Source: Docker documentation, "Build checks".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from img import regex
from img.builder.plan.names import Names
from img.dockerfile import checks, near
from img.dockerfile import instructions as ins
from img.dockerfile.checks import finding, keyword_of
from img.dockerfile.expand import ExpandError, expand, expand_heredoc
from img.dockerfile.findings import Finding
from img.dockerfile.ports import host_part, protocol_part
from img.dockerfile.words import quoted_words
from img.errors import DockerfileError, InvalidReference, UsageError
from img.oci import Image, ImageConfig, Platform, Reference
from img.values import dataclass, field, replace

if TYPE_CHECKING:
    from img.builder.draft import ConfigDraft
    from img.builder.plan import Planner, StageState

UNKNOWN_BASE = "img.unknown-base"
"""A field of a config that stands for one which could not be had, and of all that is built on it."""

_SECRET = regex.compile(
    r"(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)",
    re.IGNORECASE,
)
_HARMLESS = regex.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_ANY_NAME = "\0\0"
"""Stands for the whole context: no pattern of an ignore file matches it that does not match every name."""

_ONCE = (ins.Cmd, ins.Entrypoint, ins.Healthcheck)
_SILENT_NAMES = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


def unknown_base(platform: Platform) -> Image:
    """Stands for a base that cannot be had: the checks that would need it stay silent."""
    return Image.make(ImageConfig(platform=platform, extra={UNKNOWN_BASE: True}), ())


@dataclass(slots=True)
class _StageFacts:
    """What the checks remember of a stage: names that an ARG declares, and what may stand once."""

    declared: set[str] = field(default_factory=set)
    workdir: bool = False
    once: dict[type[ins.Instruction], ins.Instruction] = field(default_factory=dict)


class PlanChecks:
    """Collects findings while one plan is made."""

    def __init__(self, planner: Planner) -> None:
        """Reads which checks are wanted.

        Raises:
            DockerfileError: the check directive cannot be read. UsageError: the build argument cannot.
        """
        self.planner = planner
        self.options, found = checks.check_options(planner.dockerfile, planner.options.build_args)
        self._found = list(found)
        self._stages: dict[int, _StageFacts] = {}

    def findings(self) -> tuple[Finding, ...]:
        """What was found so far and is wanted, each once, in the order of the lines."""
        return self.options.sift(self._found)

    def fatal(self) -> tuple[Finding, ...]:
        """The findings that fail the build, because the Dockerfile wants it so."""
        return self.options.fatal(self.findings())

    # ---- the whole file --------------------------------------------------------------------------

    def file(self) -> None:
        """Checks what needs no plan: the text, and every FROM with its variables."""
        dockerfile = self.planner.dockerfile
        self._found += checks.check_text(dockerfile)
        self._found += self._default_bases()
        for stage in dockerfile.stages:
            self._found += self._undeclared(stage.from_, stage.from_.image)
            self._found += self._platform(stage)

    def habits(self) -> None:
        """Looks for what is worth a hint; a build, which shows none, need not."""
        from img.dockerfile.checks.habits import check_habits  # no build pays for the import

        self._found += check_habits(self.planner.dockerfile)

    def _default_bases(self) -> Iterator[Finding]:
        """InvalidDefaultArgInFrom: what FROM names when the caller gives nothing."""
        planner = self.planner
        given = {k: v for k, v in planner.options.build_args.items() if k in planner.names.automatic()}
        try:
            options = replace(planner.options, build_args=given)
            variables = Names(planner.dockerfile, options).outer
        except (DockerfileError, UsageError):
            return  # the plan itself says so
        for stage in planner.dockerfile.stages:
            words = stage.from_.image
            try:
                Reference.parse(self._expand(words, variables))
            except ExpandError:
                return
            except InvalidReference:
                text, mend = f"with the defaults of its ARGs alone, {words} is no image's name", ""
                if words.lower() in {s.name for s in planner.dockerfile.stages[: stage.index] if s.name}:
                    text = f"docker takes {words} for an image's name, since no stage's has a capital"
                    mend = f"write {words.lower()}"
                yield finding("InvalidDefaultArgInFrom", stage.from_.span, text, mend=mend)

    def _undeclared(self, from_: ins.From, word: str) -> Iterator[Finding]:
        """UndefinedArgInFrom."""
        outer = self.planner.names.outer
        declared = {name for arg in self.planner.dockerfile.args for name, _ in arg.pairs} | set(outer)
        for name in self._look_up(word, outer).missing:
            if name not in declared:
                yield finding(
                    "UndefinedArgInFrom",
                    from_.span,
                    f"FROM uses {name}, which no ARG above it declares{_did_you_mean(name, declared)}",
                )

    def _platform(self, stage: ins.Stage) -> Iterator[Finding]:
        """RedundantTargetPlatform and FromPlatformFlagConstDisallowed."""
        from_, outer = stage.from_, self.planner.names.outer
        if not from_.platform:
            return
        yield from self._undeclared(from_, from_.platform)
        asked = self._look_up(from_.platform, outer)
        try:
            value = self._expand(from_.platform, outer)
            if not asked.found and not asked.missing:
                platform = Platform.parse(value)
                if platform.os in stage.name or platform.architecture in stage.name:
                    return
                yield finding(
                    "FromPlatformFlagConstDisallowed",
                    from_.span,
                    f"--platform={value} is the same for every platform that is built for",
                )
        except (ExpandError, UsageError):
            return  # the plan itself says so
        if asked.found == {"TARGETPLATFORM"} and not asked.missing and value == outer["TARGETPLATFORM"]:
            yield finding(
                "RedundantTargetPlatform", from_.span, f"--platform={from_.platform} is what FROM does anyway"
            )

    # ---- the stages of the plan ------------------------------------------------------------------

    def base(self, stage: ins.Stage, name: str, wanted: Platform, image: Platform) -> None:
        """Checks a base that was resolved: InvalidBaseImagePlatform."""
        if not image.os or not image.architecture:
            return
        if (wanted.os, wanted.architecture) != (image.os, image.architecture):
            text = f"{name} is for {image}, not for {wanted}"
            self._found.append(finding("InvalidBaseImagePlatform", stage.from_.span, text))

    def step(self, stage: ins.Stage, state: StageState, instruction: ins.Instruction) -> None:
        """Checks an instruction with the variables that it will see."""
        facts = self._facts(stage)
        kind = type(instruction)
        if kind in (ins.Arg, ins.Copy) or "$" in instruction.original:
            self._found += self._variables(facts, state, instruction)
        if isinstance(instruction, (ins.Arg, ins.Env, ins.Label)):
            self._found += _pairs(instruction, self.planner.dockerfile.escape)
        if kind in _ONCE:
            self._found += _once(facts, instruction)
        if isinstance(instruction, (ins.Cmd, ins.Entrypoint)):
            self._found += _exec_form(state.config, instruction)
        elif isinstance(instruction, ins.Workdir):
            self._found += self._workdir(facts, state, instruction)
        elif isinstance(instruction, ins.Expose):
            self._found += self._ports(state, instruction)
        elif isinstance(instruction, ins.Copy):
            self._found += self._ignored(state, instruction)

    def _facts(self, stage: ins.Stage) -> _StageFacts:
        """What is known of a stage; at first, what the stage below it left."""
        if stage.index not in self._stages:
            facts = _StageFacts()
            below = self.planner.names.uses(stage)[0].stage
            if below is not None:
                under = self._facts(below)
                facts = _StageFacts(declared=set(under.declared), workdir=under.workdir)
            self._stages[stage.index] = facts
        return self._stages[stage.index]

    def _variables(
        self, facts: _StageFacts, state: StageState, instruction: ins.Instruction
    ) -> Iterator[Finding]:
        """UndefinedVar."""
        bodies = (
            [h.content for h in instruction.heredocs if h.expand] if isinstance(instruction, ins.Copy) else []
        )
        asks = "$" in instruction.original or any("$" in body for body in bodies)
        variables = state.scope.variables if asks else {}
        missing: dict[str, None] = {}
        if isinstance(instruction, ins.Arg):
            missing = self._defaults(facts, instruction, variables)
        elif asks:
            for word in _expanded_words(instruction):
                missing.update(self._look_up(word, variables).missing)
            for body in bodies:
                missing.update(_look_up_heredoc(body, variables).missing)
            missing = {name: None for name in missing if name not in facts.declared}
        if UNKNOWN_BASE in state.config.extra:
            return
        for name in missing:
            if name not in _SILENT_NAMES:
                text = f"${name} has no value here{_did_you_mean(name, variables, sign='$')}"
                yield finding("UndefinedVar", instruction.span, text)

    def _defaults(self, facts: _StageFacts, arg: ins.Arg, variables: Mapping[str, str]) -> dict[str, None]:
        """What the defaults of an ARG ask for in vain; one that the caller replaces asks for nothing."""
        missing: dict[str, None] = {}
        for name, default in arg.pairs:
            if default is not None and name not in self.planner.options.build_args:
                asked = self._look_up(default, variables).missing
                missing.update({wanted: None for wanted in asked if wanted not in facts.declared})
            facts.declared.add(name)
        return missing

    def _workdir(self, facts: _StageFacts, state: StageState, workdir: ins.Workdir) -> Iterator[Finding]:
        """WorkdirRelativePath: only the first of a build, since mending that one mends the others."""
        first, facts.workdir = not facts.workdir, True
        try:
            path = self._expand(workdir.path, state.scope.variables)
        except ExpandError:
            return
        if first and not path.startswith("/"):
            yield finding(
                "WorkdirRelativePath", workdir.span, f"where {path!r} leads depends on the base's own WORKDIR"
            )

    def _ports(self, state: StageState, expose: ins.Expose) -> Iterator[Finding]:
        """ExposeProtoCasing and ExposeInvalidFormat."""
        for word in expose.ports:
            try:
                ports = self._expand(word, state.scope.variables).split()
            except ExpandError:
                return
            for port in ports:
                if protocol_part(port) != protocol_part(port).lower():
                    yield finding(
                        "ExposeProtoCasing", expose.span, f"the protocol of {port} should be in lower case"
                    )
                if host_part(port):
                    text = f"{port} names an address or a port of the host, which EXPOSE has no use for"
                    yield finding("ExposeInvalidFormat", expose.span, text)

    def _ignored(self, state: StageState, copy: ins.Copy) -> Iterator[Finding]:
        """CopyIgnoredFile."""
        ignored = self.planner.options.ignored
        if copy.from_ or ignored is None:
            return
        for word in copy.sources:
            try:
                source = self._expand(word, state.scope.variables)
            except ExpandError:
                return
            if "://" in source or source.startswith("git@"):
                continue
            path = posixpath.normpath("/" + source).lstrip("/")
            if ignored(path or _ANY_NAME):
                name = "ADD" if copy.add else "COPY"
                what = f"{path!r}, which" if path else "the context, all of which"
                yield finding("CopyIgnoredFile", copy.span, f"{name} names {what} the ignore file takes away")

    # ---- words -----------------------------------------------------------------------------------

    def _expand(self, word: str, variables: Mapping[str, str]) -> str:
        return expand(word, variables, self.planner.dockerfile.escape)

    def _look_up(self, word: str, variables: Mapping[str, str]) -> _Lookups:
        lookups = _Lookups(variables)
        if "$" in word:
            try:
                self._expand(word, lookups)
            except ExpandError:
                pass  # the plan itself says so
        return lookups


class _Lookups(Mapping[str, str]):
    """Variables that remember which names they were asked for, and had (`found`) or not (`missing`)."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.found: set[str] = set()
        self.missing: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self.variables:
            self.missing[name] = None
        else:
            self.found.add(name)
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


def _look_up_heredoc(content: str, variables: Mapping[str, str]) -> _Lookups:
    lookups = _Lookups(variables)
    try:
        expand_heredoc(content, lookups)
    except ExpandError:
        pass  # the plan itself says so
    return lookups


def _expanded_words(instruction: ins.Instruction) -> Iterable[str]:
    """The words of an instruction in which variables stand for their values.

    Those of ARG and the bodies of here-documents have ways of their own; BuildKit looks at none of EXPOSE.
    """
    if isinstance(instruction, (ins.Env, ins.Label)):
        return [word for pair in instruction.pairs for word in pair]
    if isinstance(instruction, ins.Copy):
        copy = instruction
        return (*copy.sources, copy.dest, copy.chown, copy.chmod, copy.checksum)
    if isinstance(instruction, ins.Run):
        return [value for mount in instruction.mounts for name, value in mount.options if name != "from"]
    if isinstance(instruction, ins.Volume):
        return instruction.paths
    for kind, name in ((ins.User, "user"), (ins.Workdir, "path"), (ins.StopSignal, "signal")):
        if isinstance(instruction, kind):
            return (str(getattr(instruction, name)),)
    return ()


def names_a_secret(name: str) -> bool:
    """Tells whether a variable's name says that its value is a secret."""
    return bool(_SECRET.search(name)) and not _HARMLESS.search(name)


def _pairs(instruction: ins.Arg | ins.Env | ins.Label, escape: str) -> Iterator[Finding]:
    """LegacyKeyValueFormat and SecretsUsedInArgOrEnv."""
    keyword = keyword_of(instruction).upper()
    if not isinstance(instruction, ins.Arg) and _is_legacy(instruction, escape):
        name = instruction.pairs[0][0]
        text = f"{keyword} {name} is in the old form, with a blank for an equals sign"
        yield finding("LegacyKeyValueFormat", instruction.span, text, mend=f"write {keyword} {name}=…")
    if isinstance(instruction, ins.Label):
        return
    for name, _ in instruction.pairs:
        if names_a_secret(name):
            yield finding(
                "SecretsUsedInArgOrEnv",
                instruction.span,
                f"{keyword} {name} looks like a secret, and stays in the image",
            )


def _is_legacy(instruction: ins.Env | ins.Label, escape: str) -> bool:
    text = instruction.original.split(None, 1)[1]
    if "=" in text.split(None, 1)[0]:
        return False  # the first word, quoted or not, has at least this much in it
    words = quoted_words(text, escape)
    return bool(words) and "=" not in words[0]


def _once(facts: _StageFacts, instruction: ins.Instruction) -> Iterator[Finding]:
    """MultipleInstructionsDisallowed: at the earlier one, since that one has no effect."""
    kind = type(instruction)
    earlier = facts.once.get(kind)
    if earlier is not None:
        text = f"this {keyword_of(earlier)} has no effect: line {instruction.span.start} has another"
        yield finding("MultipleInstructionsDisallowed", earlier.span, text)
    facts.once[kind] = instruction


def _exec_form(config: ConfigDraft, instruction: ins.Cmd | ins.Entrypoint) -> Iterator[Finding]:
    """JSONArgsRecommended: a shell that somebody chose is meant."""
    unknown = UNKNOWN_BASE in config.extra
    if instruction.exec_form or config.shell or unknown:
        return
    keyword = keyword_of(instruction).upper()
    text = f"{keyword} in shell form: a shell gets the signals that are meant for the program"
    yield finding("JSONArgsRecommended", instruction.span, text)


def _did_you_mean(name: str, choices: Iterable[str], sign: str = "") -> str:
    found = near(name, choices)
    return f" (did you mean {sign}{found}?)" if found else ""
