"""`Checker`: reads all that a store keeps and tells what is not as it says, or takes that away.

`Store.checker` makes one; an operation of the engine runs it in the namespace that the layers were written
in. Nothing is locked meanwhile: what another process removes while it is looked at was not wrong. What is
taken away comes again when it is needed, as after a power cut (`store.doubts`): a step runs again, a base is
fetched again. It never repairs bytes, and never touches what is sound.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from img import _core
from img.errors import BlobNotFound, DiskFull, ImgError, StoreError
from img.oci import Image, Index, parse
from img.oci.hashing import digest_of
from img.progress import Meter, Progress, Transferring
from img.store.blobs import LAYOUT, BlobStore
from img.store.database import Database
from img.store.images import ImageName, ImageStore
from img.store.layers import LayerRecord, LayerStore
from img.store.records import RecordStore
from img.store.work import WorkArea, WorkFolder
from img.values import dataclass, field

_DOCUMENT_BYTES = 4 << 20
"""Blobs that may be documents are read by a quick check as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """Something in a store that is not as it should be.

    Attributes:
        kind: `database`, `layout`, `blob`, `layer`, `image`, `record` or `leftover`. A leftover does no harm.
        name: The digest, name or path that it is about.
        problem: What is wrong.
        remedy: What to do, or what was done, about it.
    """

    kind: str
    name: str
    problem: str
    remedy: str

    @property
    def harmless(self) -> bool:
        """Whether it costs room and nothing else."""
        return self.kind == "leftover"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What a check saw, and what it found wrong.

    Attributes:
        repaired: What was wrong was taken away.
        bytes: Read and digested.
    """

    defects: tuple[Defect, ...] = ()
    images: int = 0
    blobs: int = 0
    layers: int = 0
    records: int = 0
    bytes: int = 0
    quick: bool = False
    repaired: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong but leftovers."""
        return all(defect.harmless for defect in self.defects)


@dataclass(slots=True, kw_only=True)
class Checker:
    """One check of one store. `run` may be called once."""

    root: Path
    database: Database
    blobs: BlobStore
    layers: LayerStore
    names: ImageStore
    records: RecordStore
    work: WorkArea
    progress: Progress
    quick: bool = False
    repair: bool = False
    _defects: list[Defect] = field(default_factory=list)
    _bytes: int = 0
    _renew: bool = False
    _named_blobs: dict[str, set[str]] = field(default_factory=dict)

    def run(self) -> StoreReport:
        """Reads everything; with `quick`, sizes and documents alone; with `repair`, takes away what is wrong.

        Raises:
            StoreError: the database cannot be read at all, or is damaged and should be repaired.
            DiskFull: there is no room for what a check writes.
        """
        self._check_database()
        blobs, layers = list(self.blobs.all()), self.layers.all()
        self._announce([stat.st_size for _, stat in blobs], layers)
        for digest, stat in blobs:
            self._check_blob(digest, stat.st_size)
        images = self.names.listed()
        self._learn_blobs(images)
        for record in layers:
            self._check_layer(record)
        for row in images:
            self._check_image(row)
        records = self._check_records()
        self._check_layout()
        self._check_leftovers()
        return StoreReport(
            defects=tuple(self._defects),
            images=len(images),
            blobs=len(blobs),
            layers=len(layers),
            records=records,
            bytes=self._bytes,
            quick=self.quick,
            repaired=self.repair,
        )

    def _found(self, kind: str, name: str, problem: str, remedy: str, done: str = "") -> None:
        self._defects.append(
            Defect(kind=kind, name=name, problem=problem, remedy=done if self.repair and done else remedy)
        )

    def _announce(self, blobs: list[int], layers: list[LayerRecord]) -> None:
        """Says how much will be read."""
        sizes = [size for size in blobs if not self.quick or size <= _DOCUMENT_BYTES]
        sizes += [] if self.quick else [layer.tar_bytes for layer in layers]
        self.progress(Transferring(action="check", name="", blobs=len(sizes), total_bytes=sum(sizes)))

    # ---- database -----------------------------------------------------------------------------

    def _check_database(self) -> None:
        pragma = "quick_check" if self.quick else "integrity_check"
        said = [str(row[0]) for row in self.database.rows(f"PRAGMA {pragma}")]
        if said == ["ok"]:
            return
        if self.repair:
            raise StoreError(
                f"{self.root}/img.db is damaged ({said[0]}), and nothing in it can be believed",
                hint="save what images you can with img save, and begin with another store: --state DIR",
            )
        remedy = "save what images you can with img save, and begin with another store: --state DIR"
        for line in said[:10]:
            self._found("database", "img.db", line, remedy)

    # ---- blobs --------------------------------------------------------------------------------

    def _check_blob(self, digest: str, size: int) -> None:
        if self.quick and size > _DOCUMENT_BYTES:
            return
        try:
            actual = digest_of(self.blobs.path(digest), Meter(self.progress, "check", digest, size).at)
        except FileNotFoundError:
            return  # another process removed it
        except OSError as error:
            actual = f"not readable ({error.strerror})"
        self._read(digest, size)
        if actual == digest:
            return
        if self.repair:
            self.blobs.remove(digest)
            self._renew = True
        self._found(
            "blob",
            digest,
            f"its bytes are {actual}",
            "img store check --repair takes it away: it comes again when it is needed",
            "taken away: it comes again when it is needed",
        )

    def _read(self, digest: str, size: int) -> None:
        self._bytes += size
        Meter(self.progress, "check", digest, size).finished("read")

    # ---- layers -------------------------------------------------------------------------------

    def _check_layer(self, record: LayerRecord) -> None:
        problem = self._wrong_with(record)
        # Whatever was wrong: a layer that left the store meanwhile was not.
        if not problem or not any(known == record for known in self.layers.all()):
            return
        if self.repair:
            with self.work.begin() as trash, self.database.transaction():
                self.layers.retire(record, trash)
        self._found(
            "layer",
            record.diff_id,
            problem,
            "img store check --repair takes it away: its step runs again, or it is fetched again",
            "taken away: its step runs again, or it is fetched again",
        )

    def _wrong_with(self, record: LayerRecord) -> str:
        if not record.path.is_dir():
            return f"its folder {record.path.name} is not there"
        if self.quick:
            return ""
        try:
            packed = _core.pack_layer(str(record.path), clamp_mtime=record.clamp)
        except (DiskFull, KeyboardInterrupt):
            raise
        except (ImgError, OSError) as error:
            return f"its folder cannot be read: {error}"
        self._read(record.diff_id, record.tar_bytes)
        if record.snapshot != record.diff_id:
            return "" if packed.diff_id == record.diff_id else f"its files are those of {packed.diff_id}"
        # The tar of a layer that was pulled cannot be made again of its folder.
        expected = record.content if record.content != record.diff_id else self._content_of_blob(record)
        return "" if expected in ("", packed.content_digest) else "its files are others than were extracted"

    def _learn_blobs(self, rows: list[ImageName]) -> None:
        """Remembers which blobs hold the layers of the images."""
        for row in rows:
            try:
                images = self.names.images_of(row)
            except ImgError:
                continue  # what is wrong with it is said when it is its turn
            for layer in (layer for image in images for layer in image.layers):
                self._named_blobs.setdefault(layer.diff_id, set()).add(layer.digest)

    def _content_of_blob(self, record: LayerRecord) -> str:
        """What the files of a pulled layer should be, as its blob says; empty where nobody can tell."""
        if record.parents:
            return ""  # it was settled against the layers below
        known = {descriptor.digest for descriptor, _ in self.layers.blobs_of(record.diff_id)}
        for digest in sorted(known | self._named_blobs.get(record.diff_id, set())):
            path = self.blobs.path(digest)
            if path.exists():
                with self.work.begin() as work:
                    folder = work.folder("again")
                    try:
                        _core.apply_layer(str(path), str(folder), diff_id=record.diff_id)
                        return _core.pack_layer(str(folder)).content_digest
                    except (DiskFull, KeyboardInterrupt):
                        raise
                    except (ImgError, OSError):
                        continue  # the blob is wrong, which was said of it
        return ""

    # ---- images and records -------------------------------------------------------------------

    def _check_image(self, row: ImageName) -> None:
        problem = self._wrong_image(row)
        if not problem or row not in self.names.listed():
            return
        if self.repair:
            self.names.remove(row)
        self._found(
            "image",
            row.name,
            problem,
            "img store check --repair forgets the name; pull or build it again",
            "the name was forgotten; pull or build it again",
        )

    def _wrong_image(self, row: ImageName) -> str:
        try:
            if row.index and not isinstance(parse(self.blobs.read(row.index), where=row.index), Index):
                return f"{row.index} is no index"
            if row.bare:
                return ""  # a list that holds no image that is here
            image = self.names.load(row.manifest)
            if image.id != row.config:
                return f"its config is {image.id}, and not {row.config}"
        except BlobNotFound as error:
            return f"{error.digest} is not in the store"
        except ImgError as error:
            return str(error)
        lost = next(self._lost_layers(image), "")
        return f"layer {lost} was built here, and is gone" if lost else ""

    def _lost_layers(self, image: Image) -> Iterator[str]:
        """Layers that a step made and that are nowhere; what is merely not fetched yet is not among them."""
        here, made = {record.diff_id for record in self.layers.all()}, self.records.layers_in_use()
        for layer in image.layers:
            unsent = layer.diff_id in made and not self.layers.sources_of(layer.digest)
            if unsent and layer.diff_id not in here and not self.blobs.path(layer.digest).exists():
                yield layer.diff_id

    def _check_records(self) -> int:
        here = {record.diff_id for record in self.layers.all()}
        rows = self.database.rows("SELECT key, created, diff_id FROM records")
        for key, created, diff_id in rows:
            if diff_id and diff_id not in here:
                if self.repair:
                    self.database.change("DELETE FROM records WHERE key=? AND diff_id=?", (key, diff_id))
                self._found(
                    "record",
                    str(key),
                    f"the layer of {created!s:.60} is gone: {diff_id}",
                    "nothing: its step runs again. img store check --repair forgets it",
                    "forgotten: its step runs again",
                )
        return len(rows)

    # ---- layout and leftovers -----------------------------------------------------------------

    def _check_layout(self) -> None:
        if self._renew:
            self.names.refresh()
        problem = self._wrong_layout()
        if problem:
            if self.repair:
                self.blobs.renew_layout()
                self.names.refresh()
            self._found(
                "layout",
                "oci",
                problem,
                "img store check --repair writes it again",
                "written again",
            )

    def _wrong_layout(self) -> str:
        try:
            if (self.blobs.root / "oci-layout").read_bytes() != LAYOUT:
                return "oci-layout says something else than 1.0.0"
            with self.blobs.index_lock():
                document = json.loads((self.blobs.root / "index.json").read_bytes())
            for entry in document["manifests"]:
                if not self.names.is_whole(str(entry["digest"])):
                    return f"index.json names {entry['digest']}, which is not whole"
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            return f"it cannot be read: {error}"
        return ""

    def _check_leftovers(self) -> None:
        live = {path.name for path in self.work.live()}
        remedy, done = "img prune removes it", "removed"
        for path in self.work.root.iterdir():
            if path.name.partition(".")[0] not in live:
                self._found("leftover", f"work/{path.name}", "whoever made it has ended", remedy, done)
        named = {record.path.name for record in self.layers.all()}
        strays = [path.name for path in self.layers.root.iterdir() if path.name not in named]
        for name in strays:
            self._found("leftover", f"layers/{name}", "no layer is in it", remedy, done)
        if not live:
            for path in self.blobs.leftovers():
                self._found("leftover", f"oci/blobs/sha256/{path.name}", "half a blob", remedy, done)
        if self.repair:
            self._sweep(halves=not live)

    def _sweep(self, *, halves: bool) -> None:
        self.work.sweep()
        with self.work.begin() as trash:
            self._retire_strays(trash)
        for path in list(self.blobs.leftovers()) if halves else []:
            path.unlink(missing_ok=True)

    def _retire_strays(self, trash: WorkFolder) -> None:
        with self.database.transaction():
            self.layers.retire_strays(trash)


__all__ = ["Checker", "Defect", "StoreReport"]
