"""`Calls`: what is asked about a build that is not carried out: checks, outline, targets, graph.

`Engine` makes one for each call. A `Build` reads the context and the Dockerfile; bases are resolved for
the graph, and for the checks, where one that cannot be had makes those silent that need it. Nothing
runs, no layer is fetched, no namespace is entered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from img.builder import PlanOptions, unknown_base
from img.builder.checking import check_plan
from img.builder.graph import BuildGraph, CopyOp, Node
from img.builder.outline import Outline, Target, list_targets, make_outline
from img.context import Context
from img.dockerfile.checks import finding, looks_secret
from img.dockerfile.checks.secrets import CONTENT_BYTES
from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Dockerfile
from img.engine.building import Build, refused
from img.engine.pulling import Puller
from img.engine.requests import PullPolicy
from img.errors import CopyError, DockerfileError, RegistryError, StoreError, UsageError
from img.oci import Image, Platform, Reference
from img.store import Store

_MOST_FINDINGS = 10
"""Of secrets in one COPY: a folder of keys needs no more to be noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What the checks of a Dockerfile found.

    Attributes:
        path: The Dockerfile's name.
        source: Its bytes; empty where it could not be read.
        findings: In the order of their lines; hints are among them.
        notes: Remarks: what could not be checked, and why.
        error: Why it cannot be built at all, or None.
        refused: Why a build fails for what was found, which has error=true, or None.
    """

    path: str
    source: bytes
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    error: DockerfileError | None = None
    refused: DockerfileError | None = None


class Calls:
    """The questions, about one build."""

    def __init__(self, store: Store, puller: Puller, build: Build, *, pull: PullPolicy) -> None:
        """Reads nothing yet."""
        self._store = store
        self._puller = puller
        self._build = build
        self._pull = pull
        self._notes: list[str] = []

    @property
    def source(self) -> tuple[str, bytes]:
        """The Dockerfile's name and bytes, once one of the questions was answered."""
        return self._build.source

    def check(self) -> CheckResult:
        """Runs every check.

        Raises:
            UsageError: the context or the Dockerfile cannot be read.
        """
        findings: tuple[Finding, ...] = ()
        refusal = None
        with self._store.work.begin() as work:
            try:
                context, dockerfile = self._build.read(work, resolve=self._base)
                wanted = self._build.options(dockerfile, context)
                plans = [check_plan(dockerfile, options, self._base) for options in wanted]
                nodes = {(node.op, node.span): node for plan in plans for node in plan.nodes if _copies(node)}
                found = [finding for plan in plans for finding in plan.findings]
                secrets = [f for node in nodes.values() for f in _secrets(context, node)]
                findings = plans[0].options.sift((*found, *secrets))
                self._notes += [text for plan in plans for text in plan.warnings]
                error = next((plan.error for plan in plans if plan.error), None)
                fatal = plans[0].options.fatal(findings)
                refusal = refused(dockerfile, fatal) if fatal else None
            except DockerfileError as mistake:
                error = mistake
        path, source = self.source
        return CheckResult(
            path=error.path if error and not source else path,
            source=source,
            findings=findings,
            notes=tuple(dict.fromkeys(self._notes)),
            error=error,
            refused=refusal,
        )

    def outline(self) -> Outline:
        """Tells what the target takes."""
        dockerfile, options = self._read()
        return make_outline(dockerfile, options)

    def targets(self) -> tuple[Target, ...]:
        """Lists the stages."""
        dockerfile, options = self._read()
        return list_targets(dockerfile, options)

    def graph(self) -> BuildGraph:
        """Plans the build; bases are resolved as for one."""
        with self._store.work.begin() as work:
            context, dockerfile = self._build.read(work)
            return self._build.plan(dockerfile, context)

    def _read(self) -> tuple[Dockerfile, PlanOptions]:
        with self._store.work.begin() as work:
            _, dockerfile = self._build.read(work)
            *others, options = self._build.options(dockerfile)
        if others:
            raise UsageError(
                "this is asked about one target for one platform", hint="name one --target and one --platform"
            )
        return dockerfile, options

    def _base(self, reference: Reference, platform: Platform) -> Image:
        """A base as the store or its registry has it; no name is given to it, no layer fetched."""
        try:
            found = None if self._pull == "always" else self._store.names.find(reference, platform)
            if found is not None and platform.accepts(found.platform):
                return found
            if self._pull == "never":
                raise StoreError("it is not in the store, and pulling is off")
            return self._puller.ask(reference, platform)
        except (RegistryError, StoreError) as error:
            name = reference.familiar
            self._notes.append(
                f"{name} could not be had, so that checks which depend on it are silent: {error}"
            )
            return unknown_base(platform)


def _copies(node: Node) -> bool:
    return isinstance(node.op, CopyOp)


def _secrets(context: Context, node: Node) -> Iterator[Finding]:
    """SecretInContext: looks at the files that a COPY takes out of the context, by name first."""
    if not isinstance(node.op, CopyOp) or node.span is None:
        return
    found: list[str] = []
    for pattern in (word for part in node.op.parts if part.input == 0 for word in part.patterns):
        try:
            selection = context.select((pattern,), node.op.exclude, parents=node.op.parents)
            paths = selection.file_paths()
        except CopyError:
            continue  # what is not there is the build's business
        found += [path for path in paths if looks_secret(path, _reader(context.root / path))]
    for path in list(dict.fromkeys(found))[:_MOST_FINDINGS]:
        yield finding("SecretInContext", node.span, f"{path} looks like a secret, and goes into the image")


def _reader(path: Path) -> Callable[[], bytes]:
    """Reads the beginning of a file; nothing of one that is not to be read, or is no plain file."""

    def read() -> bytes:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        with open(descriptor, "rb") as file:
            return file.read(CONTENT_BYTES)

    return read
