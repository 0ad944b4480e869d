"""`LayerStore`: extracted layers, each in a folder of its own, immutable once published.

A layer stands under its diff ID alone; only one that had to be settled against the layers below it
(`_core.settle_layer`) also carries the chain ID of those. Publication is one rename inside the
database's write lock, so a layer that a row names is whole. Equal layers are kept once: the
earlier one stays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from img.oci import Descriptor, chain_id
from img.store.database import Database
from img.store.tokens import new_snapshot_id, token
from img.store.work import WorkFolder
from img.values import dataclass, replace

_COLUMNS = "diff_id, parents, dir, snapshot, content, tar_bytes, clamp, created, used"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """One published layer.

    Attributes:
        parents: Chain ID of the layers below where it was settled against them, else empty.
        path: Its folder, in overlay's own form.
        snapshot: Identity shown to people: 25 letters and digits, or the diff ID if pulled.
        content: `blake3:<hex>` of everything but times; the diff ID where it was never computed.
        tar_bytes: Size of the uncompressed tar.
        clamp: Times later than this (seconds since the epoch) are this in the tar, though not on
            disk; None where the tar has the times that the disk has.
        created: Seconds since the epoch.
        used: When a build last read it, seconds since the epoch.
    """

    diff_id: str
    parents: str
    path: Path
    snapshot: str
    content: str
    tar_bytes: int
    clamp: int | None
    created: float
    used: float


class LayerStore:
    """The layers of one store; several processes may use it at once."""

    def __init__(self, database: Database, root: Path) -> None:
        """Uses the folder `root`, which exists."""
        self._database = database
        self.root = root

    def find(self, diff_id: str, below: Sequence[str] = ()) -> LayerRecord | None:
        """Looks a layer up, and counts it as used now.

        Args:
            below: Diff IDs of the layers below it, base first.
        """
        return self._touch(diff_id, ("", ground(below)))

    def _touch(self, diff_id: str, parents: tuple[str, str]) -> LayerRecord | None:
        """A layer that stands alone or on these parents, counted as used now, if its folder is here."""
        with self._database.transaction():
            self._database.change(
                "UPDATE layers SET used=? WHERE diff_id=? AND parents IN (?, ?)",
                (time.time(), diff_id, *parents),
            )
            rows = self._database.rows(
                f"SELECT {_COLUMNS} FROM layers WHERE diff_id=? AND parents IN (?, ?)", (diff_id, *parents)
            )
            for row in rows:
                record = self._record(row)
                if record.path.is_dir():
                    return record
                self._forget(record)
        return None

    def _learn_content(self, record: LayerRecord, content: str) -> LayerRecord:
        """Writes down the content digest of a layer that was pulled, once a build has computed it."""
        if not content or record.content != record.diff_id:
            return record
        self._database.change(
            "UPDATE layers SET content=? WHERE diff_id=? AND parents=?",
            (content, record.diff_id, record.parents),
        )
        return replace(record, content=content)

    def publish(
        self,
        folder: Path,
        *,
        diff_id: str,
        tar_bytes: int,
        content: str = "",
        clamp: int | None = None,
        settled_on: str = "",
        snapshot: str = "",
        trash: WorkFolder,
    ) -> LayerRecord:
        """Moves a finished folder in place, or keeps the equal layer that is there already.

        Args:
            folder: On the store's file system; gone afterwards.
            settled_on: What it stands on (`ground`), where it depends on that.
            trash: Takes what is superfluous, to be removed later.
        """
        name = diff_id.partition(":")[2] + (f".{settled_on[-16:]}" if settled_on else "")
        target = self.root / name
        now = time.time()
        with self._database.transaction():
            present = self._touch(diff_id, ("", settled_on))
            if present is not None:
                folder.rename(trash.path / f"equal-{token(4)}")
                return self._learn_content(present, content)
            if target.exists():  # left by a process that died between the rename and the row
                target.rename(trash.path / f"orphan-{token(4)}")
            folder.rename(target)
            self._database.change(
                f"INSERT OR REPLACE INTO layers ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",
                (diff_id, settled_on, name, snapshot or new_snapshot_id(), content or diff_id,
                 tar_bytes, clamp, now, now),
            )  # fmt: skip
            rows = self._database.rows(
                f"SELECT {_COLUMNS} FROM layers WHERE diff_id=? AND parents=?", (diff_id, settled_on)
            )
        return self._record(rows[0])

    def by_content(self, content: str) -> LayerRecord | None:
        """Finds an earlier layer of the same content (DESIGN D6: that one is kept)."""
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM layers WHERE content=? AND parents='' ORDER BY created LIMIT 1",
            (content,),
        )
        return self.find(self._record(rows[0]).diff_id) if rows else None

    def all(self) -> list[LayerRecord]:
        """Every published layer, oldest first; counts none as used."""
        return [
            self._record(row)
            for row in self._database.rows(f"SELECT {_COLUMNS} FROM layers ORDER BY created")
        ]

    def retire(self, record: LayerRecord, trash: WorkFolder) -> None:
        """Takes a layer out of the store into `trash`; call it inside a transaction."""
        self._forget(record)
        if record.path.exists():
            record.path.rename(trash.path / f"layer-{token(6)}")

    def retire_strays(self, trash: WorkFolder) -> None:
        """Takes folders out that no row names; call it inside a transaction.

        A process that was killed between the rename and the commit left them: whoever is alive is
        outside of `publish`, since the write lock is ours.
        """
        named = {record.path.name for record in self.all()}
        for path in self.root.iterdir():
            if path.name not in named:
                path.rename(trash.path / f"stray-{token(6)}")

    def remember_blob(self, diff_id: str, descriptor: Descriptor, *, source: str, made: str = "") -> None:
        """Records that a blob is this layer's compressed form.

        Args:
            source: `registry/repository` it came from or went to, for cross-repository mounts; an
                empty one leaves what is known.
            made: How it was compressed here (`gzip:6`); empty for one that was not, which leaves what is
                known.
        """
        self._database.change(
            "INSERT INTO layer_blobs (diff_id, digest, media_type, size, source, made) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT (diff_id, digest) DO UPDATE SET media_type=excluded.media_type, size=excluded.size, "
            "source=CASE excluded.source WHEN '' THEN source ELSE excluded.source END, "
            "made=CASE excluded.made WHEN '' THEN made ELSE excluded.made END",
            (diff_id, descriptor.digest, descriptor.media_type, descriptor.size, source, made),
        )

    def blobs_of(self, diff_id: str) -> list[tuple[Descriptor, str]]:
        """The known compressed forms of a layer, each with where it was seen."""
        rows = self._database.rows(
            "SELECT media_type, digest, size, source FROM layer_blobs WHERE diff_id=?", (diff_id,)
        )
        return [
            (Descriptor(media_type=str(m), digest=str(d), size=int(str(n))), str(s)) for m, d, n, s in rows
        ]

    def made_of(self, diff_id: str) -> list[tuple[Descriptor, str]]:
        """The forms of a layer that were compressed here, each with how."""
        rows = self._database.rows(
            "SELECT media_type, digest, size, made FROM layer_blobs WHERE diff_id=? AND made<>''", (diff_id,)
        )
        return [
            (Descriptor(media_type=str(m), digest=str(d), size=int(str(n))), str(how))
            for m, d, n, how in rows
        ]

    def built_here(self, diff_id: str) -> bool:
        """Tells whether a layer's folder gives its tar back: a build made it, and no registry gave it."""
        rows = self._database.rows("SELECT 1 FROM layers WHERE diff_id=? AND snapshot<>diff_id", (diff_id,))
        return bool(rows)

    def sources_of(self, digest: str) -> list[str]:
        """The repositories in which a blob was seen."""
        return [str(s) for (s,) in self._database.rows(
            "SELECT DISTINCT source FROM layer_blobs WHERE digest=? AND source<>''", (digest,)
        )]  # fmt: skip

    def _forget(self, record: LayerRecord) -> None:
        self._database.change(
            "DELETE FROM layers WHERE diff_id=? AND parents=?", (record.diff_id, record.parents)
        )

    def _record(self, row: tuple[object, ...]) -> LayerRecord:
        diff_id, parents, name, snapshot, content, tar_bytes, clamp, created, used = row
        return LayerRecord(
            diff_id=str(diff_id),
            parents=str(parents),
            path=self.root / str(name),
            snapshot=str(snapshot),
            content=str(content),
            tar_bytes=int(str(tar_bytes)),
            clamp=None if clamp is None else int(str(clamp)),
            created=float(str(created)),
            used=float(str(used)),
        )


def ground(below: Sequence[str]) -> str:
    """Names what a settled layer stands on: the chain ID of the layers below, or that there are none."""
    return chain_id(below) if below else "nothing"
