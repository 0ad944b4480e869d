"""One build from its request to its result: reads the Dockerfile, plans, solves, names, pushes."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from img import _core
from img.builder import PlanOptions, RunOptions, Site, Solved, make_plan, needed_bases, solve
from img.builder.graph import BuildGraph
from img.context import Context, open_folder, read_dockerfile, read_ignore, unpack
from img.dockerfile import ignore_names, parse
from img.dockerfile.instructions import Dockerfile, Span
from img.engine.pulling import Puller
from img.engine.requests import Backend, BuildRequest
from img.errors import ImgError, RegistryError, StoreError, UsageError
from img.executor import SandboxExecutor, prepare_stub
from img.oci import Image, Platform, Reference
from img.progress import BuildStarted, Note, Progress
from img.snapshot import choose_snapshotter
from img.store import Store, WorkFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image that was built and named. `warnings` are for people."""

    image: Image
    solved: Solved
    tags: tuple[Reference, ...]
    warnings: tuple[str, ...]


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
        namespace: _core.Namespace,
        backend: Backend = "auto",
    ) -> None:
        """Checks the tags; touches nothing else."""
        self._store = store
        self._puller = puller
        self._request = request
        self._progress = progress
        self._jobs = jobs
        self._namespace = namespace
        self._backend = backend
        self._tags = tuple(Reference.parse(tag) for tag in request.tags)
        for tag in self._tags:
            if tag.digest:
                raise UsageError(f"{tag} names a digest, which no build can promise", hint="use name:tag")
        self._platform = Platform.parse(request.platform) if request.platform else Platform.host()

    def run(self) -> Built:
        """Builds, names the image, and gives it."""
        self._store.lease()
        with self._store.work.begin() as work:
            context, dockerfile = self._read(work)
            graph = self._plan(dockerfile)
            name = self._tags[0].familiar_name if self._tags else ""
            self._progress(BuildStarted(name=name, steps=graph.steps))
            solved = self._solve(graph, context, work)
        for tag in self._tags or (None,):
            self._store.names.put(solved.image, tag)
        warnings = (
            *(f"{dockerfile.path}:{w.line}: {w.message}" for w in dockerfile.warnings),
            *graph.warnings,
        )
        for text in warnings:
            self._progress(Note(level="warning", text=text))
        return Built(image=solved.image, solved=solved, tags=self._tags, warnings=warnings)

    # ---- what is read ------------------------------------------------------------------------

    def _read(self, work: WorkFolder) -> tuple[Context, Dockerfile]:
        """Opens the context and parses the Dockerfile."""
        request = self._request
        stdin = Path(request.stdin).read_bytes if request.stdin else None
        text: bytes | None = None
        if request.context == "-":
            if request.dockerfile == "-":
                raise UsageError("the context and the Dockerfile cannot both come from standard input")
            if stdin is None:
                raise UsageError("nothing came on standard input", hint="img build - < context.tar")
            root = work.folder("context")
            if not unpack(Path(request.stdin), root):
                text = stdin()
        else:
            root = open_folder(Path(request.cwd) / request.context)
        cwd = root if request.context == "-" else Path(request.cwd)
        if request.dockerfile == "-" and stdin is not None:
            text = stdin()
        path = "Dockerfile"
        if text is None:
            text, path = read_dockerfile(root, request.dockerfile or None, cwd=cwd)
        dockerfile = parse(text, path=path)
        beside = cwd if request.dockerfile and (cwd / path).is_file() else root
        return self._with_ignore(root, beside / path), dockerfile

    def _with_ignore(self, root: Path, dockerfile: Path) -> Context:
        names = ignore_names(dockerfile.name)
        data, name = read_ignore(root, names, beside=dockerfile.parent)
        return Context.ignoring(root, self._request.context, data, name)

    # ---- plan and solve ----------------------------------------------------------------------

    def _plan(self, dockerfile: Dockerfile) -> BuildGraph:
        options = PlanOptions(
            target=self._request.target,
            build_args=self._request.build_args,
            labels=self._request.labels,
            platform=self._platform,
            allow=frozenset(self._request.allow),
            network=self._request.network,
        )
        resolved = self._bases(dockerfile, options)

        def resolve(reference: Reference, platform: Platform) -> Image:
            key = (reference, platform)
            if key not in resolved:
                resolved[key] = self._base(dockerfile, reference, platform)
            return resolved[key]

        return make_plan(dockerfile, options, resolve)

    def _bases(self, dockerfile: Dockerfile, options: PlanOptions) -> dict[tuple[Reference, Platform], Image]:
        """Resolves the bases that are known beforehand, several at once where the network is asked."""
        wanted = needed_bases(dockerfile, options)
        if len(wanted) < 2:
            return {}
        if self._request.pull != "always" and all(self._store.names.find(ref) for ref, _ in wanted):
            return {}
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(8, len(wanted))) as pool:
            images = pool.map(lambda key: self._base(dockerfile, *key), wanted)
            return dict(zip(wanted, images, strict=True))

    def _base(self, dockerfile: Dockerfile, reference: Reference, platform: Platform) -> Image:
        """Resolves one base; an error says which FROM asked for it."""
        try:
            return self._puller.resolve(reference, platform, policy=self._request.pull)
        except (RegistryError, StoreError) as error:
            span = _span_of(dockerfile, reference)
            if span is not None:
                error.args = (f"{span.where}: {error}",)
                error.message = f"{span.where}: {error.message}"
            raise

    def _run_options(self) -> RunOptions:
        request = self._request
        return RunOptions(
            secret_files=request.secret_files,
            secret_values=request.secret_values,
            agents=request.agents,
            network=request.network,
            add_hosts=request.add_hosts,
            shm_bytes=request.shm_bytes,
            ulimits=request.ulimits,
        )

    def _stop(self, stop: bool) -> None:
        """Ends all work in other threads: in the extension, and on the wire."""
        _core.stop_everything(stop)
        if stop:
            self._puller.stop()

    def _solve(self, graph: BuildGraph, context: Context, work: WorkFolder) -> Solved:
        stub = work.folder("stub")
        prepare_stub(stub)
        scratch = work.folder("steps")
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
            epoch=self._request.epoch,
            ranged=not single,
            run_options=self._run_options(),
        )
        memo = None
        if self._request.context != "-":
            memo = _core.DigestMemo(str(self._store.root / "memo" / _memo_name(context.root)))
        epoch = self._request.epoch
        try:
            return solve(
                graph,
                site,
                memo=memo,
                jobs=self._jobs,
                use_cache=not self._request.no_cache,
                created=None if epoch is None else _rfc3339(float(epoch)),
            )
        finally:
            if memo is not None:
                _save(memo, self._progress)


def _save(memo: _core.DigestMemo, progress: Progress) -> None:
    """Remembering digests only saves time: a build does not fail for want of it."""
    try:
        memo.save()
    except (ImgError, OSError) as error:
        progress(Note(level="debug", text=f"the context's digests could not be remembered: {error}"))


def _memo_name(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:32]


def _span_of(dockerfile: Dockerfile, reference: Reference) -> Span | None:
    """The instruction that most likely asked for an image: the FROM with its name in it."""
    for stage in dockerfile.stages:
        if reference.repository.rpartition("/")[2] in stage.from_.image:
            return stage.from_.span
    return dockerfile.stages[0].from_.span if len(dockerfile.stages) == 1 else None


def _now() -> str:
    return _rfc3339(time.time())


def _rfc3339(seconds: float) -> str:
    """A time as the OCI image config has it."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else f"{text}Z"
