"""`Packer`: makes blobs of extracted layers, for whatever is to leave this machine.

One blob is made once, whoever wants it, and may be read while it grows (`Packing`). `Wish` says how; `Packer`
knows which blobs a layer has already. A layer built here has none until something leaves (DESIGN D5); a
pulled layer keeps the blob that it came as, unless the caller insists.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from img import _core
from img.engine.requests import Compression
from img.errors import DigestMismatch, UsageError
from img.oci import Descriptor, Layer
from img.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from img.progress import Progress, Transfer
from img.store import LayerRecord, Store
from img.values import dataclass

MEDIA_TYPES: Mapping[Compression, str] = {
    "none": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}

AT_ONCE = 2
"""Blobs that are made at once: each uses every processor, and the next one's files are read meanwhile."""

STOP_SECONDS = 5.0
"""How long work that was stopped is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the caller says of how layers leave.

    Attributes:
        compression: None where nothing is said: gzip, for layers that have no blob yet.
        level: None for the usual one.
        force: Layers that were pulled are compressed anew, too.
        foreign: Layers whose makers allow no copies are sent, too; else their URLs have to do.
    """

    compression: Compression | None = None
    level: int | None = None
    force: bool = False
    foreign: bool = False

    @classmethod
    def read(
        cls, compression: str = "", level: int | None = None, *, force: bool = False, foreign: bool = False
    ) -> Wish:
        """Checks what was said.

        Raises:
            UsageError: there is no such compression, or level of it.
        """
        if compression not in ("", *MEDIA_TYPES):
            raise UsageError(
                f"there is no compression {compression!r}", hint=f"it is one of {', '.join(MEDIA_TYPES)}"
            )
        wish = cls(
            compression=compression or None,  # type: ignore[arg-type]
            level=level,
            force=force,
            foreign=foreign,
        )
        if level is not None:
            ends = {"gzip": (1, 9), "zstd": (1, 22)}.get(wish.form)
            if ends is None:
                raise UsageError("what is not compressed has no level", hint="leave the level out")
            if not ends[0] <= level <= ends[1]:
                raise UsageError(
                    f"{wish.form} has no level {level}", hint=f"levels are {ends[0]} to {ends[1]}"
                )
        return wish

    @property
    def form(self) -> Compression:
        """How layers are compressed that have to be."""
        return self.compression or "gzip"

    def leaves_out(self, layer: Descriptor) -> bool:
        """Tells whether a layer stays where its URLs say that it is."""
        return layer.is_foreign and bool(layer.urls) and not self.foreign

    @property
    def explicit(self) -> bool:
        """Whether it is more than the usual."""
        return self.compression is not None or self.level is not None


USUAL = Wish()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a blob is made of.

    Attributes:
        path: The layer's folder; or another blob of it, for a layer that was made elsewhere: its folder does
            not give its tar back.
        clamp: As `LayerRecord` has it.
        tar_bytes: Length of the tar; 0 where it is not known.
    """

    diff_id: str
    path: Path
    clamp: int | None = None
    tar_bytes: int = 0

    @classmethod
    def of(cls, record: LayerRecord) -> Source:
        """The folder of a layer."""
        return cls(diff_id=record.diff_id, path=record.path, clamp=record.clamp, tar_bytes=record.tar_bytes)


class Packing:
    """One blob that is made, or was. Safe for several threads; its reader's side is `registry.Growing`."""

    def __init__(self, diff_id: str, progress: Progress, tar_bytes: int = 0) -> None:
        """Nothing is there yet.

        Args:
            tar_bytes: As `Source` has it.
        """
        self.diff_id = diff_id
        self._progress = progress
        self._tar_bytes = tar_bytes
        self.growth = _core.BlobGrowth()
        self._over = threading.Event()
        self._made: Descriptor | None = None
        self._error: BaseException | None = None

    def end(self, made: Descriptor | None, error: BaseException | None = None) -> None:
        """Says what came of it."""
        self._made, self._error = made, error
        if made is None:
            self.growth.give_up()
        self._over.set()

    @property
    def tar(self) -> tuple[int, int, int]:
        """See `registry.Growing`."""
        return (*self.growth.progress, self._tar_bytes)

    def tell(self, made: Descriptor | None = None) -> None:
        """Says how far it is; or that it is `made`."""
        length, held, whole = self.tar
        self._progress(
            Transfer(
                action="compress",
                digest=self.diff_id,
                done_bytes=made.size if made else length,
                total_bytes=made.size if made else 0,
                kind="written" if made else "",
                tar_done_bytes=held if whole else 0,
                tar_total_bytes=whole,
            )
        )

    def wait(self, offset: int, count: int) -> int | None:
        """As `_core.BlobGrowth.wait`."""
        return self.growth.wait(offset, count)

    def read(self, offset: int, count: int) -> bytes:
        """As `_core.BlobGrowth.read`."""
        return self.growth.read(offset, count)

    def ended(self, seconds: float) -> bool:
        """Waits at most so long; tells whether it is over."""
        return self._over.wait(seconds)

    def result(self) -> Descriptor:
        """Waits for the blob, which is in the store then.

        Raises:
            DigestMismatch: the layer's folder is no longer what it was.
            DiskFull, StoreError, OSError: it could not be written. KeyboardInterrupt.
        """
        while not self._over.wait(0.1):  # a slice, not for ever: a signal's handler runs between two waits
            if self.growth.progress[0]:
                self.tell()
        if self._made is None:
            assert self._error is not None
            raise self._error
        return self._made


class Packer:
    """Makes blobs in one store. Safe for several threads."""

    def __init__(self, store: Store, progress: Progress) -> None:
        """Nothing is done yet."""
        self._store = store
        self._progress = progress
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(AT_ONCE)
        self._under_way: dict[tuple[str, Compression, int | None], Packing] = {}

    # ---- what is there -----------------------------------------------------------------------

    def keeps(self, layer: Layer, wish: Wish) -> bool:
        """Tells whether a layer leaves as its manifest has it."""
        if layer.descriptor.is_foreign:
            return True
        layers = self._store.layers
        built = layers.built_here(layer.diff_id)
        if plain_layer(layer):
            # As a build leaves it, unless it came uncompressed from elsewhere.
            given = not built and (self._store.blobs.has(layer.digest) or layers.sources_of(layer.digest))
            if not given:
                return False
        if wish.force:
            return layer.descriptor.media_type == MEDIA_TYPES[wish.form] and wish.level is None
        return not built or not wish.explicit

    def ready(self, layer: Layer, wish: Wish) -> bool:
        """Tells whether a layer can leave without being compressed first."""
        return self.keeps(layer, wish) or self.known(layer.diff_id, wish) is not None

    def known(self, diff_id: str, wish: Wish) -> Descriptor | None:
        """A blob of a layer, in the store, that is as wished."""
        level = _core.compression_level(wish.form, wish.level)
        media_type = MEDIA_TYPES[wish.form]
        made = self._store.layers.made_of(diff_id)
        candidates = [blob for blob, how in made if how == how_made(wish.form, level)]
        if wish.level is None:
            forms = (blob for blob, _ in self._store.layers.blobs_of(diff_id))
            candidates += [blob for blob in forms if blob.media_type == media_type]
        return next((blob for blob in candidates if self._store.blobs.has(blob.digest)), None)

    # ---- what is made ------------------------------------------------------------------------

    def pack(self, source: Source, compression: Compression, *, level: int | None = None) -> Descriptor:
        """Makes the blob of a layer, and waits for it.

        Raises:
            As `Packing.result`.
        """
        return self.begin(source, compression, level=level).result()

    def begin(self, source: Source, compression: Compression, *, level: int | None = None) -> Packing:
        """Begins to make the blob of a layer, unless somebody did; it is remembered as that layer's.

        Args:
            level: Of the compression; None for its usual one.
        """
        key = (source.diff_id, compression, level)
        with self._lock:
            packing = self._under_way.get(key)
            if packing is not None:
                return packing
            packing = Packing(source.diff_id, self._progress, source.tar_bytes)
            self._under_way[key] = packing
        work = threading.Thread(target=self._work, args=(key, packing, source), daemon=True)
        work.start()
        return packing

    def _work(self, key: tuple[str, Compression, int | None], packing: Packing, source: Source) -> None:
        """Thread: one blob."""
        _, compression, level = key
        made: Descriptor | None = None
        failed: BaseException | None = None
        try:
            with self._slots:
                made = self._pack(packing, source, compression, level)
        except BaseException as error:  # noqa: BLE001 - raised again by `Packing.result`, wherever it is awaited
            failed = error
        with self._lock:
            del self._under_way[key]
        packing.end(made, failed)

    def _pack(
        self, packing: Packing, source: Source, compression: Compression, level: int | None
    ) -> Descriptor:
        store = self._store
        with store.work.begin() as work:
            blob, index = work.path / "blob", work.path / "blocks"
            packed = _core.pack_blob(
                str(source.path),
                str(blob),
                compression=compression,
                level=level,
                clamp_mtime=source.clamp,
                index=str(index),
                earlier=store.blocks.earlier(),
                growth=packing.growth,
            )
            if packed.diff_id != source.diff_id:
                raise DigestMismatch("diff ID", source.diff_id, packed.diff_id)
            blob.rename(store.blobs.path(packed.digest))
            if index.exists():
                index.rename(store.blocks.path(packed.digest))
        descriptor = Descriptor(media_type=MEDIA_TYPES[compression], digest=packed.digest, size=packed.size)
        how = how_made(compression, _core.compression_level(compression, level))
        store.layers.remember_blob(source.diff_id, descriptor, source="", made=how)
        packing.tell(descriptor)
        return descriptor

    def stop(self) -> None:
        """Ends what is being made, and waits for that a moment."""
        _core.stop_everything(True)
        try:
            with self._lock:
                left = list(self._under_way.values())
            for packing in left:
                packing.ended(STOP_SECONDS)
        finally:
            _core.stop_everything(False)


def how_made(compression: Compression, level: int | None) -> str:
    """What the store calls a way of compressing."""
    return compression if level is None else f"{compression}:{level}"


def plain_layer(layer: Layer) -> bool:
    """Tells a layer whose descriptor names the plain tar: as one that was built here and never compressed."""
    return layer.descriptor.media_type == OCI_LAYER and layer.digest == layer.diff_id
