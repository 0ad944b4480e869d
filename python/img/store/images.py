"""`ImageStore`: which names point at which images.

Rows are the truth; `oci/index.json` is written from them after each change, so that other tools
find the images whose blobs are all here. An image built without a name stands under its own
image ID until it is pruned. A name of several platforms has an index, all of whose images are here, and
means the image of this machine's platform (or its first) wherever one image is asked for.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from img.errors import BlobNotFound, ImageNotFound, InvalidReference, UsageError
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, Reference, parse
from img.oci.descriptor import OCI_INDEX
from img.oci.manifest import dump
from img.store.blobs import BlobStore, write_atomic
from img.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """One row: a full reference (or an image ID), and what it points at.

    Attributes:
        index: Digest of the index of a name of several platforms; else empty. `manifest` is one of its.
    """

    name: str
    manifest: str
    config: str
    updated: float
    index: str = ""

    @property
    def named(self) -> bool:
        """False for an image that only its ID names."""
        return not self.name.startswith("sha256:")


class ImageStore:
    """The names of one store; several processes may change it at once."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        """Uses the store's database and blobs."""
        self._database = database
        self._blobs = blobs

    def put(self, image: Image, name: Reference | None) -> str:
        """Stores an image's documents and names it; gives its ID.

        A name that pointed elsewhere now points here. Layers are not looked at.
        """
        self._write(image)
        self._point(image, name)
        self._publish()
        return image.id

    def put_index(self, images: Sequence[Image], name: Reference | None) -> Index:
        """Stores images of several platforms and names them together; gives their index.

        Args:
            images: At least one; no two for one platform.
        """
        index = self._write_index(images)
        self._point(_main(images), name, index.digest)
        self._publish()
        return index

    def join(self, image: Image, name: Reference) -> None:
        """Names an image beside those that the name has for other platforms already.

        One of its own platform gives way. Where it is the only one, this is `put`.
        """
        with self._database.transaction():
            row = self._row_named(str(name))
            others = [self.load(digest) for digest in self.manifests(row)] if row else []
            others = [other for other in others if not image.platform.accepts(other.platform)]
            if others:
                images = (*others, image)
                self._point(_main(images), name, self._write_index(images).digest)
            else:
                self._write(image)
                self._point(image, name)
        self._publish()

    def name_again(self, row: ImageName, name: Reference) -> None:
        """Gives what a name points at, whole index and all, one more name."""
        self._point(self.load(row.manifest), name, row.index)
        self._publish()

    def _write(self, image: Image) -> None:
        self._blobs.put(image.config_raw)
        self._blobs.put(image.manifest.raw)

    def _write_index(self, images: Sequence[Image]) -> Index:
        for image in images:
            self._write(image)
        index = index_of(images)
        self._blobs.put(index.raw)
        return index

    def _point(self, image: Image, name: Reference | None, index: str = "") -> None:
        row = (str(name) if name else image.id, image.digest, image.id, time.time(), index)
        with self._database.transaction():
            self._database.change(
                "INSERT OR REPLACE INTO images (name, manifest, config, updated, index_digest) "
                "VALUES (?,?,?,?,?)",
                row,
            )
            if name:
                self._database.change("DELETE FROM images WHERE name=?", (image.id,))

    def find(self, name: Reference, platform: Platform | None = None) -> Image | None:
        """Gives the image of exactly this name (by digest, where it has one), or None.

        Args:
            platform: Of a name of several platforms, the image for this one; one of them where it has none.
        """
        condition, values = "name=?", [str(name)]
        if name.digest:
            condition, values = "manifest=? OR index_digest=? OR name=?", [name.digest, name.digest, *values]
        rows = self._rows(f"WHERE {condition}", values)
        if not rows:
            return None
        row = next((r for r in rows if r.index), rows[0]) if platform else rows[0]
        if platform and row.index and row.manifest != name.digest:
            chosen = self._index(row).choose(platform)
            return self.load(chosen.digest if chosen else row.manifest)
        return self.load(row.manifest)

    def manifests(self, row: ImageName) -> tuple[str, ...]:
        """The digests of all manifests that a name stands for, one for each platform."""
        try:
            return tuple(d.digest for d in self._index(row).manifests) if row.index else (row.manifest,)
        except BlobNotFound:
            return (row.manifest,)

    def platforms(self, row: ImageName) -> tuple[Platform, ...]:
        """The platforms of a name that has an index; none for any other."""
        try:
            return self._index(row).platforms if row.index else ()
        except BlobNotFound:
            return ()

    def _index(self, row: ImageName) -> Index:
        index = parse(self._blobs.read(row.index), where=row.index)
        if not isinstance(index, Index):
            raise UsageError(f"{row.index} is no index")
        return index

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
        if wanted is not None:
            for row in rows:
                if row.name == str(wanted) or (wanted.digest in (row.manifest, row.index) and wanted.digest):
                    return row
        digits = text.removeprefix("sha256:")
        fitting = [r for r in rows if digits and r.config.startswith(f"sha256:{digits}")]
        if len({r.config for r in fitting}) > 1:
            raise UsageError(f"{text} fits several images", hint="give more digits of the ID")
        if fitting:
            return fitting[0]
        if wanted is None:
            Reference.parse(text)
        names = [Reference.parse(r.name).familiar for r in rows if r.named]
        raise ImageNotFound(text, tuple(difflib.get_close_matches(text, names, n=3, cutoff=0.6)))

    def load(self, manifest_digest: str) -> Image:
        """Reads an image from its documents.

        Raises:
            BlobNotFound: a document is not in the store.
        """
        manifest = parse(self._blobs.read(manifest_digest), where=manifest_digest)
        if not isinstance(manifest, Manifest):
            raise UsageError(f"{manifest_digest} is an index of several images, not an image")
        raw = self._blobs.read(manifest.config.digest)
        return Image(manifest=manifest, config=ImageConfig.from_bytes(raw), config_raw=raw)

    def all(self) -> list[ImageName]:
        """Every row, newest first."""
        return self._rows("ORDER BY updated DESC, name")

    def _row_named(self, name: str) -> ImageName | None:
        return next(iter(self._rows("WHERE name=?", [name])), None)

    def _rows(self, rest: str, values: Sequence[object] = ()) -> list[ImageName]:
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

    def _publish(self) -> None:
        """Writes `index.json` from the rows, under a lock that other processes take too."""
        with self._blobs.index_lock():
            entries = [
                _named(descriptor, row).to_json()
                for row in self.all()
                if (descriptor := self._whole(row)) is not None
            ]
            document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            write_atomic(self._blobs.root / "index.json", dump(document))

    def _whole(self, row: ImageName) -> Descriptor | None:
        """What a name points at, if its blobs are all here: the index, else the one image, or None."""
        try:
            if row.index and all(self._is_whole(digest) for digest in self.manifests(row)):
                return self._index(row).descriptor
            manifest = parse(self._blobs.read(row.manifest), where=row.manifest)
        except BlobNotFound:
            return None
        return manifest.descriptor if self._is_whole(row.manifest) else None

    def _is_whole(self, digest: str) -> bool:
        """Tells whether a manifest and all that it names are here."""
        manifest = parse(self._blobs.read(digest), where=digest)
        if not isinstance(manifest, Manifest):
            return False
        return all(self._blobs.path(d.digest).exists() for d in (manifest.config, *manifest.layers))


def index_of(images: Sequence[Image]) -> Index:
    """The index that names images of several platforms, in this order."""
    return Index.make([replace(image.manifest.descriptor, platform=image.platform) for image in images])


def _main(images: Sequence[Image]) -> Image:
    """The image that a name of several platforms means where one is asked for."""
    host = Platform.host()
    return next((image for image in images if host.accepts(image.platform)), images[0])


def _named(descriptor: Descriptor, row: ImageName) -> Descriptor:
    notes = {"org.opencontainers.image.ref.name": row.name} if row.named else {}
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=notes,
    )
