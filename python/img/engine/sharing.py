"""`SharedCaches`: the caches that one build shares with other machines (`builder.site.Shared`).

`imports` asks those of `--cache-from`, `exports` writes those of `--cache-to`; this lays them under a build:
what is lent becomes a record of the store once its layers were seen here, and not before.
`building` makes one, begins a solve again where a cache was lost, and the engine ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from img import _core
from img.amounts import human_size
from img.builder import BuildGraph, SharedLost
from img.builder.key import CacheKey
from img.cache import CacheIndex, CacheSpec, Reach, SharedMount, open_backend, parse_spec
from img.cache.index import ANNOTATION
from img.engine.asking import CacheQuestion
from img.engine.exports import Export, Exports
from img.engine.imports import Import, Imports
from img.engine.packing import Packer
from img.engine.requests import BuildRequest
from img.errors import CacheError, ImgError, UsageError
from img.oci import Descriptor, Image, Manifest, Reference
from img.progress import Note, Progress
from img.store import CacheRecord, Store
from img.values import dataclass, replace

T = TypeVar("T")

MAX_INLINE_BYTES = 512 << 10
"""Registries limit a manifest to 4 MiB, and some tools to less: a longer inline cache is not written."""


def shared_caches(
    request: BuildRequest, store: Store, reach: Reach, progress: Progress, packer: Packer | None = None
) -> SharedCaches:
    """Makes what a request asks for; speaks to nothing yet.

    Args:
        packer: Makes the blobs; one that is shared makes none twice.
    Raises:
        UsageError: a cache is named that makes no sense.
    """
    asked = [placed_spec(parse_spec(text, "from"), request.cwd) for text in request.cache_from]
    written = [placed_spec(parse_spec(text, "to"), request.cwd) for text in request.cache_to]
    _spare_tags(request, written)
    inline = [spec for spec in written if spec.kind == "inline"]
    if request.build_args.get("BUILDKIT_INLINE_CACHE", "").lower() in ("1", "true"):
        inline.append(CacheSpec(kind="inline", use="to"))
    if request.offline:
        asked, written = _offline(asked, progress), _offline(written, progress)
    imports = [Import(spec=s, backend=open_backend(s, reach), home=_home(s)) for s in asked]
    exports = [
        Export(spec=s, backend=open_backend(s, reach), home=_home(s)) for s in written if s.kind != "inline"
    ]
    return SharedCaches(
        store,
        Imports(store, imports, progress),
        Exports(store, exports, progress, packer),
        progress,
        inline=bool(inline),
    )


def placed_spec(spec: CacheSpec, cwd: str) -> CacheSpec:
    """A folder is relative to where the caller stands."""
    places = {
        name: str(Path(cwd, spec.attributes[name])) for name in ("src", "dest") if name in spec.attributes
    }
    return replace(spec, attributes={**spec.attributes, **places}) if spec.kind == "local" else spec


def _spare_tags(request: BuildRequest, written: Sequence[CacheSpec]) -> None:
    """A cache must not take the name of an image that this very build pushes."""
    names = {str(Reference.parse(tag)) for tag in request.tags} if request.push else set()
    for spec in written:
        if spec.kind == "registry" and str(Reference.parse(spec.attributes["ref"])) in names:
            hint = "use type=inline to put the cache into the image, or another tag"
            raise UsageError(f"--cache-to {spec} would take the place of the image that is pushed", hint=hint)


def _offline(specs: Sequence[CacheSpec], progress: Progress) -> list[CacheSpec]:
    for spec in specs:
        if spec.kind not in ("local", "inline"):
            progress(
                Note(level="warning", text=f"this cache is left out, since the build is offline: {spec}")
            )
    return [spec for spec in specs if spec.kind in ("local", "inline")]


def _home(spec: CacheSpec) -> str:
    return Reference.parse(spec.attributes["ref"]).name if spec.kind == "registry" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lent:
    """A step that was known to a shared cache alone."""

    keys: tuple[CacheKey, ...]
    record: CacheRecord
    title: str
    stands_on: tuple[str, ...]


class SharedCaches:
    """The caches of one build. Use it in a `with` block: its end writes the documents. Thread-safe."""

    def __init__(
        self, store: Store, imports: Imports, exports: Exports, progress: Progress, *, inline: bool = False
    ) -> None:
        """Speaks to nothing yet.

        Args:
            inline: Images carry what this build knows (`inline`).
        """
        self._store = store
        self._imports = imports
        self._exports = exports
        self._progress = progress
        self._inline = inline
        self._chain: frozenset[int] = frozenset()
        self._lent: list[_Lent] = []
        self._lock = threading.Lock()
        self._losing = False

    # ---- what the builder asks ---------------------------------------------------------------

    def find(self, key: str) -> CacheRecord | None:
        """What one of the caches has under a key; such a record has no inputs."""
        try:
            record = self._imports.find(key)
        except SharedLost:
            self._losing = True
            raise
        if record is None:
            return None
        return CacheRecord(
            key=key,
            inputs="",
            diff_id=record.diff_id,
            content=record.content,
            tar_bytes=record.tar_bytes,
            created=record.created,
        )

    def bring(self, diff_ids: Sequence[str]) -> None:
        """Brings those of these layers that are a cache's word alone to the store, verified."""
        try:
            self._imports.bring(diff_ids)
        except SharedLost:
            self._losing = True  # what the solver stops at its end is needed for the next one
            raise

    def sound(self, diff_ids: Sequence[str]) -> bool:
        """Tells whether what is known of these layers was seen here."""
        return self._imports.sound(diff_ids)

    def offer(
        self, node: int, keys: Sequence[CacheKey], record: CacheRecord, title: str, stands_on: Sequence[str]
    ) -> None:
        """Takes a step into what is written out; one that was lent is recorded once it was seen."""
        if not record.inputs and record.key:
            lent = _Lent(keys=tuple(keys), record=record, title=title, stands_on=tuple(stands_on))
            with self._lock:
                self._lent.append(lent)
        here = not record.diff_id or self.sound([record.diff_id])
        self._exports.offer(keys, record, title, on_chain=node in self._chain, here=here)

    # ---- what the engine does with it --------------------------------------------------------

    def questions(self) -> list[CacheQuestion]:
        """Whether the caches may be written, for whoever wants to know it beforehand."""
        return self._exports.questions()

    def plan(self, graph: BuildGraph) -> None:
        """Says what is built: `mode=min` writes the layers of the images alone."""
        self._chain = frozenset(number for target in graph.targets for number in graph.chain(target.node))

    def solve(
        self, attempt: Callable[[], T], layers: Callable[[T], Sequence[str]], again: Callable[[], None]
    ) -> T:
        """Carries a solve out, for as often as a cache is lost on the way, and brings what it needs.

        Args:
            attempt: The solve.
            layers: The layers (diff IDs) of the images that came of it.
            again: Called before it is begun again.
        """
        while True:
            try:
                solved = attempt()
                self.bring(layers(solved))
                return solved
            except SharedLost as lost:
                self._progress(Note(level="debug", text=f"the build is begun again: {lost}"))
                with self._lock:
                    self._lent.clear()
                    self._losing = False
                self._imports.begin_again()
                self._exports.begin_again()
                again()
            finally:
                self._settle()

    def _settle(self) -> None:
        """Records what was lent, as far as all that it names by content was seen here."""
        with self._lock:
            lent, self._lent = self._lent, []
        for step in lent:
            own = [step.record.diff_id] if step.record.diff_id else []
            if self.sound([*step.stands_on, *own]):
                for key in step.keys:
                    record = replace(step.record, key=key.digest, inputs=key.text, title=step.title)
                    self._store.records.put(record)

    def inline(self, image: Image) -> Image:
        """The image with what this build knows in an annotation of its manifest, where that is wanted.

        Its ID stays as it is: that is over the config.
        """
        if not self._inline:
            return image
        index = CacheIndex(records=tuple(self._exports.records.values())).without_inputs()
        text = index.to_bytes().decode()
        if len(text) > MAX_INLINE_BYTES:
            reason = f"{human_size(len(text))} are too much for a manifest"
            self._progress(Note(level="warning", text=f"the inline cache is not written: {reason}"))
            return image
        old = image.manifest
        manifest = Manifest.make(
            old.config,
            old.layers,
            media_type=old.media_type,
            annotations={**old.annotations, ANNOTATION: text},
        )
        return replace(image, manifest=manifest)

    def stop(self) -> None:
        """Ends what is fetched, from any thread; not where the solve is to begin again."""
        if not self._losing:
            self._imports.stop()

    # ---- cache mounts that travel ------------------------------------------------------------

    def mounts(self) -> tuple[SharedMount, ...]:
        """The cache mounts of the caches that are asked, each once, as far as `mounts=` wants them.

        Raises:
            CacheError: a cache failed whose errors count.
        """
        return self._imports.mounts()

    def fetch_chunk(self, chunk: Descriptor, open_sink: Callable[[Descriptor], _core.BlobSink]) -> bool:
        """Fetches a chunk of such a mount into a sink and finishes it; False where no cache gives it.

        Raises:
            CacheError: a cache failed whose errors count.
        """
        return self._imports.fetch_chunk(chunk, open_sink)

    def wants_mount(self, mount_id: str) -> bool:
        """Tells whether a cache mount, by its id, is to be written to one of the caches."""
        return self._exports.wants_mount(mount_id)

    def wanted_mounts(self) -> frozenset[str]:
        """What `mounts=` of the caches that are written says: ids, and `all`."""
        return self._exports.wanted_mounts()

    def chunks_there(self, mount_id: str) -> frozenset[str]:
        """The chunks, by digest, that all caches which want a cache mount name already."""
        return self._exports.chunks_there(mount_id)

    def offer_mount(self, mount: SharedMount, open_chunk: Callable[[Descriptor], BinaryIO]) -> None:
        """Writes a cache mount to the caches that want it, beside the build.

        Args:
            open_chunk: Opens a chunk's bytes, as often as they are needed, until the build's very end.
        """
        self._exports.offer_mount(mount, open_chunk)

    # ---- its end -----------------------------------------------------------------------------

    def __enter__(self) -> SharedCaches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the documents, also after a failure; an interrupt ends everything."""
        try:
            if error is None:
                self._exports.finish(self._imports, failed=False)
            elif isinstance(error, ImgError):
                try:
                    self._exports.finish(self._imports, failed=True)
                except CacheError as unwritten:  # the build's own error is the one to be raised
                    if unwritten is not error:
                        self._progress(Note(level="warning", text=f"a cache is not written: {unwritten}"))
        except BaseException:
            self._abandon()
            raise
        finally:
            if error is not None and not isinstance(error, ImgError):
                self._abandon()
            self._imports.close()
            self._exports.close()

    def _abandon(self) -> None:
        """Ends all that is under way."""
        _core.stop_everything(True)
        try:
            self._imports.stop()
            self._exports.stop()
        finally:
            _core.stop_everything(False)
