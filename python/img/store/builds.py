"""`BuildStore`: the records that builds leave: a row each, a document, and the log of every step.

    logs/<build id>/build.json     the whole record, once the build is over (`BuildRecord`)
    logs/<build id>/journal        the same while it runs, or where it was killed
    logs/<build id>/<number>.log   what a step wrote, byte by byte

A row is there from the build's beginning and its folder from its first step that runs. Whether a build
that calls itself running still is one is told by the lease of its process, which dies with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from img import _core
from img.errors import InvalidReference, StoreError, UsageError
from img.oci import Reference
from img.store.database import Database
from img.store.work import WorkArea
from img.values import dataclass

if TYPE_CHECKING:
    from img.store.build_record import BuildRecord

VERSION = 1
"""Of a build's document. A reader takes its own version and refuses a higher one."""

KEEP_BUILDS = 500
"""Records that a store has at the most, those of running builds aside; the oldest go first."""

BuildStatus = Literal["running", "done", "failed", "interrupted", "killed"]

_COLUMNS = "id, started, seconds, status, lease, names, context, dockerfile, image, steps, cached"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRow:
    """One build, in short.

    Attributes:
        started: Seconds since 1970.
        seconds: Wall-clock time; of a running build, until now; of a killed one, until its last sign.
        lease: The work folder of the process that builds.
        names: Full names that the image was to have.
        context: Folder or URL, as people may see it; `-` for standard input.
        image: Digest of the image, or empty.
        steps: Instructions of the plan; `cached` are those for which nothing ran.
    """

    id: str
    started: float
    seconds: float
    status: BuildStatus
    lease: str
    names: tuple[str, ...]
    context: str
    dockerfile: str
    image: str = ""
    steps: int = 0
    cached: int = 0

    @property
    def name(self) -> str:
        """What people call it: the first name, or else the end of the context."""
        if self.names:
            return Reference.parse(self.names[0]).familiar
        return self.context.rstrip("/").rpartition("/")[2] or self.context


class BuildStore:
    """The build records of one store; several processes may use it at once, in no namespace."""

    def __init__(self, database: Database, root: Path, work: WorkArea) -> None:
        """Uses the folder `root`, which exists."""
        self._database = database
        self.root = root
        self._work = work

    # ---- what a build writes -----------------------------------------------------------------

    def begin(self, row: BuildRow) -> None:
        """Adds the row of a build that begins."""
        self._database.change(
            f"INSERT INTO builds ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (row.id, row.started, row.seconds, row.status, row.lease, " ".join(row.names),
             row.context, row.dockerfile, row.image, row.steps, row.cached),
        )  # fmt: skip

    def end(self, build: str, document: Mapping[str, Any], *, image: str, steps: int, cached: int) -> None:
        """Closes a build's row and writes its document; drops the oldest records above the limit."""
        # The row first: on a disk that is full, a build is at least known to have failed.
        self._database.change(
            "UPDATE builds SET seconds=?, status=?, image=?, steps=?, cached=? WHERE id=?",
            (document["seconds"], document["status"], image, steps, cached, build),
        )
        folder = self.folder(build)
        folder.mkdir(mode=0o700, exist_ok=True)
        partial = folder / "build.json.part"
        partial.write_bytes(dump_line(document))
        partial.rename(folder / "build.json")
        (folder / "journal").unlink(missing_ok=True)
        self._drop_above_limit()

    def folder(self, build: str) -> Path:
        """Where a build's files are; made by whoever writes the first."""
        return self.root / build

    # ---- what is asked -----------------------------------------------------------------------

    def all(self, *, limit: int = -1) -> list[BuildRow]:
        """Every build, newest first; `limit` gives so many at the most."""
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM builds ORDER BY started DESC, id LIMIT ?", (limit,)
        )
        return [self._row(row) for row in rows]

    def match(self, text: str) -> BuildRow | None:
        """The build that a word names, or None.

        Args:
            text: Empty for the newest; `^N` for the Nth before that; an ID or its beginning; or a name of
                an image, for the newest build of it.
        Raises:
            UsageError: the beginning fits several.
        """
        rows = self.all()
        if not text or (text[0] == "^" and text[1:].isdecimal()):
            number = int(text[1:] or "0")
            return rows[number] if number < len(rows) else None
        try:
            wanted = str(Reference.parse(text))
        except InvalidReference:
            wanted = ""
        for row in rows:
            if row.id == text or wanted in row.names:
                return row
        fitting = [row for row in rows if row.id.startswith(text)]
        if len(fitting) > 1:
            raise UsageError(f"{text} fits several builds", hint="give more of the ID")
        return fitting[0] if fitting else None

    def find(self, text: str = "") -> BuildRow:
        """Like `match`, for a build that must be there.

        Raises:
            StoreError: it is not, with a near one.
        """
        row = self.match(text)
        if row is not None:
            return row
        rows = self.all(limit=KEEP_BUILDS)
        if not rows:
            raise StoreError("no build has left a record here", hint="every img build leaves one")
        import difflib

        like = difflib.get_close_matches(text, [*(r.id for r in rows), *(r.name for r in rows)], n=1)
        hint = f"did you mean {like[0]}?" if like else "img history lists the builds"
        raise StoreError(f"no such build: {text}", hint=hint)

    def last(self) -> BuildRow:
        """The newest build that has ended.

        Raises:
            StoreError: there is none.
        """
        for row in self.all():
            if row.status != "running":
                return row
        raise StoreError("no build has ended in this store yet", hint="every img build leaves a record")

    def record(self, row: BuildRow) -> BuildRecord:
        """What is known of a build: all, or so far.

        Raises:
            StoreError: the document cannot be read.
        """
        from img.store.build_record import BuildRecord  # a build writes one and reads none

        # Again where there was neither: the build ended between the two looks.
        data = self._document(row) or self._so_far(row) or self._document(row) or _nothing(row)
        return BuildRecord.from_data(data)

    def log_path(self, build: str, step: int) -> Path:
        """Where a step's log is, if it wrote anything."""
        return self.folder(build) / f"{step}.log"

    def log(self, build: str, step: int) -> bytes:
        """All that a step wrote; empty where it wrote nothing."""
        try:
            return self.log_path(build, step).read_bytes()
        except FileNotFoundError:
            return b""

    # ---- what goes ---------------------------------------------------------------------------

    def remove(self, row: BuildRow) -> int:
        """Removes a record and its logs; gives the bytes of disk that came back.

        Raises:
            StoreError: the build is running.
        """
        if row.status == "running":
            raise StoreError(f"build {row.id} is running", hint="its record can go once it has ended")
        self._database.change("DELETE FROM builds WHERE id=?", (row.id,))
        return _drop(self.folder(row.id))

    def prune(self, *, ended_before: float) -> tuple[int, int]:
        """Removes what ended before a time (seconds since 1970), and is not running.

        Returns:
            How many records went, and the bytes of disk that came back.
        """
        rows = [row for row in self.all() if row.status != "running"]
        old = [row for row in rows if row.started + row.seconds < ended_before]
        freed = sum(self.remove(row) for row in old)
        # What a crash left between the end of a row and that of its folder. Rows come before folders.
        folders = list(self.root.iterdir())
        known = {row.id for row in self.all()}
        freed += sum(_core.remove_tree(str(path)) for path in folders if path.name not in known)
        return len(old), freed

    def usage(self) -> tuple[int, int]:
        """Bytes on disk of all records, and of those that `prune` could remove."""
        ended = (self.folder(row.id) for row in self.all() if row.status != "running")
        spare = sum(_core.disk_usage(str(path)) for path in ended if path.exists())
        return _core.disk_usage(str(self.root)), spare

    def _drop_above_limit(self) -> None:
        surplus = self._database.rows(
            f"SELECT {_COLUMNS} FROM builds ORDER BY started DESC, id LIMIT -1 OFFSET ?", (KEEP_BUILDS,)
        )
        for row in map(self._row, surplus):
            if row.status != "running":
                self.remove(row)

    # ---- rows and documents ------------------------------------------------------------------

    def _row(self, values: tuple[object, ...]) -> BuildRow:
        build, started, seconds, status, lease, names, context, dockerfile, image, steps, cached = values
        row = BuildRow(
            id=str(build),
            started=float(str(started)),
            seconds=float(str(seconds)),
            status=cast(BuildStatus, str(status)),
            lease=str(lease),
            names=tuple(str(names).split()),
            context=str(context),
            dockerfile=str(dockerfile),
            image=str(image),
            steps=int(str(steps)),
            cached=int(str(cached)),
        )
        return self._seen_now(row) if row.status == "running" else row

    def _seen_now(self, row: BuildRow) -> BuildRow:
        """A row that says `running`: until now, or until its process died."""
        from img.values import replace

        if self._work.held(row.lease):
            return replace(row, seconds=max(0.0, time.time() - row.started))
        # Its process is gone, and may have closed the row since we read it; if it has not, it never will.
        for values in self._database.rows(
            f"SELECT {_COLUMNS} FROM builds WHERE id=? AND status<>'running'", (row.id,)
        ):
            return self._row(values)
        return replace(row, status="killed", seconds=max(0.0, self._last_sign(row) - row.started))

    def _last_sign(self, row: BuildRow) -> float:
        """When a build that was killed last wrote something."""
        try:
            with os.scandir(self.folder(row.id)) as entries:
                return max((entry.stat().st_mtime for entry in entries), default=row.started)
        except FileNotFoundError:
            return row.started

    def _document(self, row: BuildRow) -> dict[str, Any] | None:
        """The whole document of a build, if it was written."""
        path = self.folder(row.id) / "build.json"
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{path} is no record of a build: {error}") from error
        return data if isinstance(data, dict) else {}

    def _so_far(self, row: BuildRow) -> dict[str, Any] | None:
        """What the journal says of a build that has not ended, or never will."""
        from img.store.build_record import read_journal

        try:
            with (self.folder(row.id) / "journal").open("rb") as lines:
                document = read_journal(lines)
        except FileNotFoundError:
            return None
        if document is None:
            return None
        document.update(status=row.status, started=row.started, seconds=row.seconds)
        for step in document["steps"]:
            if step.get("status") == "running":
                step["seconds"] = max(0.0, row.seconds - step["started"])
                step["status"] = "running" if row.status == "running" else "stopped"
            try:
                step["log_bytes"] = self.log_path(row.id, step["number"]).stat().st_size
            except FileNotFoundError:
                continue
        return document


def _nothing(row: BuildRow) -> dict[str, Any]:
    """The document of a build of which there is only the row: no step of it has run yet."""
    return {
        "version": VERSION,
        "id": row.id,
        "status": row.status,
        "started": row.started,
        "seconds": row.seconds,
        "request": {"context": row.context, "tags": list(row.names)},
        "steps": [],
    }


def dump_line(entry: Mapping[str, Any]) -> bytes:
    """One line of JSON. What an error has among its fields (a path, say) is written as its text."""
    return json.dumps(entry, separators=(",", ":"), default=str).encode() + b"\n"


def _drop(folder: Path) -> int:
    """Removes a build's folder, which has files alone; gives the bytes of disk that came back."""
    freed = 0
    try:
        for path in (folder, *folder.iterdir()):
            freed += path.stat().st_blocks * 512
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        pass  # it left nothing, or another process is removing it too
    return freed
