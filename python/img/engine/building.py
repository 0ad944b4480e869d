"""One build from its request to its result: reads the Dockerfile, plans, solves, names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from img import _core
from img.builder import PlanOptions, RunOptions, Site, Solved, needed_bases, plan_together, solve
from img.builder.fresh import fresh_nodes
from img.builder.graph import BuildGraph, RunOp
from img.context import Context
from img.dockerfile import find_stage, parse
from img.dockerfile.faults import fault
from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Dockerfile
from img.engine.contexts import open_inputs
from img.engine.fetching import Fetcher
from img.engine.outputs import Output, hand_out, name_outputs, read_tags
from img.engine.pulling import Puller
from img.engine.requests import Backend, BuildRequest
from img.engine.resolving import Resolver, read_lock
from img.engine.room import Room
from img.engine.run_options import run_options
from img.errors import DockerfileError, ImgError
from img.executor import SandboxExecutor, prepare_stub
from img.oci import Image, Platform, Reference
from img.oci.hashing import sha256
from img.progress import BuildStarted, Note, Progress, Warned
from img.remote import Reach
from img.snapshot import choose_snapshotter
from img.store import Store, WorkFolder
from img.values import dataclass, replace

if TYPE_CHECKING:
    from img.engine.asking import Questions
    from img.engine.mounts import TravellingMounts
    from img.engine.named import NamedContexts, Resolve
    from img.engine.pushing import Pusher
    from img.engine.recording import Recorder
    from img.engine.sharing import SharedCaches


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Images that were built and named: one output for each target, in their order.

    Attributes:
        bases: What the names of its bases meant (`Resolver`).
    """

    outputs: tuple[Output, ...]
    solved: Solved
    warnings: tuple[Finding, ...]
    bases: Mapping[str, str]


class Build:
    """One build in a store; `run` does it. The process is in its namespace already."""

    def __init__(
        self,
        store: Store,
        puller: Puller,
        request: BuildRequest,
        progress: Progress,
        *,
        jobs: int,
        namespace: _core.Namespace | None,
        backend: Backend = "auto",
        reach: Reach | None = None,
        record: Recorder | None = None,
        shared: SharedCaches | None = None,
        travelling: TravellingMounts | None = None,
        pusher: Pusher | None = None,
        asked: Questions | None = None,
    ) -> None:
        """Checks the tags and what is said of every RUN; touches nothing else.

        Args:
            namespace: What the process is in; None for a build that is only asked about (`calls`).
            record: Is told of the plan, and takes what steps write.
            shared: Caches of other machines, or None; whoever made them ends them.
            travelling: The cache mounts in those.
            pusher: Sends layers of the images on their way to their names while the build goes on, or None.
            asked: A refusal among its answers ends the build.
        """
        self._store = store
        self._puller = puller
        self._record = record
        self._request = request
        self._progress = progress
        self._jobs = jobs
        self._namespace = namespace
        self._backend = backend
        self._reach = reach or Reach()
        self._shared = shared
        self._travelling = travelling
        self._pusher = pusher
        self._asked = asked
        self._tags = read_tags(request.tags)
        self._run_options = run_options(request)
        platforms = dict.fromkeys(Platform.parse(text) for text in request.platforms)
        self._platforms = tuple(platforms) or (Platform.host(),)
        self.source = ("Dockerfile", b"")
        self.resolver = Resolver(puller, request, progress)
        self._named: NamedContexts | None = None
        self._fetcher: Fetcher | None = None

    @property
    def names(self) -> tuple[Reference, ...]:
        """All names of its images."""
        return tuple(tag.name for tag in self._tags)

    def run(self) -> Built:
        """Builds, names the images, and gives them."""
        self._store.lease()
        with self._store.work.begin() as work:
            try:
                context, dockerfile = self.read(work)
            except KeyboardInterrupt:
                self._go_on()  # a refusal, if there is one, ended it
                raise
            self.resolver.require()
            self._go_on()
            graph = self.plan(dockerfile, context)
            self._go_on()
            if self._record is not None:
                self._record.planned(graph.nodes)
            tags = hand_out(dockerfile, graph, self._tags)
            if self._pusher is not None:
                self._pusher.plan(graph, tags)
            fresh = fresh_nodes(
                graph,
                dockerfile,
                everything=self._request.no_cache,
                stages=self._request.no_cache_filter,
                steps=self._request.no_cache_steps,
            )
            warnings = _warnings(graph)
            if graph.fatal:
                self._warn(warnings)
                raise refused(dockerfile, graph.fatal)
            name = self._tags[0].name.familiar_name if self._tags else ""
            self._progress(BuildStarted(name=name, steps=graph.steps))
            try:
                solved = self._solve(graph, context, work, fresh)
            except ImgError:
                self._warn(warnings)
                try:
                    self._offer_mounts(graph)
                except (ImgError, OSError) as error:  # the build's own error is the one to be raised
                    self._progress(Note(level="warning", text=f"the cache mounts go nowhere: {error}"))
                raise
            # A context that came as an archive may be as large as a layer: it goes when the image is done.
            self._store.lease().take(work.path)
        self._offer_mounts(graph)
        images = solved.images
        if self._shared is not None:
            images = tuple(self._shared.inline(image) for image in images)
        outputs = name_outputs(self._store, graph, images, tags, self._request.annotations)
        self._warn(warnings)
        bases = dict(sorted(self.resolver.bases.items()))
        return Built(outputs=outputs, solved=solved, warnings=warnings, bases=bases)

    def _go_on(self) -> None:
        """Raises what a registry said, or did not say, that the build was to leave something at."""
        if self._asked is not None:
            self._asked.check()

    def end_reading(self) -> None:
        """Ends what is fetched for the context, from any thread: the build comes to nothing."""
        if self._fetcher is not None:
            self._fetcher.stop()

    def _offer_mounts(self, graph: BuildGraph) -> None:
        """Gives cache mounts to other machines: what a build that failed has fetched helps the next."""
        if self._travelling is not None:
            ops = (node.op for node in graph.nodes)
            mounts = (mount for op in ops if isinstance(op, RunOp) for mount in op.mounts)
            self._travelling.offer({mount.id for mount in mounts if mount.kind == "cache"})

    def _warn(self, warnings: tuple[Finding, ...]) -> None:
        """Shows the warnings: once, when the build is over, whatever came of it."""
        for number, found in enumerate(warnings, 1):
            self._progress(
                Warned(
                    number=number,
                    total=len(warnings),
                    rule=found.rule,
                    message=found.message,
                    path=found.path,
                    line=found.line,
                    end_line=found.end_line,
                    hint=found.hint,
                )
            )

    # ---- what is read ------------------------------------------------------------------------

    def read(self, work: WorkFolder, *, resolve: Resolve | None = None) -> tuple[Context, Dockerfile]:
        """Opens the context and parses the Dockerfile, whose name and bytes are in `source` from then on.

        Args:
            resolve: Gives the images of named contexts; by default from the store or a registry, named.
        """
        request = self._request
        fetcher = Fetcher(self._store, work, request, reach=self._reach, progress=self._progress)
        self._fetcher = fetcher
        inputs = open_inputs(request, work, fetcher)
        self.source = (inputs.path, inputs.text)
        syntax = request.build_args.get("BUILDKIT_SYNTAX", "")
        dockerfile = parse(inputs.text, path=inputs.path, syntax=syntax)
        self.resolver.begin(dockerfile, read_lock(request, inputs.lock))
        fetcher.lock = self.resolver.lock
        if request.contexts:
            from img.engine.named import named_contexts  # most builds have none

            resolve = resolve or self.resolver.resolve_context
            self._named = named_contexts(request, dockerfile, self._store, fetcher, resolve)
        context = inputs.context
        if request.context_normalize:
            from img.engine.normalizing import normalized  # most builds take modes as they are

            context = normalized(context, request)
        return context, dockerfile

    @property
    def fetcher(self) -> Fetcher:
        """What fetches for this build, once `read` was called."""
        assert self._fetcher is not None
        return self._fetcher

    # ---- plan and solve ----------------------------------------------------------------------

    def options(self, dockerfile: Dockerfile, context: Context | None = None) -> tuple[PlanOptions, ...]:
        """What planning is told of the request: once for each target and platform, each only once.

        Args:
            context: For the checks that look at its ignore file.
        Raises:
            DockerfileError: there is no such stage.
        """
        ignore = context.ignore if context is not None else ()
        # With exceptions, a folder that is taken away may still hold files that are not.
        certain = ignore and not any(line.startswith("!") for line in ignore)
        targets = {find_stage(dockerfile, name).index: name for name in reversed(self._request.targets)}
        return tuple(
            PlanOptions(
                target=target,
                build_args=_with_epoch(self._request),
                labels=self._request.labels,
                platform=platform,
                contexts=self._named.contexts if self._named else {},
                allow=frozenset(self._request.allow),
                network=self._request.network,
                platform_given=bool(self._request.platforms),
                ignored=_ignored_by(ignore) if certain else None,
            )
            for target in (*reversed(targets.values()),) or ("",)
            for platform in self._platforms
        )

    def plan(self, dockerfile: Dockerfile, context: Context) -> BuildGraph:
        """Plans what was read; bases are resolved, no layer of them is fetched.

        Raises:
            DockerfileError: it cannot be built. RegistryError, StoreError: a base cannot be had.
        """
        wanted = self.options(dockerfile, context)
        resolved = self._bases(dockerfile, wanted)

        def resolve(reference: Reference, platform: Platform) -> Image:
            key = (reference, platform)
            if key not in resolved:
                resolved[key] = self.resolver.resolve(reference, platform)
            return resolved[key]

        graph = plan_together(dockerfile, wanted, resolve)
        self.resolver.check(dockerfile, [(options, graph) for options in wanted])
        return graph

    def _bases(
        self, dockerfile: Dockerfile, wanted: Sequence[PlanOptions]
    ) -> dict[tuple[Reference, Platform], Image]:
        """Resolves the bases that are known beforehand, several at once where the network is asked."""
        bases = list(dict.fromkeys(key for options in wanted for key in needed_bases(dockerfile, options)))
        if len(bases) < 2 or self.resolver.at_hand(bases):
            return {}
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(8, len(bases))) as pool:
            images = pool.map(lambda key: self.resolver.resolve(*key), bases)
            return dict(zip(bases, images, strict=True))

    def _stop(self, stop: bool) -> None:
        """Ends all work in other threads: in the extension, in programs, and on the wire."""
        _core.stop_everything(stop)
        if stop:
            self._puller.stop()
            if self._fetcher is not None:
                self._fetcher.stop()
            if self._shared is not None:
                self._shared.stop()

    def _resume(self) -> None:
        """Lets what `_stop` ended be used again: the solve begins anew."""
        self._puller.resume()
        if self._fetcher is not None:
            self._fetcher.resume()

    def _solve(
        self, graph: BuildGraph, context: Context, work: WorkFolder, fresh: Mapping[int, str]
    ) -> Solved:
        request = self._request
        stub = work.folder("stub")
        prepare_stub(stub)
        scratch = work.folder("steps")
        assert self._namespace is not None
        single = self._namespace.kind == "single"
        site = Site(
            store=self._store,
            snapshots=choose_snapshotter(scratch, stub, backend=self._backend, progress=self._progress),
            executor=SandboxExecutor(str(work.folder("run")), emulate_owners=single),
            images=self._puller,
            context=context,
            scratch=scratch,
            progress=self._progress,
            stop=self._stop,
            now=_now,
            epoch=request.epoch,
            ranged=not single,
            trees=self._named.trees if self._named else {},
            remotes=self._fetcher,
            run_options=self._options_of_runs(),
            place=f"{context.root if context.lasting else context.name}\n{self.source[0]}",
            explain=self._request.explain,
            roomy=Room(),
            logs=self._record,
            shared=self._shared,
            travelling=self._travelling,
            leaving=self._pusher,
            go_on=self._go_on,
        )
        memo = None
        if context.lasting:
            memo = _core.DigestMemo(str(self._store.root / "memo" / _memo_name(context.root)))
        epoch = request.epoch

        def attempt() -> Solved:
            return solve(
                graph,
                site,
                memo=memo,
                jobs=self._jobs,
                fresh=fresh,
                fail_fast=request.fail_fast,
                created=None if epoch is None else _rfc3339(float(epoch)),
            )

        try:
            if self._shared is None:
                return attempt()
            self._shared.plan(graph)
            return self._shared.solve(attempt, _layers_of, self._resume)
        finally:
            site.snapshots.close()
            self._store.records.count_uses()
            if memo is not None:
                _save(memo, self._progress)

    def _options_of_runs(self) -> RunOptions:
        """What is said of every RUN, with the digests of secrets that are to count."""
        if not self._request.secret_hashes:
            return self._run_options
        from img.engine.secret_hashes import secret_digests  # most builds have none

        return replace(self._run_options, secret_digests=secret_digests(self._request, self._store.root))


def _layers_of(solved: Solved) -> list[str]:
    """The layers of the images that a build gave."""
    return [diff_id for image in solved.images for diff_id in image.config.diff_ids]


def _warnings(graph: BuildGraph) -> tuple[Finding, ...]:
    """What a build says: the findings that are no hints, and the remarks of the plan."""
    remarks = (Finding(rule="", message=text) for text in graph.warnings)
    return (*(found for found in graph.findings if found.level == "warning"), *remarks)


def refused(dockerfile: Dockerfile, fatal: tuple[Finding, ...]) -> DockerfileError:
    """The error for findings that fail a build: it points at the directive, where there is one."""
    rules = ", ".join(dict.fromkeys(found.rule for found in fatal))
    many = f"{len(fatal)} findings fail" if len(fatal) > 1 else "a finding fails"
    message = f"{many} the build, since its checks have error=true: {rules}"
    hint = "mend what is listed above, or skip a rule by name"
    span = dockerfile.check_span
    if span is None or "error" not in dockerfile.check:
        return DockerfileError(message, path=dockerfile.path, hint=hint)
    return fault(span, message, at="error", hint=hint)


def _save(memo: _core.DigestMemo, progress: Progress) -> None:
    """Remembering digests only saves time: a build does not fail for want of it."""
    try:
        memo.save()
    except (ImgError, OSError) as error:
        progress(Note(level="debug", text=f"the context's digests could not be remembered: {error}"))


def _ignored_by(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    rules = _core.IgnoreRules(patterns)
    return lambda path: rules.excluding(path) is not None


def _memo_name(root: Path) -> str:
    return sha256(os.fsencode(root)).hexdigest()[:32]


def _with_epoch(request: BuildRequest) -> dict[str, str]:
    """The build arguments, SOURCE_DATE_EPOCH among them however it was given: an ARG may ask for it."""
    given = {} if request.epoch is None else {"SOURCE_DATE_EPOCH": str(request.epoch)}
    return {**given, **request.build_args}


def _now() -> str:
    return _rfc3339(time.time())


def _rfc3339(seconds: float) -> str:
    """A time as the OCI image config has it."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else f"{text}Z"
