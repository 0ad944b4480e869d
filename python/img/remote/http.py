"""`Web`: fetches one file from an http(s) URL, or takes it from an earlier build.

An entry of the store's `RemoteArea` holds the file and what the server said of it. The server is asked
whether it is still the same (ETag, Last-Modified); it is not asked at all where the file has the digest
that the caller demands. A broken transfer goes on where it broke, if the server lets it.
Source: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any

from img import regex
from img.errors import DiskFull, FetchError
from img.oci.hashing import digest_of
from img.progress import Progress, Transfer, silent
from img.remote.giturl import shown
from img.remote.kept import KeptFile, WebFile, handed_out, read_kept
from img.remote.reach import Reach
from img.remote.tokens import Tokens
from img.remote.wire import PASSING, Answer, Passing, Wire
from img.store import RemoteArea
from img.values import asdict

PIECE_BYTES = 1 << 20
_EVERY_SECONDS = 0.1
_CONTENT_RANGE = regex.compile(r"bytes\s+(\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)")


class Web:
    """Fetches files for one build. Safe for several threads; one fetches a URL at a time."""

    def __init__(
        self, area: RemoteArea, *, reach: Reach, tokens: Tokens, progress: Progress = silent
    ) -> None:
        """Prepares; no connection is made."""
        self._area = area
        self._reach = reach
        self._progress = progress
        self._wire = Wire(reach, tokens)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all fetches soon, from any thread; nothing is fetched any more."""
        self._stopped.set()
        self._wire.stop()

    def fetch(self, url: str, into: Path, *, name: str, checksum: str = "") -> WebFile:
        """Brings a file to `into/name`: mode 0600, and the time that the server gives it (1970 if none).

        Args:
            url: May carry user and password; they go to its own host alone, and into no message.
            into: An existing folder on the store's file system.
            checksum: `sha256:<hex>` that it must have, or empty.
        Raises:
            FetchError: it cannot be had, or has another digest; then an earlier file stays known.
        """
        with self._area.entry("http", url, self._check) as folder:
            known = read_kept(folder)
            if not (checksum and known.digest == checksum):
                known = self._refresh(url, folder, known, checksum)
            return handed_out(folder, known, into / name)

    def _refresh(self, url: str, folder: Path, known: KeptFile, checksum: str) -> KeptFile:
        """Asks the server, and takes what it has if that is new."""
        transfer = _Transfer(self, url, folder / "part", known)
        failures = 0
        while True:
            self._check()
            before = transfer.size
            try:
                fresh = transfer.attempt(self._wire)
                break
            except Passing as passing:
                # A transfer that moves on may break as often as it likes.
                failures = 1 if transfer.size - before > PIECE_BYTES else failures + 1
                if failures >= self._reach.attempts or self._stopped.is_set():
                    (folder / "part").unlink(missing_ok=True)
                    raise passing.error from None
                longest = self._reach.backoff_seconds * 2 ** (failures - 1)
                self._stopped.wait(longest * random.uniform(0.5, 1.0))
        if checksum and (fresh or known).digest != checksum:
            (folder / "part").unlink(missing_ok=True)
            raise FetchError(
                shown(url),
                f"it has the digest {(fresh or known).digest}, not {checksum} as its checksum demands",
                hint="the file has changed, or the checksum is of another one",
            )
        if fresh is None:
            return known
        _keep(folder, fresh)
        return fresh

    def _check(self) -> None:
        if self._stopped.is_set():
            raise FetchError("the network", "the build was stopped")

    def moved(self, url: str, done: int, total: int) -> None:
        """Tells how far a transfer is; ends it where the build was stopped."""
        self._check()
        self._progress(Transfer(action="fetch", digest=shown(url), done_bytes=done, total_bytes=total))


class _Transfer:
    """One file on its way to `path`; what an attempt brought is kept for the next one."""

    def __init__(self, web: Web, url: str, path: Path, known: KeptFile) -> None:
        self._web = web
        self._url = url
        self._path = path
        self._known = known
        self._so_far = KeptFile()
        self.size = 0

    def attempt(self, wire: Wire) -> KeptFile | None:
        """Gives what the file is; None where the server says that it is the known one.

        Raises:
            Passing, FetchError.
        """
        validator = self._so_far.etag if not self._so_far.etag.startswith("W/") else ""
        validator = validator or self._so_far.modified
        resuming = bool(self.size and validator)
        headers = {"Range": f"bytes={self.size}-", "If-Range": validator} if resuming else self._questions()
        with wire.get(self._url, headers) as answer:
            if answer.status == 304 and self._known.digest:
                return None
            if resuming and answer.status == 206 and _starts(answer) == self.size:
                self._pour(answer, "ab", self.size)
            elif answer.status == 200:
                self._so_far = KeptFile(
                    etag=answer.headers.get("ETag", ""), modified=answer.headers.get("Last-Modified", "")
                )
                self._pour(answer, "wb", 0)
            else:
                raise _refused(answer, self._url)
        digest = digest_of(self._path)
        self._web.moved(self._url, self.size, self.size)
        return KeptFile(digest=digest, size=self.size, etag=self._so_far.etag, modified=self._so_far.modified)

    def _questions(self) -> dict[str, str]:
        """The headers that ask whether the known file is still the one."""
        asked = {"If-None-Match": self._known.etag, "If-Modified-Since": self._known.modified}
        return {name: value for name, value in asked.items() if value}

    def _pour(self, answer: Answer, mode: str, start: int) -> None:
        self.size = start
        total = start + answer.length if answer.length else 0
        said = time.monotonic()
        with self._path.open(mode) as file:
            while piece := answer.read(PIECE_BYTES):
                _write(file, piece, self._path)
                self.size += len(piece)
                if time.monotonic() - said > _EVERY_SECONDS:
                    said = time.monotonic()
                    self._web.moved(self._url, self.size, total)
        if total and self.size != total:
            raise Passing(FetchError(shown(self._url), "the body ended early"))


def _write(file: IO[Any], piece: bytes, path: Path) -> None:
    try:
        file.write(piece)
        file.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(path)) from error
        raise


def _starts(answer: Answer) -> int:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return int(match.group(1)) if match else -1


def _refused(answer: Answer, url: str) -> Exception:
    """The error for an answer that is no file."""
    reason = "".join(c for c in answer.reason if c.isprintable())[:80]
    there = "" if answer.url == url else f" from {shown(answer.url)}"
    hint = ""
    if answer.status in (401, 403):
        host = shown(answer.url).partition("://")[2].partition("/")[0]
        hint = f"give a token with --secret id=HTTP_AUTH_TOKEN_{host},src=FILE"
    error = FetchError(shown(url), f"HTTP {answer.status} {reason}{there}".rstrip(), hint)
    return Passing(error) if answer.status in PASSING or answer.status in (206, 416) else error


# ---- entries ---------------------------------------------------------------------------------------


def _keep(folder: Path, fresh: KeptFile) -> None:
    """Makes what was fetched the entry's file: without its `meta.json`, a file counts as none."""
    meta = folder / "meta.json"
    meta.unlink(missing_ok=True)
    part = folder / "part"
    part.chmod(0o600)
    seconds = _seconds(fresh.modified)
    os.utime(part, (seconds, seconds))
    part.replace(folder / "data")
    new = folder / "meta.new"
    new.write_text(json.dumps(asdict(fresh)))
    new.replace(meta)


def _seconds(modified: str) -> float:
    """A Last-Modified header in seconds since 1970; 0 where there is none that can be read."""
    try:
        return max(0.0, parsedate_to_datetime(modified).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0.0
