"""`Engine`: every operation of `img`, carried out in this process. The client and the CLI sit on it.

An operation that reads or writes layer folders first enters the namespace (DESIGN D1), which only
a process of one thread can do: the library therefore runs the engine in a process of its own
(`worker`), and the command line runs it directly. The engine prints nothing, reads no
environment, and says what it does through its `Progress`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from img import _core
from img.engine.locating import NO_PULLING, OFFLINE
from img.engine.relay import Relay
from img.engine.requests import (
    Backend,
    BuildRequest,
    BuildResult,
    BuiltImage,
    Compression,
    Explained,
    LockEntry,
    LockMode,
    LockResult,
    LoginResult,
    ManifestFormat,
    PruneResult,
    PullPolicy,
    PullResult,
    PullWish,
    Settings,
    Usage,
)
from img.errors import UsageError
from img.oci import Image, ImageConfig, Manifest, Reference, parse
from img.oci.descriptor import sha256
from img.progress import Progress, silent
from img.store import LayerRecord, Pruned, Store, main_of
from img.values import replace

if TYPE_CHECKING:
    from img.builder.graph import BuildGraph
    from img.builder.outline import Outline, Target
    from img.cache import Reach as CacheReach
    from img.engine.annotating import Annotations
    from img.engine.artifacts import Artifact, ArtifactRequest
    from img.engine.asking import Questions
    from img.engine.building import Build
    from img.engine.calls import Calls, CheckResult
    from img.engine.copying import CopyRequest, CopyResult
    from img.engine.forms import Forms
    from img.engine.lists import Lists
    from img.engine.logins import Logins
    from img.engine.looking import Looked
    from img.engine.mount_verbs import CacheMount, MountVerbs
    from img.engine.mounts import TravellingMounts
    from img.engine.packing import Packer, Wish
    from img.engine.pulling import Puller
    from img.engine.pushing import Pusher
    from img.engine.recording import Recorder
    from img.engine.referring import Referrer
    from img.engine.remote_names import Deleted
    from img.engine.retrieving import ArtifactWish
    from img.engine.sharing import SharedCaches
    from img.exporter import Form, Named
    from img.registry import Registry
    from img.remote import Reach
    from img.store.check import StoreReport

__all__ = [
    "Backend",
    "BuildRequest",
    "BuildResult",
    "BuiltImage",
    "Compression",
    "Engine",
    "Explained",
    "LockEntry",
    "LockMode",
    "LockResult",
    "LoginResult",
    "ManifestFormat",
    "PruneResult",
    "PullPolicy",
    "PullResult",
    "Settings",
    "Usage",
]


class Engine:
    """The operations, over one store. Use it in a `with` block, or `close` it.

    Where nothing is said here, `img.Client`'s method of that name says what one takes and raises. Some
    words are shorter: `form`, `level`, `force` and `foreign` are `format`, `compression_level`,
    `force_compression` and `foreign_layers` there.
    """

    def __init__(self, settings: Settings, progress: Progress = silent) -> None:
        """Opens nothing yet."""
        self._settings = settings
        self._show = progress
        self._progress = Relay(progress)
        self._jobs = settings.jobs or len(os.sched_getaffinity(0))
        self._store: Store | None = None
        self._registry: Registry | None = None
        self._impatient: Registry | None = None
        self._namespace: _core.Namespace | None = None
        self._registry_lock = threading.Lock()
        self._packing: Packer | None = None

    # ---- parts -------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store, opened for names and blobs at the first use."""
        if self._store is None:
            self._store = Store(self._settings.state, progress=self._progress)
        return self._store

    def enter(self) -> _core.Namespace:
        """Enters the namespace and opens the store for layers; call it before any thread exists.

        Raises:
            SandboxError: this machine refuses, with what to do about it.
        """
        if self._namespace is None:
            from img.engine.helping import names_helper

            if names_helper(self._settings):
                _core.start_outside()
            self._namespace = _core.enter_namespace(single=self._settings.single_id)
            if self._store is not None:
                self._store.close()
            mapping = _mapping(self._namespace)
            self._store = Store(self._settings.state, mapping=mapping, progress=self._progress)
            self._store.lease()
        return self._namespace

    def registry(self) -> Registry:
        """The registry client, made at the first use."""
        with self._registry_lock:
            if self._registry is None:
                self._registry = self._open_registry()
            return self._registry

    def _cache_registry(self) -> Registry:
        """The client for shared caches: a build can go on without one, so they are not waited for long."""
        with self._registry_lock:
            if self._impatient is None:
                self._impatient = self._open_registry(connect_seconds=5, read_seconds=20, attempts=3)
            return self._impatient

    def _open_registry(self, **patience: Any) -> Registry:
        from img.engine.keychain import keychain
        from img.registry import Options, Registry

        return Registry(
            keychain=keychain(self._settings, self._progress),
            options=Options(
                plain_http=frozenset(self._settings.plain_http),
                insecure=frozenset(self._settings.insecure),
                cert_dirs=self._settings.cert_dirs,
                cert_dir=self._settings.cert_dir,
                mirrors=self._settings.mirrors,
                registries_conf=self._settings.registries_conf,
                proxies=self._settings.proxies,
                no_proxy=self._settings.no_proxy,
                ca_file=self._settings.ca_file or None,
                **patience,
            ),
            progress=self._progress,
        )

    def _reach(self) -> Reach:
        from img.remote import Reach

        settings = self._settings
        return Reach(proxies=settings.proxies, no_proxy=settings.no_proxy, ca_file=settings.ca_file)

    def _puller(self, barred: str = "") -> Puller:
        from img.engine.pulling import Puller

        return Puller(self.store, self.registry, self._progress, jobs=max(4, self._jobs), barred=barred)

    def close(self) -> None:
        """Closes what was opened; safe to call twice."""
        for registry in (self._registry, self._impatient):
            if registry is not None:
                registry.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- building ----------------------------------------------------------------------------

    def build(self, request: BuildRequest) -> BuildResult:
        """Builds an image, names it, and pushes it where asked; leaves a record, whatever comes of it.

        Raises:
            DockerfileError: the Dockerfile cannot be built. BuildError: a step failed.
            RegistryError: a base cannot be had, or the push failed. SandboxError, StoreError.
        """
        from img.engine.outside import needs_outside
        from img.engine.recording import Recorder

        started = time.monotonic()
        _refuse_contradictions(request)
        if self._namespace is None and needs_outside(request):
            _core.start_outside()
        namespace = self.enter()
        record = Recorder(self.store, request, self._show)
        with self._progress.recorded_by(record), record:
            result = self._build(request, record, namespace, started)
            record.done(result)
        return result

    def _build(
        self, request: BuildRequest, record: Recorder, namespace: _core.Namespace, started: float
    ) -> BuildResult:
        from img.engine.building import Build
        from img.engine.pulling import warn_single

        warn_single(namespace, self._progress)
        puller = self._puller(_barred(request))

        with ExitStack() as held:
            asked = self._questions(request)
            pusher = self._pusher_of(request, puller, held, asked)
            shared, travelling = self._shared(request, held)
            build = Build(
                self.store,
                puller,
                request,
                self._progress,
                jobs=self._jobs,
                namespace=namespace,
                backend=self._settings.backend,
                reach=self._reach(),
                record=record,
                shared=shared,
                travelling=travelling,
                pusher=pusher,
                asked=asked,
            )
            number = record.begin()
            if asked is not None:
                held.enter_context(asked).begin(
                    build.names if request.push else (),
                    shared.questions() if shared is not None else (),
                    refused=build.end_reading,
                )
            built = build.run()
            pushed: Mapping[str, str] = {}
            if pusher is not None:
                from img.engine.pushing import Shipment

                pairs = ((output, tag) for output in built.outputs for tag in output.tags)
                pushed = pusher.push(
                    [Shipment(images=output.images, name=tag, listed=output.index) for output, tag in pairs]
                )
        last = built.outputs[-1]
        return BuildResult(
            digest=(last.index or last.main).digest,
            id=last.main.id,
            tags=tuple(str(tag) for tag in last.tags),
            steps=built.solved.steps,
            cached_steps=built.solved.cached_steps,
            seconds=time.monotonic() - started,
            pushed=pushed,
            warnings=built.warnings,
            images=tuple(image for output in built.outputs for image in output.described()),
            build=number,
            bases=built.bases,
        )

    def _questions(self, request: BuildRequest) -> Questions | None:
        """What asks beside a build whether its images and caches will be taken; None where none leaves."""
        if not (request.push or request.cache_to):
            return None
        from img.engine.asking import Questions

        return Questions(self.registry, self._progress)

    def _pusher_of(
        self, request: BuildRequest, puller: Puller, held: ExitStack, asked: Questions | None
    ) -> Pusher | None:
        """What pushes the images of a build; None where nothing is to be pushed. It ends with `held`."""
        level = request.compression_level
        said = request.compression or level is not None or request.force_compression
        if not request.push and not said:
            return None
        wish = _wish(request.compression, level, force=request.force_compression)
        if not request.push:
            raise UsageError(
                "how layers are compressed is said of a build that pushes",
                hint="add --push, or say it to img push or img save",
            )
        pusher = self._pusher(puller if request.pull != "never" else self._puller(), wish, asked=asked)
        held.callback(pusher.stop)
        return pusher

    def _packer(self) -> Packer:
        """What makes blobs, each once."""
        if self._packing is None:
            from img.engine.packing import Packer

            self._packing = Packer(self.store, self._progress)
        return self._packing

    def _pusher(
        self,
        puller: Puller,
        wish: Wish,
        annotations: Annotations | None = None,
        asked: Questions | None = None,
    ) -> Pusher:
        from img.engine.pushing import NO_ANNOTATIONS, Pusher

        return Pusher(
            self.store,
            self.registry,
            self._packer(),
            puller,
            self._progress,
            jobs=max(4, self._jobs),
            wish=wish,
            annotations=annotations or NO_ANNOTATIONS,
            asked=asked,
        )

    def _shared(
        self, request: BuildRequest, held: ExitStack
    ) -> tuple[SharedCaches | None, TravellingMounts | None]:
        """The caches that a build shares with other machines, and the cache mounts in them; None for none."""
        inline = "BUILDKIT_INLINE_CACHE" in request.build_args
        if not (request.cache_from or request.cache_to or inline):
            return None, None
        from img.engine.mounts import TravellingMounts
        from img.engine.sharing import shared_caches  # most builds share nothing

        shared = shared_caches(request, self.store, self._cache_reach(), self._progress, self._packer())
        # The chunks are at hand until the caches were written, which is when `shared` ends.
        work = held.enter_context(self.store.work.begin())
        held.enter_context(shared)
        return shared, TravellingMounts(self.store, shared, work, self._progress)

    def _cache_reach(self) -> CacheReach:
        from img import cache

        settings = self._settings
        return cache.Reach(
            registry=self._cache_registry,
            proxies=settings.proxies,
            no_proxy=settings.no_proxy,
            ca_file=settings.ca_file,
            sources=self.store.layers.sources_of,
            variables=settings.variables,
        )

    # ---- asking about a build ----------------------------------------------------------------

    def check(self, request: BuildRequest) -> CheckResult:
        """Checks a Dockerfile without building it; stays out of the namespace, and names no image.

        Returns:
            What was found, hints included; a mistake in the Dockerfile is among it, and not raised.
        Raises:
            UsageError: the context or the Dockerfile cannot be read.
        """
        return self.calls(request).check()

    def outline(self, request: BuildRequest) -> Outline:
        """Tells what the build of a target takes: arguments, secrets, agents, caches."""
        return self.calls(request).outline()

    def targets(self, request: BuildRequest) -> tuple[Target, ...]:
        """Lists the stages of a Dockerfile."""
        return self.calls(request).targets()

    def graph(self, request: BuildRequest) -> BuildGraph:
        """Plans a build without carrying it out; stays out of the namespace, and fetches no layer."""
        return self.calls(request).graph()

    def calls(self, request: BuildRequest) -> Calls:
        """The questions about one build, for a caller who wants the Dockerfile's bytes with the answer."""
        from img.engine.calls import Calls

        return Calls(self.store, self._asked(request, self._puller(_barred(request))))

    def _asked(self, request: BuildRequest, puller: Puller) -> Build:
        """A build that is only asked about: out of the namespace."""
        from img.engine.building import Build

        reach = self._reach()
        return Build(
            self.store, puller, request, self._progress, jobs=self._jobs, namespace=None, reach=reach
        )

    def lock(self, request: BuildRequest, *, mode: LockMode = "add", names: Sequence[str] = ()) -> LockResult:
        """Writes the lock file of a Dockerfile, or compares it; stays out of the namespace."""
        from img.engine.locking import Locker

        puller = self._puller(OFFLINE if request.offline else "")
        build = self._asked(request, puller)
        locker = Locker(self.store, puller, build, request, self._progress, mode=mode, names=names)
        return locker.run()

    def explain(self, step: str = "", build: str = "") -> list[Explained]:
        """Tells what the keys of a build's steps were compared with, from its record."""
        builds = self.store.builds
        record = builds.record(builds.find(build) if build else builds.last())
        return [
            Explained(
                build=record.id,
                number=found.number,
                kind=found.kind,
                title=found.title,
                text=found.text or found.title,
                where=found.where,
                stage=found.stage,
                began=record.started,
                keyless=found.keyless,
                step=found.explained,
            )
            for found in record.find_steps(step)
        ]

    # ---- registries --------------------------------------------------------------------------

    def pull(self, name: str, *, platform: str = "", policy: PullPolicy = "always") -> PullResult:
        """Pulls an image and extracts its layers."""
        (result,) = self.pull_all([name], platforms=[platform] if platform else [], policy=policy)
        return result

    def pull_all(
        self, names: Sequence[str], *, all_tags: bool = False, platforms: Sequence[str] = (),
        all_platforms: bool = False, extract: bool = True, policy: PullPolicy = "always",
    ) -> list[PullResult]:  # fmt: skip
        """Pulls images, several at once. Without `extract`, no namespace is entered."""
        from img.engine.pulls import Pulls
        from img.oci.location import has_prefix

        wish = PullWish(
            platforms=tuple(platforms), all_platforms=all_platforms, extract=extract, policy=policy
        )
        if extract:
            self.enter()
        self.store.lease()
        asked = [name.removeprefix("docker://") for name in names]
        elsewhere = [name for name in asked if has_prefix(name)]
        if all_tags and elsewhere:
            raise UsageError(f"all tags are those of a registry's repository, and {elsewhere[0]} is none")
        puller = self._puller(NO_PULLING if policy == "never" else "")
        pulls = Pulls(self.store, puller, self._progress, wish)
        if all_tags:
            return pulls.pull_tags(asked, self.registry())
        results = pulls.pull([name for name in asked if name not in elsewhere])
        return results + (self._take_in(elsewhere, wish) if elsewhere else [])

    def push(self, name: str, **options: Any) -> str:
        """Pushes an image under its own name; gives the digest that the registry has now."""
        (digest,) = self.push_all([name], **options).values()
        return digest

    def push_all(
        self,
        names: Sequence[str],
        *,
        all_tags: bool = False,
        form: ManifestFormat | None = None,
        compression: Compression | None = None,
        level: int | None = None,
        force: bool = False,
        foreign: bool = False,
        annotations: Sequence[str] = (),
    ) -> dict[str, str]:
        """Pushes images under their own names, all at once; gives the digest of each in its registry."""
        from img.engine.annotating import Annotations
        from img.engine.pushes import Pushes, reads_layers, rows_of

        added = Annotations.read(annotations)
        wish = _wish(compression or "", level, force=force, foreign=foreign)
        rows = rows_of(self.store, names, all_tags=all_tags)
        if reads_layers(self.store, rows.values(), wish):
            self.enter()
        self.store.lease()
        pusher = self._pusher(self._puller(), wish, added)
        return Pushes(self.store, pusher, pusher.forms, form=form, annotations=added).push(rows)

    def logins(self) -> Logins:
        """Logging in to registries and out of them; stays out of the namespace."""
        from img.engine.logins import Logins

        return Logins(self._settings, self.registry, self._progress)

    def _take_in(self, places: Sequence[str], wish: PullWish) -> list[PullResult]:
        """Pulls what is in no registry: it is copied into the store, and named and extracted from there."""
        from img.engine.looking import take_in
        from img.engine.pulls import Pulls

        names = [take_in(self, place, wish, self._progress) for place in places]
        here = replace(wish, policy="never")
        return Pulls(self.store, self._puller(NO_PULLING), self._progress, here).pull(names)

    def copy(self, request: CopyRequest) -> CopyResult:
        """Copies an image from one place to others, without unpacking it."""
        from img.engine.copying import Copying

        copying = Copying(self, request, self._progress, jobs=max(4, self._jobs))
        if copying.source.transport == "img":
            self.enter()  # a layer that was built has no blob yet
        return copying.run(lambda: self._forms(request))

    def tags(self, name: str) -> list[str]:
        """Lists the tags of a registry's repository, in its order; of another place, its names."""
        from img.engine.remote_names import names_at

        return names_at(self, name, self._progress)

    def tag_digests(self, name: str, tags: Sequence[str]) -> dict[str, str]:
        """What tags of a registry's repository stand for, by a question for each; one that went is left out.

        Raises:
            RegistryError.
        """
        from img.engine.remote_names import digests_of

        reference = Reference.parse(name.removeprefix("docker://"))
        return digests_of(self.registry(), reference, tags, jobs=max(8, self._jobs))

    def delete_remote(
        self, names: Sequence[str], *, force: bool = False, tag_only: bool = False
    ) -> list[Deleted]:
        """Deletes names from registries, and what they stand for; gives what went."""
        from img.engine.remote_names import delete_names

        return delete_names(self.registry(), names, force=force, tag_only=tag_only, jobs=max(8, self._jobs))

    def look(self, place: str, *, platform: str = "") -> Looked:
        """Reads the documents of an image wherever it is, and fetches no layer.

        Raises:
            InvalidReference, UsageError, NotFound, InvalidDocument, RegistryError.
        """
        from img.engine.looking import look_at

        return look_at(self, place, platform, self._progress)

    def _forms(self, request: CopyRequest) -> Forms:
        from img.engine.forms import Forms

        wish = _wish(request.compression or "", request.level, force=request.force)
        return Forms(self.store, self._puller(), self._packer(), wish)

    def lists(self) -> Lists:
        """What puts indexes together; stays out of the namespace."""
        from img.engine.lists import Lists

        self.store.lease()
        return Lists(self.store, self.registry)

    def push_list(
        self,
        name: str,
        *,
        dest: str = "",
        form: ManifestFormat | None = None,
        foreign: bool = False,
        compression: Compression | None = None,
        level: int | None = None,
        force: bool = False,
        add: Sequence[Compression] = (),
    ) -> str:
        """Pushes a list, and the images that it names, where they are not; gives its digest there."""
        from img.engine.variants import add_variants

        self.enter()
        shipment = self.lists().shipment(name, dest=dest, form=form)
        wish = _wish(compression or "", level, force=force, foreign=foreign)
        puller = self._puller()
        pusher = self._pusher(puller, wish)
        shipment = add_variants(
            shipment, add, pusher,
            lambda form: self._pusher(puller, _wish(form, None, force=True, foreign=foreign)),
        )  # fmt: skip
        (digest,) = pusher.push([shipment]).values()
        return digest

    def referrers(
        self, name: str, *, artifact_type: str = "", platform: str = "", depth: int = 1
    ) -> tuple[Reference, tuple[Referrer, ...]]:
        """What is about the manifest that a name means at its registry; see `referring.referrers_of`."""
        from img.engine.referring import referrers_of, subject_of

        registry, jobs = self.registry(), max(4, self._jobs)
        subject = subject_of(registry, name, platform)
        found = referrers_of(registry, subject, artifact_type=artifact_type, depth=depth, jobs=jobs)
        return subject, found

    def push_artifact(self, name: str, request: ArtifactRequest, *, cwd: str = ".") -> Artifact:
        """Pushes files as an artifact; see `artifacts.push`."""
        from img.engine import artifacts

        jobs, told = max(4, self._jobs), self._progress
        with ExitStack() as held:
            return artifacts.push(
                self.registry(), name, request, cwd=cwd, jobs=jobs, progress=told,
                spool=lambda: held.enter_context(self.store.work.begin()).path,
            )  # fmt: skip

    def pull_artifact(self, name: str, output: str, wish: ArtifactWish) -> list[str]:
        """Fetches the files of an artifact into a folder; see `retrieving.pull`."""
        from img.engine import retrieving

        jobs, told = max(4, self._jobs), self._progress
        found = retrieving.pull(self.registry(), name, output, wish, jobs=jobs, progress=told)
        return [str(path) for path in found]

    def artifact(self, name: str, platform: str = "") -> Manifest:
        """The manifest of an artifact; see `retrieving.read`."""
        from img.engine import retrieving

        return retrieving.read(self.registry(), Reference.parse(name), platform)

    # ---- names -------------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> str:
        """Gives an image one more name; gives that name in full."""
        name = Reference.parse(target)
        if name.digest:
            raise UsageError(f"{target} names a digest; a tag is name:tag")
        self.store.names.name_again(self.store.names.row(source), name)
        return str(name)

    def remove(self, names: Sequence[str]) -> PruneResult:
        """Takes names away, and frees what was theirs alone and no cache record needs."""
        rows = [self.store.names.row(name) for name in names]
        self.enter()
        for row in rows:
            self.store.names.remove(row)
        self.store.release_lease()
        return _pruned(self.store.collector.prune(unnamed=False, progress=self._progress))

    # ---- archives and trees ------------------------------------------------------------------

    def save(
        self, names: Sequence[str], out: BinaryIO, *, form: Form = "docker-archive",
        compression: Compression | None = None, level: int | None = None, force: bool = False,
    ) -> None:  # fmt: skip
        """Writes images as one archive."""
        from img.engine.forms import Forms
        from img.engine.pushes import tree_of
        from img.exporter import Named, write_archive

        wish = _wish(compression or "", level, force=force)
        self.enter()
        forms = Forms(self.store, self._puller(), self._packer(), wish)
        found: dict[str, Named] = {}
        for text in names:
            row = self.store.names.row(text)
            tree = tree_of(self.store, forms, row)
            packed = (forms.packed(image) for image in self.store.names.images_of(row))
            images = tuple({image.digest: image for image in packed}.values())
            key = ",".join(image.digest for image in images)
            names_so_far = found[key].names if key in found else ()
            own = (Reference.parse(row.name),) if row.named else ()
            found[key] = Named(
                image=main_of(images),
                names=(*names_so_far, *own),
                platforms=images if len(images) > 1 else (),
                documents=tree.documents if tree and len(images) > 1 else (),
            )
        write_archive(self.store, list(found.values()), out, form, self._progress)

    def export(self, manifest: bytes, config: bytes, out: BinaryIO, *, form: Form, name: str = "") -> None:
        """Writes an image given by its documents, whose layers the store has, as an archive."""
        from img.exporter import Named, write_archive

        document = parse(manifest)
        if not isinstance(document, Manifest) or sha256(config) != document.config.digest:
            raise UsageError("the documents are not of one image")
        self.enter()
        image = Image(manifest=document, config=ImageConfig.from_bytes(config), config_raw=config)
        from img.engine.forms import Forms

        packed = Forms(self.store, self._puller(), self._packer()).packed(image)
        names = (Reference.parse(name),) if name else ()
        write_archive(self.store, [Named(image=packed, names=names)], out, form)

    def load(self, archive: str | Path) -> list[str]:
        """Takes the images of an archive, or of a layout's folder, into the store; gives names, or IDs."""
        from img.engine.loading import load_archive

        path = Path(archive)
        if path.is_dir():
            from img.engine.looking import load_layout

            return load_layout(self, path, self._progress)
        if not path.is_file():
            raise UsageError(f"no such archive: {archive}")
        return load_archive(self.store, path, self._progress)

    def unpack(self, name: str, dest: str | Path, *, owners: bool | None = None) -> str:
        """Writes an image's root filesystem into a new folder; gives the image's ID."""
        target = Path(dest)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(f"{dest} exists and is not an empty folder", hint="name a new one with -o DIR")
        namespace = self.enter()
        image = self.store.names.get(name)
        folders = self._puller().extract(image)
        target.mkdir(parents=True, exist_ok=True)
        keep = namespace.kind == "root" if owners is None else owners
        _core.flatten([str(folder) for folder in folders], str(target), owners=keep)
        return image.id

    def config(self, name: str) -> bytes:
        """The config document of an image."""
        return self.store.names.get(name).config_raw

    # ---- disk --------------------------------------------------------------------------------

    def layers(self) -> list[tuple[LayerRecord, bool]]:
        """Every layer, oldest first, and whether nothing but the cache needs it."""
        needed = self.store.collector.needed(unnamed=False).layers
        return [(r, (r.diff_id, r.parents) not in needed) for r in self.store.layers.all()]

    def usage(self) -> Usage:
        """Counts the real bytes of everything in the store."""
        self.enter()
        root = self.store.root
        # Layers share files. What an image needs counts first: the rest is what a collection gives back.
        found = sorted(self.layers(), key=lambda row: row[1])
        bytes_of = _core.disk_usages([str(record.path) for record, _ in found])
        rows = [
            {
                "id": record.snapshot,
                "diff_id": record.diff_id,
                "reclaimable": reclaimable,
                "bytes": own,
                "last_used": record.used,
            }
            for (record, reclaimable), own in zip(found, bytes_of, strict=True)
        ]
        layers = sum(int(str(row["bytes"])) for row in rows)
        caches: tuple[Mapping[str, object], ...] = tuple(
            {
                "id": row.id,
                "reclaimable": not row.busy,
                "bytes": _core.disk_usage(str(row.path)),
                "last_used": row.used,
            }
            for row in self.store.cache_mounts.all()
        )
        mounts = sum(int(str(row["bytes"])) for row in caches)
        blobs, work = (_core.disk_usage(str(root / name)) for name in ("oci", "work"))
        logs, spare_logs = self.store.builds.usage()
        total = _core.disk_usage(str(root))
        return Usage(
            layers=tuple(rows),
            layers_bytes=layers,
            blobs_bytes=blobs,
            work_bytes=work,
            other_bytes=max(0, total - layers - blobs - work - mounts - logs),
            total_bytes=total,
            reclaimable_bytes=spare_logs
            + sum(int(str(row["bytes"])) for row in (*rows, *caches) if row["reclaimable"]),
            cache_mounts=caches,
            cache_mounts_bytes=mounts,
            logs_bytes=logs,
        )

    # ---- cache mounts ------------------------------------------------------------------------

    def cache_mounts(self) -> list[CacheMount]:
        """Every copy of every cache mount, by id."""
        return self._mount_verbs().all()

    def export_cache_mount(
        self, name: str, *, out: BinaryIO | None = None, to: str = "", cwd: str = "."
    ) -> None:
        """Writes a cache mount as a `.tar.zst`, or into a shared cache.

        Args:
            cwd: Folder that a folder in `to` is relative to.
        """
        verbs = self._mount_verbs()
        if out is not None:
            return verbs.export(name, out)
        from img.cache import parse_spec
        from img.engine.sharing import placed_spec

        return verbs.export_to(name, placed_spec(parse_spec(to, "to"), cwd), self._cache_reach())

    def import_cache_mount(
        self, name: str, *, archive: str = "", source: str = "", cwd: str = ".", uid: int = 0, gid: int = 0,
        mode: int | None = None,
    ) -> str:  # fmt: skip
        """Makes or replaces a cache mount by an archive, or by what a shared cache carries; gives its name.

        Args:
            cwd: Folder that a folder in `source` is relative to.
        """
        from img.cache import parse_spec
        from img.engine.sharing import placed_spec
        from img.store import CacheShape

        if not source and not Path(archive).is_file():
            raise UsageError(f"no such archive: {archive}")
        shape = CacheShape(id=name, uid=uid, gid=gid, mode=mode)
        if source and shape != CacheShape(id=name):
            raise UsageError("owner and mode are what the shared cache says: give them with an archive")
        verbs = self._mount_verbs()
        if source:
            return verbs.fill_from(name, placed_spec(parse_spec(source, "from"), cwd), self._cache_reach())
        return verbs.fill(name, Path(archive), shape)

    def remove_cache_mounts(self, names: Sequence[str] = (), *, everything: bool = False) -> list[CacheMount]:
        """Removes cache mounts: every copy that a name stands for, or all; gives what was removed."""
        return self._mount_verbs().remove(names, everything=everything)

    def _mount_verbs(self) -> MountVerbs:
        from img.engine.mount_verbs import MountVerbs

        namespace = self.enter()
        return MountVerbs(self.store, self._progress, ranged=namespace.kind != "single")

    def check_store(self, *, quick: bool = False, repair: bool = False) -> StoreReport:
        """Looks all that the store keeps through."""
        self.enter()
        self.store.lease()
        return self.store.checker(quick=quick, repair=repair, progress=self._progress).run()

    def prune(self, *, everything: bool = False) -> PruneResult:
        """Frees what no image, no cache policy and no running process needs."""
        self.enter()
        self.store.release_lease()
        return _pruned(self.store.collector.prune(everything=everything, progress=self._progress))


def _refuse_contradictions(request: BuildRequest) -> None:
    """Refuses what an offline build cannot do, before anything is done."""
    if request.push and not request.tags:
        raise UsageError("--push needs a name", hint="give one with -t NAME")
    if request.annotations:
        from img.engine.annotating import Annotations

        Annotations.read(request.annotations).check(several=len(request.platforms) > 1)
    if not request.offline:
        return
    contradictions = {
        "--push": request.push,
        "--pull=always": request.pull == "always",
        "--network=host": request.network == "host",
    }
    for flag, given in contradictions.items():
        if given:
            raise UsageError(
                f"{flag} needs the network, and --offline leaves it alone", hint="leave out one of them"
            )


def _wish(compression: str, level: int | None, *, force: bool, foreign: bool = False) -> Wish:
    from img.engine.packing import Wish  # most operations compress nothing

    return Wish.read(compression, level, force=force, foreign=foreign)


def _barred(request: BuildRequest) -> str:
    """Why a build asks no registry; empty where it may."""
    return OFFLINE if request.offline else NO_PULLING if request.pull == "never" else ""


def _mapping(namespace: _core.Namespace) -> str:
    """The id mapping as text: what a store's folders were written under."""
    if namespace.kind == "root":
        return "root"
    ranges = (f"{inside}:{outside}:{count}" for inside, outside, count in namespace.uid_map)
    return ",".join(ranges)


def _pruned(pruned: Pruned) -> PruneResult:
    rows: tuple[Mapping[str, object], ...] = tuple(
        {"id": r.snapshot, "diff_id": r.diff_id, "bytes": r.tar_bytes, "last_used": r.used}
        for r in pruned.layers
    )
    return PruneResult(
        layers=rows,
        blobs=pruned.blobs,
        freed_bytes=pruned.freed_bytes,
        cache_mounts=pruned.cache_mounts,
        builds=pruned.builds,
    )
