"""`Database`: the store's one SQLite file, its schema, and its errors in the store's own words.

Called by the other modules of this floor only. One connection serves every thread of the process,
one at a time; other processes are kept apart by SQLite (WAL). Nothing slow happens inside a
transaction but a rename.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from img.errors import DiskFull, StoreError, StoreVersionError

VERSION = 3
"""Format of the whole store (folders and tables). A higher one on disk is refused, a lower one migrated."""

_FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    name TEXT PRIMARY KEY, manifest TEXT NOT NULL, config TEXT NOT NULL, updated REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE layers (
    diff_id TEXT NOT NULL, parents TEXT NOT NULL, dir TEXT NOT NULL, snapshot TEXT NOT NULL,
    content TEXT NOT NULL, tar_bytes INTEGER NOT NULL,
    clamp INTEGER, created REAL NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (diff_id, parents)
) WITHOUT ROWID;
CREATE INDEX layers_by_content ON layers (content);
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    source TEXT NOT NULL, PRIMARY KEY (diff_id, digest)
) WITHOUT ROWID;
CREATE TABLE records (
    key TEXT PRIMARY KEY, inputs TEXT NOT NULL, diff_id TEXT NOT NULL, content TEXT NOT NULL,
    tar_bytes INTEGER NOT NULL, created TEXT NOT NULL, used REAL NOT NULL
) WITHOUT ROWID
"""

_FORMAT_2 = """
ALTER TABLE images ADD COLUMN index_digest TEXT NOT NULL DEFAULT '';
ALTER TABLE records ADD COLUMN title TEXT NOT NULL DEFAULT '';
ALTER TABLE records ADD COLUMN place TEXT NOT NULL DEFAULT '';
ALTER TABLE records ADD COLUMN listing TEXT NOT NULL DEFAULT '';
CREATE INDEX records_by_title ON records (title, used);
CREATE INDEX records_by_place ON records (place, used);
CREATE INDEX records_by_layer ON records (diff_id);
CREATE TABLE builds (
    id TEXT PRIMARY KEY, started REAL NOT NULL, seconds REAL NOT NULL, status TEXT NOT NULL,
    lease TEXT NOT NULL, names TEXT NOT NULL, context TEXT NOT NULL, dockerfile TEXT NOT NULL,
    image TEXT NOT NULL, steps INTEGER NOT NULL, cached INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX builds_by_start ON builds (started)
"""

_FORMAT_3 = """
ALTER TABLE layer_blobs ADD COLUMN made TEXT NOT NULL DEFAULT ''
"""

_FORMATS = (_FORMAT_1, _FORMAT_2, _FORMAT_3)
"""What each format adds to the one before it: a new store goes through all of them."""


class Database:
    """One connection, opened (and, the first time, created) by the constructor."""

    def __init__(self, path: Path) -> None:
        """Opens the file, creating the schema in a new one.

        Raises:
            StoreVersionError: a newer `img` wrote it.
            StoreError: it is no database of a store.
            DiskFull: it could not be created for want of space.
        """
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        with self._translated():
            self._connection = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA synchronous=NORMAL")
            version = self._version()
        if version > VERSION:
            self._connection.close()
            raise StoreVersionError(f"format {version}", f"format {VERSION}", str(path.parent))
        if version < VERSION:
            self._create()

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        """Makes the tables, or migrates older ones; several processes may come here at once, and one does it.

        SQLite does not wait for another process while it changes the journal's mode, so a lock of
        our own keeps them apart.
        """
        lock = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._translated():
                version = self._version()
                if version == VERSION:
                    return
                self._connection.execute("PRAGMA journal_mode=WAL")
            with self.transaction():
                for statement in ";".join(_FORMATS[version:]).split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={VERSION}")
        finally:
            os.close(lock)

    def close(self) -> None:
        """Closes the connection; safe to call twice."""
        with self._lock:
            self._connection.close()

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Runs one statement and gives all its rows."""
        with self._lock, self._translated():
            return self._connection.execute(sql, values).fetchall()

    def change(self, sql: str, values: Sequence[object] = ()) -> int:
        """Runs one changing statement and gives the number of rows that it changed."""
        with self._lock, self._translated():
            return self._connection.execute(sql, values).rowcount

    @property
    def in_transaction(self) -> bool:
        """This thread holds the write lock. (While another one does, it waits here.)"""
        with self._lock:
            return self._depth > 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Holds the store's write lock; nests. An error inside undoes every change."""
        with self._lock, self._translated():
            if self._depth:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has undone it by itself where the disk was full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """As `transaction`, and on the disk at its end, with all that came before; it is the outermost.

        For what is followed by a deletion: no power cut may bring a row back and not what it names.
        """
        with self._lock, self._translated():
            self._connection.execute("PRAGMA synchronous=FULL")
            try:
                with self.transaction():
                    yield
            finally:
                self._connection.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns SQLite's errors into the store's."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "is full" in text or "disk I/O" in text:
                raise DiskFull(str(self._path)) from error
            if "locked" in text:
                raise StoreError(
                    f"another process has held {self._path} for a minute",
                    hint="wait for it, or end it; a lock never outlives its process",
                ) from error
            raise StoreError(
                f"{self._path} cannot be used: {text}",
                hint="use another store with --state DIR, or remove this one",
            ) from error
