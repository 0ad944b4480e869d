"""`ImageStore`: which names point at which images.

Rows are the truth; `oci/index.json` is written from them after each change, so that other tools
find the images whose blobs are all here. An image built without a name stands under its own
image ID until it is pruned. A name of several platforms has an index, of whose images some may be here
alone; where one image is asked for, it means the one that was named last: this machine's, of a build.
A list that was put together here is such an index as well; it may hold no image at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence

from img.errors import (
    BlobNotFound,
    ImageNotFound,
    InvalidDocument,
    InvalidReference,
    Unsupported,
    UsageError,
)
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, Reference, parse
from img.oci.descriptor import INDEXES, OCI_INDEX
from img.oci.manifest import dump
from img.progress import Note, Progress, silent
from img.store.blobs import BlobStore, write_atomic
from img.store.database import Database
from img.values import dataclass, replace

_NEWEST_FIRST = "ORDER BY updated DESC, name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """One row: a full reference (or an image ID), and what it points at.

    Attributes:
        index: Digest of the index that the name stands for, of which the manifest is one; or empty.
    """

    name: str
    manifest: str
    config: str
    updated: float
    index: str = ""

    @property
    def bare(self) -> bool:
        """Its index holds no image that is here: there is none that the name could mean."""
        return self.manifest == self.index

    @property
    def named(self) -> bool:
        """False for an image that only its ID names."""
        return not self.name.startswith("sha256:")


class ImageStore:
    """The names of one store; several processes may change it at once."""

    def __init__(self, database: Database, blobs: BlobStore, progress: Progress = silent) -> None:
        """Uses the store's database and blobs.

        Args:
            progress: Told of names that were lost.
        """
        self._database = database
        self._blobs = blobs
        self._progress = progress

    def put(self, image: Image, name: Reference | None, *, index: bytes = b"") -> str:
        """Stores an image's documents and names it; gives its ID.

        A name that pointed elsewhere now points here. Layers are not looked at.

        Args:
            index: The index that the name stands for, of whose images this is one; empty where it stands
                for this image alone.
        """
        self._write(image)
        self._point(image.digest, image.id, name, self._blobs.put(index) if index else "")
        self._publish()
        return image.id

    def put_index(
        self, images: Sequence[Image], name: Reference | None, *, index: Index | None = None
    ) -> Index:
        """Stores images of several platforms and names them together; gives their index.

        Args:
            images: At least one; no two for one platform.
            index: Where it says more of them than they do of themselves.
        """
        index = self._write_index(images, index)
        main = main_of(images)
        self._point(main.digest, main.id, name, index.digest)
        self._publish()
        return index

    def put_list(self, index: Index, name: Reference) -> None:
        """Names an index whose documents are here; it may name no image."""
        self._blobs.put(index.raw)
        images = tuple(self.of_index(index.digest))
        main = (main_of(images).digest, main_of(images).id) if images else (index.digest, index.digest)
        self._point(*main, name, index.digest)
        self._publish()

    def list_of(self, row: ImageName) -> Index | None:
        """The index that a name stands for; None where it stands for one image, or the index is not here."""
        document = self._document(row.index) if row.index else None
        return document if isinstance(document, Index) else None

    def name_again(self, row: ImageName, name: Reference) -> None:
        """Gives what a name points at, whole index and all, one more name."""
        self._point(row.manifest, row.config, name, row.index)
        self._publish()

    def _write(self, image: Image) -> None:
        self._blobs.put(image.config_raw)
        self._blobs.put(image.manifest.raw)

    def _write_index(self, images: Sequence[Image], index: Index | None) -> Index:
        for image in images:
            self._write(image)
        index = index or index_of(images)
        self._blobs.put(index.raw)
        return index

    def _point(self, digest: str, id: str, name: Reference | None, index: str = "") -> None:
        row = (str(name) if name else id, digest, id, time.time(), index)
        with self._database.transaction():
            self._database.change(
                "INSERT OR REPLACE INTO images (name, manifest, config, updated, index_digest) "
                "VALUES (?,?,?,?,?)",
                row,
            )
            if name:
                self._database.change("DELETE FROM images WHERE name=?", (id,))

    def find(self, name: Reference) -> Image | None:
        """Gives the image of exactly this name (by digest, where it has one), or None."""
        row = self._fitting(name)
        return self.load(row.manifest) if row and not row.bare else None

    def meaning(self, name: Reference) -> str:
        """The digest of what exactly this name stands for: an index, or a manifest; empty for nothing."""
        rows = self._rows("WHERE name=?", [str(name)])
        return rows[0].index or rows[0].manifest if rows else ""

    def _fitting(self, name: Reference) -> ImageName | None:
        """The row of exactly this name; of a digest, any that has it, that of one member made its own row."""
        row = next(iter(self._rows("WHERE name=?", [str(name)])), None)
        if row is not None or not name.digest:
            return row
        rows = self._rows("WHERE manifest=? OR index_digest=?", [name.digest, name.digest])
        found = next(iter(rows), None)
        return found or next((m for m in self._members() if m.manifest == name.digest), None)

    def _members(self) -> Iterator[ImageName]:
        """A row for each image that an index holds, but for those that its name means itself."""
        for row in self._rows("WHERE index_digest != ''"):
            for image in self.of_index(row.index):
                if image.digest != row.manifest:
                    yield replace(row, manifest=image.digest, config=image.id, index="")

    def find_for(self, name: Reference, platform: Platform) -> tuple[Image, str] | None:
        """Gives the image that a name (or a digest, where it has one) stands for on a platform.

        Of an index, every image counts whose documents are here, and not only the one that was named
        last; a digest of one image means that image, whatever it is for.

        Returns:
            The image, and the digest of what the name stands for: of an index, or of its manifest. None
            where it is not here.
        """
        row = self._fitting(name)
        if row is None or row.bare:
            return None
        image = self.load(row.manifest)
        if row.manifest == name.digest:
            return image, row.manifest
        for known in (image, *self.of_index(row.index)):
            if platform.accepts(known.platform):
                return known, row.index or row.manifest
        return None

    def images_of(self, row: ImageName) -> tuple[Image, ...]:
        """Every image that a name stands for and whose documents are here: one for each platform.

        Raises:
            BlobNotFound: it is of one platform, and not even that one is here.
            UsageError: it is a list that holds no image.
        """
        return tuple(self.of_index(row.index)) or (self.load(row.manifest),)

    def of_index(self, digest: str) -> Iterator[Image]:
        """The images of an index whose documents are here; none where the index is not, or is empty."""
        named: dict[str, None] = {}
        for document in self.documents(digest) if digest else ():
            for entry in document.manifests if isinstance(document, Index) else ():
                # An attestation is an image in form alone.
                if entry.media_type not in INDEXES and not _is_attestation(entry):
                    named[entry.digest] = None
        for wanted in named:
            try:
                if self._manifest(wanted).is_image:
                    yield self.load(wanted)
            except (BlobNotFound, UsageError):
                continue  # of a platform that nobody asked for
            except (InvalidDocument, Unsupported):
                continue  # no image

    def documents(self, digest: str) -> Iterator[Manifest | Index]:
        """Every manifest and index that a digest leads to and that is here, that one included, each once."""
        seen, waiting = {digest}, [digest]
        while waiting:
            document = self._document(waiting.pop())
            if document is None:
                continue
            yield document
            for entry in reversed(document.manifests) if isinstance(document, Index) else ():
                if entry.digest not in seen:
                    seen.add(entry.digest)
                    waiting.append(entry.digest)

    def others_of(self, index: Index) -> Iterator[Manifest]:
        """The manifests that an index names itself, that are here, and that are none of its images."""
        images = {image.digest for image in self.of_index(index.digest)}
        for digest in dict.fromkeys(entry.digest for entry in index.manifests):
            document = self._document(digest)
            if isinstance(document, Manifest) and digest not in images:
                yield document

    def reach(self, digest: str) -> Iterator[str]:
        """The digests of a manifest or an index and of all that it names, as far as documents are here."""
        yield digest
        for document in self.documents(digest):
            if isinstance(document, Index):
                yield from (entry.digest for entry in document.manifests)
            else:
                yield from (blob.digest for blob in (document.config, *document.layers))

    def _document(self, digest: str) -> Manifest | Index | None:
        """A document; None where it is not here, or is none: an index may name whatever its maker likes."""
        try:
            return parse(self._blobs.read(digest), where=digest)
        except (BlobNotFound, InvalidDocument, Unsupported):
            return None

    def get(self, text: str) -> Image:
        """Gives an image by name, by `sha256:` ID, or by the first digits of its ID.

        Raises:
            ImageNotFound: with near names.
            UsageError: the digits fit several images.
        """
        return self.load(self.row(text).manifest)

    def row(self, text: str) -> ImageName:
        """Like `get`, but gives the row."""
        rows = self.all()
        try:
            wanted = Reference.parse(text)
        except InvalidReference:
            wanted = None
        found = self._fitting(wanted) if wanted is not None else None
        if found is not None:
            return found
        digits = text.removeprefix("sha256:")
        fitting = [r for r in (*rows, *self._members()) if digits and r.config.startswith(f"sha256:{digits}")]
        if len({r.config for r in fitting}) > 1:
            raise UsageError(f"{text} fits several images", hint="give more digits of the ID")
        if fitting:
            return fitting[0]
        raise ImageNotFound(text, near_names(wanted or Reference.parse(text), rows))

    def load(self, manifest_digest: str) -> Image:
        """Reads an image from its documents.

        Raises:
            BlobNotFound: a document is not in the store.
            InvalidDocument: one is damaged.
        """
        manifest = self._manifest(manifest_digest)
        raw = self._blobs.read(manifest.config.digest)
        config = ImageConfig.from_bytes(raw)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidDocument(manifest.config.digest, "it has another number of layers than its manifest")
        return Image(manifest=manifest, config=config, config_raw=raw)

    def _manifest(self, digest: str) -> Manifest:
        manifest = parse(self._blobs.read(digest), where=digest)
        if not isinstance(manifest, Manifest):
            raise UsageError(
                f"{digest} is a list of images, not an image",
                hint="img manifest inspect shows what is in it",
            )
        return manifest

    def all(self) -> list[ImageName]:
        """Every row, newest first."""
        return self._rows(_NEWEST_FIRST)

    def listed(self) -> list[ImageName]:
        """As `all`, with those whose documents are lost: for who looks for damage."""
        return self._read(_NEWEST_FIRST)

    def _rows(self, rest: str, values: Sequence[object] = ()) -> list[ImageName]:
        """Rows by an SQL condition.

        One whose documents are gone (a power cut took back that it was removed; somebody deleted files) would
        be in everybody's way, even of a pull that brings them again: it goes, like a layer without a folder.
        """
        rows = self._read(rest, values)
        lost = [row for row in rows if not self._has_documents(row)]
        for row in lost:
            # Unless it was named anew since it was read.
            where, known = "name=? AND manifest=? AND config=?", (row.name, row.manifest, row.config)
            if self._database.change(f"DELETE FROM images WHERE {where}", known) and row.named:
                shown = Reference.parse(row.name).familiar
                text = f"the documents of {shown} are gone, and so is the name: pull or build it again"
                self._progress(Note(level="warning", text=text))
        if lost and not self._database.in_transaction:  # the index's lock comes before the database's
            self._publish()
        return [row for row in rows if row not in lost] if lost else rows

    def _has_documents(self, row: ImageName) -> bool:
        """Tells whether both are here; what cannot be looked at is not taken for gone."""
        try:
            for digest in (row.manifest, row.config):
                os.stat(self._blobs.path(digest))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _read(self, rest: str, values: Sequence[object] = ()) -> list[ImageName]:
        rows = self._database.rows(
            f"SELECT name, manifest, config, updated, index_digest FROM images {rest}", values
        )
        return [
            ImageName(name=str(n), manifest=str(m), config=str(c), updated=float(str(u)), index=str(i))
            for n, m, c, u, i in rows
        ]

    def remove(self, row: ImageName) -> None:
        """Takes a name away; what it alone held is for `store.gc` to free."""
        self._database.change("DELETE FROM images WHERE name=?", (row.name,))
        self._publish()

    def drop_unnamed(self, *, updated_before: float) -> int:
        """Forgets images that only their ID names; gives their number."""
        dropped = self._database.change(
            "DELETE FROM images WHERE name LIKE 'sha256:%' AND updated<?", (updated_before,)
        )
        if dropped:
            self._publish()
        return dropped

    def refresh(self) -> None:
        """Writes `index.json` anew, after images lost a blob."""
        self._publish()

    def _publish(self) -> None:
        """Writes `index.json` from the rows, under a lock that other processes take too."""
        with self._blobs.index_lock():
            entries = [
                _named(descriptor, row).to_json()
                for row in self._read(_NEWEST_FIRST)
                if (descriptor := self._whole(row)) is not None
            ]
            document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            write_atomic(self._blobs.root / "index.json", dump(document))

    def _whole(self, row: ImageName) -> Descriptor | None:
        """What a name points at, if its blobs are all here: the index, else the one image, or None."""
        for digest in filter(None, (row.index, row.manifest)):
            if self.is_whole(digest):
                return parse(self._blobs.read(digest), where=digest).descriptor
        return None

    def whole_index(self, digest: str) -> dict[str, Manifest | Index]:
        """Every document of an index, by digest, where all that it names is here; else nothing."""
        if not self.is_whole(digest):
            return {}
        return {document.digest: document for document in self.documents(digest)}

    def is_whole(self, digest: str) -> bool:
        """Tells whether a manifest, or an index, and all that it names are here."""
        found = {document.digest: document for document in self.documents(digest)}
        return digest in found and all(
            all(entry.digest in found for entry in document.manifests)
            if isinstance(document, Index)
            else all(self._blobs.path(d.digest).exists() for d in (document.config, *document.layers))
            for document in found.values()
        )


def index_of(images: Sequence[Image]) -> Index:
    """The index that names images of several platforms, in this order."""
    return Index.make([replace(image.manifest.descriptor, platform=image.platform) for image in images])


def main_of(images: Sequence[Image]) -> Image:
    """The image that a name of several platforms means where one is asked for."""
    host = Platform.host()
    return next((image for image in images if host.accepts(image.platform)), images[0])


def _is_attestation(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform.os == "unknown"


def _named(descriptor: Descriptor, row: ImageName) -> Descriptor:
    notes = {"org.opencontainers.image.ref.name": row.name} if row.named else {}
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=notes,
    )


def near_names(wanted: Reference, rows: Iterable[ImageName]) -> tuple[str, ...]:
    """The names that look most like a name, whatever their registries."""
    from difflib import get_close_matches  # only a mistake pays for this import

    names = [Reference.parse(row.name) for row in rows if row.named]
    near = get_close_matches(wanted.repository, {name.repository for name in names}, n=3, cutoff=0.6)
    like = [name for repository in near for name in names if name.repository == repository]
    like.sort(
        key=lambda name: (
            near.index(name.repository),
            name.suffix != wanted.suffix,
            name.registry != wanted.registry,
        )
    )
    return tuple(name.familiar for name in like[:3])
