"""`Doubts`: what a store published shortly before its machine went down, until somebody has looked at it.

Nothing is synced when it is published, so that neither a build nor its neighbours wait for a disk. The price
is paid where a power cut was possible: when a store is opened under another boot id than the last time, what
was published in the last `MINUTES` of its activity is written down as doubtful, and looked at once, by its
digest, before it is used for the first time. What is wrong is dropped with its rows, as if it had never been
there; what is older has long been on the disk, and is trusted.

`Store` calls `begin` when it opens; `BlobStore` and `LayerStore` ask `blob` and `layer` about what they are
about to give away. An ordinary opening costs one small file and one row. The doubts are rows of `meta`, so
they outlive the process and the next boot, and of several processes one looks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from img import _core
from img.errors import DiskFull, ImgError
from img.oci.hashing import digest_of
from img.progress import Note, Progress
from img.store.database import Database

if TYPE_CHECKING:
    from img.store.blobs import BlobStore
    from img.store.layers import LayerRecord

MINUTES = 2
"""How long before the last sign of life what was published is in doubt. The kernel writes a page back after
half a minute; on a busy disk it may take a while longer."""

_BOOT = "boot"
_PREFIX = "doubt "
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SIGNS_OF_LIFE = """
SELECT max(at) FROM (
    SELECT max(created) AS at FROM layers UNION ALL SELECT max(used) FROM layers
    UNION ALL SELECT max(used) FROM records UNION ALL SELECT max(updated) FROM images
    UNION ALL SELECT max(started + seconds) FROM builds
)
"""


class Doubts:
    """What of one store is in doubt. Safe for several threads and processes."""

    def __init__(self, database: Database, lock: Path, progress: Progress) -> None:
        """Asks nothing yet.

        Args:
            lock: File that is locked while something is looked at, so that nothing is looked at twice.
            progress: Told of what was dropped.
        """
        self._database = database
        self._lock = lock
        self._progress = progress
        self._names: set[str] = set()

    def begin(self, blobs: BlobStore, aside: Callable[[float], None]) -> None:
        """Compares the boot, and writes down what is in doubt where it is another one.

        Args:
            aside: Called with the time since when nothing is trusted (seconds since the epoch), to take away
                what is not worth a look.
        """
        boot = _boot_id()
        known = self._known_boot()
        if known == f"{boot} sound":
            return
        if known.partition(" ")[0] != boot:
            self._change_boot(boot, blobs, aside)
        self._names = set(self._rows())
        if not self._names:
            self._settled(boot)

    def _known_boot(self) -> str:
        rows = self._database.rows("SELECT value FROM meta WHERE key=?", (_BOOT,))
        return str(rows[0][0]) if rows else ""

    def _change_boot(self, boot: str, blobs: BlobStore, aside: Callable[[float], None]) -> None:
        """Writes the doubts down; who opens the store meanwhile waits for that."""
        with self._locked():
            if self._known_boot().partition(" ")[0] == boot:
                return  # another process was faster
            newest = self._database.rows(_SIGNS_OF_LIFE)[0][0]
            since = float(str(newest)) - MINUTES * 60 if newest is not None else 0.0
            aside(since)
            layers = self._database.rows("SELECT diff_id, parents FROM layers WHERE created>=?", (since,))
            names = [_layer_name(str(diff_id), str(parents)) for diff_id, parents in layers]
            names += [digest for digest, stat in blobs.all() if stat.st_mtime >= since]
            with self._database.transaction():
                for name in names:
                    self._database.change("INSERT OR REPLACE INTO meta VALUES (?, '')", (_PREFIX + name,))
                self._database.change("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_BOOT, f"{boot} doubted"))

    def _settled(self, boot: str) -> None:
        """Remembers that nothing is in doubt any more, so that nobody asks again under this boot."""
        with self._database.transaction():
            if not self._rows():
                self._database.change("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_BOOT, f"{boot} sound"))

    def _rows(self) -> list[str]:
        end = _PREFIX[:-1] + chr(ord(_PREFIX[-1]) + 1)
        rows = self._database.rows("SELECT key FROM meta WHERE key>=? AND key<?", (_PREFIX, end))
        return [str(key)[len(_PREFIX) :] for (key,) in rows]

    def any(self) -> bool:
        """Tells whether anything was in doubt when this process began."""
        return bool(self._names)

    # ---- blobs -------------------------------------------------------------------------------

    def blobs(self) -> list[str]:
        """Digests of the blobs in doubt."""
        return [name for name in self._names if " " not in name]

    def blob(self, digest: str, path: Path) -> None:
        """Looks at a blob that is in doubt, and removes it where it is not what its name says.

        The names of images whose documents are lost go with it.
        """
        if digest not in self._names:
            return
        with self._looking(digest) as open_question:
            if open_question and not _is_whole(path, digest):
                path.unlink(missing_ok=True)
                with self._database.transaction():
                    self._forget_images(digest)
                    self._forget(digest)
                self._say(f"blob {digest} was being written when this machine went down, and is damaged")
            elif open_question:
                self._forget(digest)

    def _forget_images(self, digest: str) -> None:
        rows = self._database.rows(
            "SELECT name FROM images WHERE ? IN (manifest, config, index_digest)", (digest,)
        )
        for (name,) in rows:
            self._database.change("DELETE FROM images WHERE name=?", (name,))
            self._say(f"image {name} was being written when this machine went down, and is damaged")

    # ---- layers ------------------------------------------------------------------------------

    def doubts(self, record: LayerRecord) -> bool:
        """Tells whether a layer has to be looked at before it is used."""
        return bool(self._names) and _layer_name(record.diff_id, record.parents) in self._names

    def layer(self, record: LayerRecord, *, blob: bool, drop: Callable[[], None]) -> None:
        """Looks at a layer that is in doubt, and drops it where it is not what its diff ID says.

        The tar of a layer that was pulled cannot be made again of its folder: where its blob is here it is
        extracted anew, and where that is gone too, its content digest has to do.

        Args:
            blob: A compressed form of it is in the store, and sound.
            drop: Takes it out of the store; called inside a transaction.
        """
        name = _layer_name(record.diff_id, record.parents)
        with self._looking(name) as open_question:
            if not open_question:
                return
            pulled = record.snapshot == record.diff_id
            sound = not (pulled and blob) and _is_sound(record, pulled)
            with self._database.transaction():
                if not sound and self._is_open(name):
                    drop()
                self._forget(name)
        if not sound and not pulled:
            self._say(f"layer {record.diff_id} was being written when this machine went down, and is damaged")

    def forget(self, record: LayerRecord) -> None:
        """Forgets a doubt about a layer that leaves the store; call it inside a transaction."""
        self._forget(_layer_name(record.diff_id, record.parents))

    # ---- parts -------------------------------------------------------------------------------

    @contextmanager
    def _looking(self, name: str) -> Iterator[bool]:
        """Keeps others from looking, too; tells whether nobody has looked before us."""
        with self._locked():
            yield self._is_open(name)
            self._names.discard(name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Never within a transaction: whoever has the lock may be about to begin one."""
        lock = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            _core.wait_for_lock(lock)
            yield
        finally:
            os.close(lock)

    def _is_open(self, name: str) -> bool:
        return bool(self._database.rows("SELECT 1 FROM meta WHERE key=?", (_PREFIX + name,)))

    def _forget(self, name: str) -> None:
        self._database.change("DELETE FROM meta WHERE key=?", (_PREFIX + name,))
        self._names.discard(name)

    def _say(self, what: str) -> None:
        text = f"{what}: it is dropped, and made or fetched again when it is needed"
        self._progress(Note(level="warning", text=text))


def _boot_id() -> str:
    """Names the kernel's present run; the same word each time where it is not to be had."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def _layer_name(diff_id: str, parents: str) -> str:
    return f"layer {diff_id} {parents}"


def _is_whole(path: Path, digest: str) -> bool:
    """Tells whether a blob is what its name says; one that is not there says nothing wrong."""
    try:
        return digest_of(path) == digest
    except FileNotFoundError:
        return True


def _is_sound(record: LayerRecord, pulled: bool) -> bool:
    try:
        packed = _core.pack_layer(str(record.path), clamp_mtime=record.clamp)
    except (DiskFull, KeyboardInterrupt):
        raise
    except (ImgError, OSError):
        return False  # what cannot be read is not what was written
    if pulled:
        return packed.content_digest == record.content
    return packed.diff_id == record.diff_id
