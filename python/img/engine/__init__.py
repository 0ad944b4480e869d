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
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from img import _core
from img.engine.outside import needs_outside
from img.engine.pulling import Puller, plain_layer, warn_single
from img.engine.pushing import Packer, push_image
from img.engine.requests import (
    Backend,
    BuildRequest,
    BuildResult,
    Compression,
    Explained,
    PruneResult,
    PullPolicy,
    PullResult,
    Settings,
    Usage,
)
from img.errors import UsageError
from img.exporter import Form, Named, read_archive, write_archive
from img.oci import Image, ImageConfig, Manifest, Platform, Reference, parse
from img.oci.descriptor import sha256
from img.progress import Note, Progress, silent
from img.remote import Reach
from img.store import LayerRecord, Pruned, Store

if TYPE_CHECKING:
    from img.builder.outline import Outline, Target
    from img.engine.calls import Calls, CheckResult
    from img.registry import Registry

__all__ = [
    "Backend",
    "BuildRequest",
    "BuildResult",
    "Compression",
    "Engine",
    "Explained",
    "Form",
    "PruneResult",
    "PullPolicy",
    "PullResult",
    "Settings",
    "Usage",
]


class Engine:
    """The operations, over one store. Use it in a `with` block, or `close` it."""

    def __init__(self, settings: Settings, progress: Progress = silent) -> None:
        """Opens nothing yet."""
        self._settings = settings
        self._progress = progress
        self._jobs = settings.jobs or len(os.sched_getaffinity(0))
        self._store: Store | None = None
        self._registry: Registry | None = None
        self._namespace: _core.Namespace | None = None
        self._registry_lock = threading.Lock()

    # ---- parts -------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store, opened for names and blobs at the first use."""
        if self._store is None:
            self._store = Store(self._settings.state)
        return self._store

    def enter(self) -> _core.Namespace:
        """Enters the namespace and opens the store for layers; call it before any thread exists.

        Raises:
            SandboxError: this machine refuses, with what to do about it.
        """
        if self._namespace is None:
            self._namespace = _core.enter_namespace(single=self._settings.single_id)
            if self._store is not None:
                self._store.close()
            self._store = Store(self._settings.state, mapping=_mapping(self._namespace))
            self._store.lease()
        return self._namespace

    def registry(self) -> Registry:
        """The registry client, made at the first use."""
        from img.registry import ConfigFile, Options, Registry

        with self._registry_lock:
            if self._registry is None:
                config = self._settings.docker_config
                self._registry = Registry(
                    keychain=ConfigFile(config) if config else None,
                    options=Options(
                        plain_http=frozenset(self._settings.plain_http),
                        proxies=self._settings.proxies,
                        no_proxy=self._settings.no_proxy,
                        ca_file=self._settings.ca_file or None,
                    ),
                    progress=self._progress,
                )
            return self._registry

    def _reach(self) -> Reach:
        settings = self._settings
        return Reach(proxies=settings.proxies, no_proxy=settings.no_proxy, ca_file=settings.ca_file)

    def _puller(self) -> Puller:
        return Puller(self.store, self.registry, self._progress, jobs=max(4, self._jobs))

    def close(self) -> None:
        """Closes what was opened; safe to call twice."""
        if self._registry is not None:
            self._registry.close()
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
        """Builds an image, names it, and pushes it where asked.

        Raises:
            DockerfileError: the Dockerfile cannot be built. BuildError: a step failed.
            RegistryError: a base cannot be had, or the push failed. SandboxError, StoreError.
        """
        started = time.monotonic()
        if self._namespace is None and needs_outside(request):
            _core.start_outside()
        namespace = self.enter()
        warn_single(namespace, self._progress)
        puller = self._puller()
        from img.engine.building import Build

        build = Build(
            self.store,
            puller,
            request,
            self._progress,
            jobs=self._jobs,
            namespace=namespace,
            backend=self._settings.backend,
            reach=self._reach(),
        )
        if request.push and not request.tags:
            raise UsageError("--push needs a name", hint="give one with -t NAME")
        built = build.run()
        pushed = {
            str(tag): self._push(built.image, tag, puller, "gzip") for tag in built.tags if request.push
        }
        return BuildResult(
            digest=built.image.digest,
            id=built.image.id,
            tags=tuple(str(tag) for tag in built.tags),
            steps=built.solved.steps,
            cached_steps=built.solved.cached_steps,
            seconds=time.monotonic() - started,
            pushed=pushed,
            warnings=built.warnings,
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
        """Tells what the build of a target takes: arguments, secrets, agents, caches.

        Raises:
            DockerfileError, UsageError.
        """
        return self.calls(request).outline()

    def targets(self, request: BuildRequest) -> tuple[Target, ...]:
        """Lists the stages of a Dockerfile.

        Raises:
            DockerfileError, UsageError.
        """
        return self.calls(request).targets()

    def calls(self, request: BuildRequest) -> Calls:
        """The questions about one build, for a caller who wants the Dockerfile's bytes with the answer."""
        from img.engine.building import Build
        from img.engine.calls import Calls

        puller = self._puller()
        build = Build(
            self.store,
            puller,
            request,
            self._progress,
            jobs=self._jobs,
            namespace=None,
            reach=self._reach(),
        )
        return Calls(self.store, puller, build, pull=request.pull)

    def explain(self, step: str = "") -> list[Explained]:
        """Tells what the keys of steps of the store's last build were compared with.

        Args:
            step: A step's number, `Dockerfile:LINE`, or a part of its text; by default every step.
        Raises:
            UsageError: nothing was built here, or no step is meant.
        """
        from img.engine.explaining import recall

        return recall(self.store.root, step)

    # ---- registries --------------------------------------------------------------------------

    def pull(self, name: str, *, platform: str = "", policy: PullPolicy = "always") -> PullResult:
        """Pulls an image and extracts its layers.

        Raises:
            InvalidReference, RegistryError, StoreError, LayerError.
        """
        reference = Reference.parse(name)
        self.enter()
        puller = self._puller()
        wanted = Platform.parse(platform) if platform else Platform.host()
        # A pull that fails leaves the name to what it meant before: it is given at the very end.
        always = policy == "always"
        image = puller.ask(reference, wanted) if always else puller.resolve(reference, wanted, policy=policy)
        if not wanted.accepts(image.platform):
            text = f"{reference.familiar} is for {image.platform}, not for {wanted}"
            self._progress(Note(level="warning", text=text))
        records = puller.layers(image)
        puller.blobs(image, [layer.descriptor for layer in image.layers if not plain_layer(layer)])
        self.store.names.put(image, reference)
        return PullResult(
            reference=str(reference),
            digest=image.digest,
            id=image.id,
            snapshot=records[-1].snapshot if records else image.id,
            size=image.size,
        )

    def push(self, name: str, *, compression: Compression = "gzip") -> str:
        """Pushes an image under its own name; gives the digest that the registry has now.

        Raises:
            ImageNotFound, RegistryError.
        """
        reference = Reference.parse(name)
        self.enter()
        image = self.store.names.get(name)
        return self._push(image, reference, self._puller(), compression)

    def _push(self, image: Image, name: Reference, puller: Puller, compression: Compression) -> str:
        packed = Packer(self.store, puller, self._progress).describe(image, compression)
        digest = push_image(
            self.store,
            self.registry(),
            packed,
            name,
            puller=puller,
            jobs=max(4, self._jobs),
            progress=self._progress,
        )
        self.store.names.put(packed, name)
        return digest

    # ---- names -------------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> str:
        """Gives an image one more name; gives that name in full.

        Raises:
            ImageNotFound, InvalidReference.
        """
        name = Reference.parse(target)
        if name.digest:
            raise UsageError(f"{target} names a digest; a tag is name:tag")
        self.store.names.put(self.store.names.get(source), name)
        return str(name)

    def remove(self, names: Sequence[str]) -> PruneResult:
        """Takes names away, and frees what was theirs alone and no cache record needs.

        Raises:
            ImageNotFound: one of them is not here; then nothing was removed.
        """
        rows = [self.store.names.row(name) for name in names]
        self.enter()
        for row in rows:
            self.store.names.remove(row)
        self.store.release_lease()
        return _pruned(self.store.collector.prune(unnamed=False))

    # ---- archives and trees ------------------------------------------------------------------

    def save(
        self, names: Sequence[str], out: BinaryIO, *, form: Form = "docker-archive",
        compression: Compression = "gzip",
    ) -> None:  # fmt: skip
        """Writes images as one archive.

        Raises:
            ImageNotFound.
        """
        self.enter()
        puller = self._puller()
        packer = Packer(self.store, puller, self._progress)
        found: dict[str, Named] = {}
        for text in names:
            row = self.store.names.row(text)
            image = packer.pack(self.store.names.load(row.manifest), compression)
            names_so_far = found[image.digest].names if image.digest in found else ()
            own = (Reference.parse(row.name),) if row.named else ()
            found[image.digest] = Named(image=image, names=(*names_so_far, *own))
        write_archive(self.store, list(found.values()), out, form)

    def export(self, manifest: bytes, config: bytes, out: BinaryIO, *, form: Form, name: str = "") -> None:
        """Writes an image given by its documents, whose layers the store has, as an archive."""
        document = parse(manifest)
        if not isinstance(document, Manifest) or sha256(config) != document.config.digest:
            raise UsageError("the documents are not of one image")
        self.enter()
        image = Image(manifest=document, config=ImageConfig.from_bytes(config), config_raw=config)
        packed = Packer(self.store, self._puller(), self._progress).pack(image)
        names = (Reference.parse(name),) if name else ()
        write_archive(self.store, [Named(image=packed, names=names)], out, form)

    def load(self, archive: str | Path) -> list[str]:
        """Takes the images of an archive into the store; gives their names, or IDs where unnamed.

        Raises:
            InvalidDocument, DigestMismatch.
        """
        path = Path(archive)
        if not path.is_file():
            raise UsageError(f"no such archive: {archive}")
        loaded = []
        with self.store.work.begin() as work:
            for named in read_archive(self.store, path, work.folder("archive")):
                for layer in named.image.layers:
                    self.store.layers.remember_blob(layer.diff_id, layer.descriptor, source="")
                for name in named.names or (None,):
                    self.store.names.put(named.image, name)
                    loaded.append(str(name) if name else named.image.id)
        return loaded

    def unpack(self, name: str, dest: str | Path, *, owners: bool | None = None) -> str:
        """Writes an image's root filesystem into a new folder; gives the image's ID.

        Args:
            owners: Files belong to whom the image says. Default: only as root; else they are the caller's.
        Raises:
            UsageError: `dest` exists and is not empty.
        """
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
        rows = [
            {
                "id": record.snapshot,
                "diff_id": record.diff_id,
                "reclaimable": reclaimable,
                "bytes": _core.disk_usage(str(record.path)),
                "last_used": record.used,
            }
            for record, reclaimable in self.layers()
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
        total = _core.disk_usage(str(root))
        return Usage(
            layers=tuple(rows),
            layers_bytes=layers,
            blobs_bytes=blobs,
            work_bytes=work,
            other_bytes=max(0, total - layers - blobs - work - mounts),
            total_bytes=total,
            reclaimable_bytes=sum(int(str(row["bytes"])) for row in (*rows, *caches) if row["reclaimable"]),
            cache_mounts=caches,
            cache_mounts_bytes=mounts,
        )

    def prune(self, *, everything: bool = False) -> PruneResult:
        """Frees what no image, no cache policy and no running process needs.

        Args:
            everything: Leaves named images only.
        """
        self.enter()
        self.store.release_lease()
        return _pruned(self.store.collector.prune(everything=everything))


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
        layers=rows, blobs=pruned.blobs, freed_bytes=pruned.freed_bytes, cache_mounts=pruned.cache_mounts
    )
