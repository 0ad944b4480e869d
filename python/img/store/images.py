"""`ImageStore`: which names point at which images.

Rows are the truth; `oci/index.json` is written from them after each change, so that other tools
find the images whose blobs are all here. An image built without a name stands under its own
image ID until it is pruned.
"""

from __future__ import annotations

import time

from img.errors import BlobNotFound, ImageNotFound, InvalidReference, UsageError
from img.oci import Descriptor, Image, ImageConfig, Manifest, Reference, parse
from img.oci.descriptor import OCI_INDEX
from img.oci.manifest import dump
from img.store.blobs import BlobStore, write_atomic
from img.store.database import Database
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """One row: a full reference (or an image ID), and what it points at."""

    name: str
    manifest: str
    config: str
    updated: float

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
        self._blobs.put(image.config_raw)
        self._blobs.put(image.manifest.raw)
        row = (str(name) if name else image.id, image.digest, image.id, time.time())
        with self._database.transaction():
            self._database.change(
                "INSERT OR REPLACE INTO images (name, manifest, config, updated) VALUES (?,?,?,?)", row
            )
            if name:
                self._database.change("DELETE FROM images WHERE name=?", (image.id,))
        self._publish()
        return image.id

    def find(self, name: Reference) -> Image | None:
        """Gives the image of exactly this name (by digest, where it has one), or None."""
        if name.digest:
            rows = self._database.rows(
                "SELECT name, manifest FROM images WHERE manifest=? OR name=?", (name.digest, str(name))
            )
        else:
            rows = self._database.rows("SELECT name, manifest FROM images WHERE name=?", (str(name),))
        return self.load(str(rows[0][1])) if rows else None

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
                if row.name == str(wanted) or (wanted.digest and row.manifest == wanted.digest):
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
        from difflib import get_close_matches  # only a mistake pays for this import

        raise ImageNotFound(text, tuple(get_close_matches(text, names, n=3, cutoff=0.6)))

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
        rows = self._database.rows(
            "SELECT name, manifest, config, updated FROM images ORDER BY updated DESC, name"
        )
        return [
            ImageName(name=str(n), manifest=str(m), config=str(c), updated=float(str(u)))
            for n, m, c, u in rows
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
                _named(manifest.descriptor, row).to_json()
                for row in self.all()
                if (manifest := self._whole(row)) is not None
            ]
            document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            write_atomic(self._blobs.root / "index.json", dump(document))

    def _whole(self, row: ImageName) -> Manifest | None:
        """The manifest of an image whose blobs are all here, or None."""
        try:
            manifest = parse(self._blobs.read(row.manifest), where=row.manifest)
        except BlobNotFound:
            return None
        if not isinstance(manifest, Manifest):
            return None
        here = (self._blobs.path(d.digest).exists() for d in (manifest.config, *manifest.layers))
        return manifest if all(here) else None


def _named(descriptor: Descriptor, row: ImageName) -> Descriptor:
    notes = {"org.opencontainers.image.ref.name": row.name} if row.named else {}
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=notes,
    )
