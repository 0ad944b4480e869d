"""`RecordStore`: what the build cache remembers: a cache key, all its inputs, and its result.

The inputs are kept as canonical JSON so that a miss can be explained field by field (DESIGN D6).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from img.store.database import Database
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """One remembered step.

    Attributes:
        key: sha256 of `inputs`.
        inputs: Canonical JSON of everything that may change the result.
        diff_id: The layer, or empty for a step that changed nothing.
        content: Content digest of that layer, or empty.
        tar_bytes: Size of the layer's tar.
        created: RFC 3339 time at which the step ran: it goes into the image, so that a hit gives
            gives the same image again.
        title: The step as people see it: how a record that is like another's key is found (`explain`).
        place: Where in which Dockerfile the step stood, for the same purpose.
        listing: Name of the list of files that it copied (`store.listings`), or empty.
    """

    key: str
    inputs: str
    diff_id: str = ""
    content: str = ""
    tar_bytes: int = 0
    created: str = ""
    title: str = ""
    place: str = ""
    listing: str = ""


_CANDIDATES = 64
"""Records that a key is compared with, at the most."""

_COLUMNS = "key, inputs, diff_id, content, tar_bytes, created, title, place, listing"


class RecordStore:
    """The cache records of one store."""

    def __init__(self, database: Database) -> None:
        """Uses the store's database."""
        self._database = database
        self._found: set[str] = set()

    def find(self, key: str) -> CacheRecord | None:
        """Looks a record up by its key, which `count_uses` counts as used."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM records WHERE key=?", (key,))
        if not rows:
            return None
        self._found.add(key)
        return _record(rows[0])

    def count_uses(self) -> None:
        """Counts what was found since the last call as used now, in one transaction.

        Until then a collection takes a record for one that was used when it was last counted; a layer that
        was found (`LayerStore.find`) is safe from it at once.
        """
        found, self._found = self._found, set()
        now = time.time()
        if found:
            with self._database.transaction():
                for key in found:
                    self._database.change("UPDATE records SET used=? WHERE key=?", (now, key))

    def put(self, record: CacheRecord) -> None:
        """Remembers a step; an earlier record under the same key is replaced."""
        self._database.change(
            f"INSERT OR REPLACE INTO records ({_COLUMNS}, used) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (record.key, record.inputs, record.diff_id, record.content, record.tar_bytes,
             record.created, record.title, record.place, record.listing, time.time()),
        )  # fmt: skip

    def of_runs(self, created: Sequence[str]) -> list[CacheRecord]:
        """The records of steps that ran at these times; a step that several keys find has several."""
        found: list[CacheRecord] = []
        for start in range(0, len(created), 500):  # SQLite takes so many values at least
            some = tuple(created[start : start + 500])
            marks = ",".join("?" * len(some))
            query = f"SELECT {_COLUMNS} FROM records WHERE created IN ({marks})"
            found.extend(_record(row) for row in self._database.rows(query, some))
        return found

    def has(self, key: str) -> bool:
        """Tells whether there is a record under a key; it does not count as used."""
        return bool(self._database.rows("SELECT 1 FROM records WHERE key=?", (key,)))

    def titled(self, title: str) -> list[CacheRecord]:
        """Some records of steps that people see under this title, the last used first."""
        return self._like("title", title)

    def placed(self, place: str) -> list[CacheRecord]:
        """Some records of steps that stood at a place, the last used first."""
        return self._like("place", place)

    def any_titled(self, title: str) -> bool:
        """Is there a record that `titled` would give?"""
        return self._any("title", title)

    def any_placed(self, place: str) -> bool:
        """Is there a record that `placed` would give?"""
        return self._any("place", place)

    def _any(self, column: str, value: str) -> bool:
        return bool(self._database.rows(f"SELECT 1 FROM records WHERE {column}=? LIMIT 1", (value,)))

    def _like(self, column: str, value: str) -> list[CacheRecord]:
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM records WHERE {column}=? ORDER BY used DESC LIMIT {_CANDIDATES}",
            (value,),
        )
        return [_record(row) for row in rows]

    def earlier(self, like: CacheRecord) -> CacheRecord | None:
        """An earlier record of the same result: of the same step, else of its place, else of any step.

        Without a layer, only a record of the same step or place counts.

        Args:
            like: A record that is not kept yet.
        """
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM records WHERE diff_id=? AND (title=? OR place=? OR diff_id<>'') "
            "ORDER BY title<>?, place<>?, used DESC LIMIT 1",
            (like.diff_id, like.title, like.place, like.title, like.place),
        )
        return _record(rows[0]) if rows else None

    def listings(self) -> set[str]:
        """Names of the lists of files that records have."""
        return {
            str(name)
            for (name,) in self._database.rows("SELECT DISTINCT listing FROM records WHERE listing<>''")
        }

    def drop(self, *, unused_since: float) -> int:
        """Forgets records not used since a time (seconds since the epoch); gives their number."""
        return self._database.change("DELETE FROM records WHERE used<?", (unused_since,))

    def layers_in_use(self) -> set[str]:
        """Diff IDs that some record names."""
        return {
            str(d) for (d,) in self._database.rows("SELECT DISTINCT diff_id FROM records WHERE diff_id<>''")
        }


def _record(row: tuple[object, ...]) -> CacheRecord:
    key, inputs, diff_id, content, tar_bytes, created, title, place, listing = row
    return CacheRecord(
        key=str(key),
        inputs=str(inputs),
        diff_id=str(diff_id),
        content=str(content),
        tar_bytes=int(str(tar_bytes)),
        created=str(created),
        title=str(title),
        place=str(place),
        listing=str(listing),
    )
