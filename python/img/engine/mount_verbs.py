"""`MountVerbs`: the cache mounts of a store, looked at and carried about by hand (`img cache mounts`).

A copy of a cache is chosen by the id that the Dockerfile has, or by the beginning of its name; where several
fit, none is guessed. What is in use is never replaced or removed. `mounts` does the same within a build.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from img import _core, regex
from img.cache import CacheIndex, CacheSpec, Reach, SharedMount, open_backend
from img.cache.backend import CacheBackend
from img.dockerfile.near import did_you_mean
from img.engine.mounts import THREADS, Chunking, bring_mount
from img.errors import UsageError
from img.oci import Descriptor
from img.progress import Note, Progress
from img.store import CacheLease, CacheRow, CacheShape, Store, WorkFolder
from img.store.cache_copy import write_chunks
from img.values import dataclass, replace

_SHORTEST = 4
"""Digits of a name that are enough to choose by."""

_CACHE_MODE = 0o755
_ROOT = regex.compile(r"(\d{1,9}):(\d{1,9}):([0-7]{1,4})")

Fill = Callable[[Path, WorkFolder], None]
"""Makes a cache's contents, in a folder; the work folder is at hand for as long as that takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _New:
    """A copy that is to be made. `name` is that of the copy that it replaces, or empty."""

    id: str
    key: str
    shape: str
    owner: tuple[int, int]
    mode: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMount:
    """One copy of a cache mount.

    Attributes:
        id: As the Dockerfile has it.
        name: Of this copy: its cache's key, and a number.
        shape: The options that tell it from others of its id, as `uid=1000,mode=700`.
        bytes: Real bytes on disk.
        last_used: In seconds since 1970.
        busy: A build is using it.
    """

    id: str
    name: str
    shape: str
    bytes: int
    last_used: float
    busy: bool


class MountVerbs:
    """The operations. The process is in its namespace already."""

    def __init__(self, store: Store, progress: Progress, *, ranged: bool) -> None:
        """Touches nothing yet.

        Args:
            ranged: This process has a whole range of ids to give to files.
        """
        self._store = store
        self._ranged = ranged
        self._progress = progress

    def all(self) -> list[CacheMount]:
        """Every copy, by id."""
        rows = sorted(self._store.cache_mounts.all(), key=lambda row: (row.id, row.name))
        return [
            CacheMount(
                id=row.id,
                name=row.name,
                shape=row.shape,
                bytes=_core.disk_usage(str(row.path)),
                last_used=row.used,
                busy=row.busy,
            )
            for row in rows
        ]

    # ---- out ---------------------------------------------------------------------------------

    def export(self, word: str, out: BinaryIO) -> None:
        """Writes a cache as a `.tar.zst`.

        Raises:
            UsageError: it is not here, or several are.
        """
        row = self._one(word)
        with self._reading(row) as lease:
            made = _core.stream_folder(str(lease.data), out.fileno())
        for path in (*made.left_out, *made.torn):
            self._say("warning", f"{path} was written to while it was read, and is not whole in the archive")

    def export_to(self, word: str, spec: CacheSpec, reach: Reach) -> None:
        """Writes a cache into a shared cache, beside what that says already.

        Raises:
            UsageError. CacheError: it cannot be written.
        """
        row = self._one(word)
        with _opened(spec, reach) as backend, self._store.work.begin() as work:
            index = _read(backend) or CacheIndex()
            named = {chunk.digest: chunk for mount in index.mounts for chunk in mount.chunks}
            there = {digest for digest, chunk in named.items() if backend.has(chunk)}
            spool = work.folder("chunks")
            with self._reading(row) as lease:
                chunking = Chunking(lease, spool, there)
            mount = chunking.mount(row.id, row.key)
            _send(backend, mount, spool)
            others = tuple(other for other in index.mounts if other.key != mount.key)
            index = replace(index, mounts=(*others, mount))
            backend.write(index.to_bytes(), index.blobs)
        for path in chunking.left_out:
            self._say("warning", f"{path} is left out: it is being written")
        self._say("info", f"{row.id} is in {spec}: {chunking}")

    @contextmanager
    def _reading(self, row: CacheRow) -> Iterator[CacheLease]:
        def waiting() -> None:
            self._say("info", f"waiting for the cache mount {row.id}, which a build has alone")

        lease = self._store.cache_mounts.hold(row.path, waiting)
        if lease is None:
            raise UsageError(f"the cache mount {row.id} has just been removed")
        with lease:
            yield lease

    # ---- in ----------------------------------------------------------------------------------

    def fill(self, word: str, archive: Path, shape: CacheShape) -> str:
        """Makes a cache of an archive, or replaces one by it; gives the copy's name.

        Args:
            archive: tar; gzip, bzip2, xz or zstd around it.
            shape: The cache that is made where there is none; the one that is meant, if it says more
                than an id.
        Raises:
            UsageError: the file is no archive, or several caches are meant. LayerError: it is broken or
                hostile. StoreError: a build is using the cache. What is there stays as it is.
        """

        def unpack(folder: Path, work: WorkFolder) -> None:
            if not _core.unpack_folder(str(archive), str(folder)):
                hint = "a tar, as it is or compressed by zstd, gzip, bzip2 or xz"
                raise UsageError(f"{archive.name} is no archive", hint=hint)

        found = self._matching(word)
        if shape != CacheShape(id=word):
            found = [row for row in found if row.key == shape.key]
        if found:
            return self._replace(_only(word, found), unpack)
        mode = _CACHE_MODE if shape.mode is None else shape.mode
        new = _New(id=word, key=shape.key, shape=str(shape), owner=(shape.uid, shape.gid), mode=mode)
        return self._put(new, unpack)

    def fill_from(self, word: str, spec: CacheSpec, reach: Reach) -> str:
        """Makes or replaces a cache by what a shared cache carries; gives the copy's name.

        Raises:
            UsageError: it carries no such cache, or several. CacheError: it cannot be read. StoreError: a
                build is using the cache. What is there stays as it is.
        """
        with _opened(spec, reach) as backend:
            mount = _only_carried(word, _read(backend), spec)

            def fetch(chunk: Descriptor, open_sink: Callable[[Descriptor], _core.BlobSink]) -> bool:
                sink = open_sink(chunk)
                try:
                    backend.fetch(chunk, sink)
                    sink.finish()
                except BaseException:
                    sink.abort()
                    raise
                return True

            def bring(folder: Path, work: WorkFolder) -> None:
                known = bring_mount(mount, folder, work.folder("chunks"), fetch)
                write_chunks(folder.parent, known or {})

            here = [row for row in self._store.cache_mounts.all() if row.key == mount.key]
            if here:
                return self._replace(here[0], bring)
            owner, mode = _root_of(mount)
            key = mount.key or CacheShape(id=mount.id).key
            return self._put(_New(id=mount.id, key=key, shape=mount.shape, owner=owner, mode=mode), bring)

    def _replace(self, row: CacheRow, fill: Fill) -> str:
        """Replaces a copy; the new folder has the old one's owner and mode."""
        status = (row.path / "data").stat()
        owner, mode = (status.st_uid, status.st_gid), status.st_mode & 0o7777
        new = _New(id=row.id, key=row.key, shape=row.shape, owner=owner, mode=mode, name=row.name)
        return self._put(new, fill)

    def _put(self, new: _New, fill: Fill) -> str:
        with self._store.work.begin() as work:

            def whole(folder: Path) -> None:
                fill(folder, work)
                self._own(folder, new)

            caches = self._store.cache_mounts
            return caches.put(new.key, id=new.id, shape=new.shape, name=new.name, work=work, fill=whole).name

    def _own(self, folder: Path, new: _New) -> None:
        """Gives the folder to its owner. With one id only there is one user to give it to."""
        if self._ranged:
            try:
                os.chown(folder, *new.owner)
            except OSError as error:
                uid, gid = new.owner
                hint = "use ids that this user's range in /etc/subuid holds"
                raise UsageError(
                    f"a cache cannot belong to {uid}:{gid}: {error.strerror}", hint=hint
                ) from error
        folder.chmod(new.mode)

    # ---- away --------------------------------------------------------------------------------

    def remove(self, words: Sequence[str], *, everything: bool = False) -> list[CacheMount]:
        """Removes caches: every copy that a word names; gives what was removed.

        Raises:
            UsageError: one of them is not here. StoreError: one of them is in use. Then none is removed.
        """
        rows = self._store.cache_mounts.all() if everything else self._named(words)
        names = {row.name for row in rows}
        gone = [mount for mount in self.all() if mount.name in names]
        with self._store.work.begin() as trash:
            self._store.cache_mounts.remove(rows, trash)
        return gone

    def _named(self, words: Sequence[str]) -> list[CacheRow]:
        found: dict[str, CacheRow] = {}
        for word in words:
            matching = self._matching(word)
            if not matching:
                raise self._missing(word)
            found.update({row.name: row for row in matching})
        return list(found.values())

    # ---- which one ---------------------------------------------------------------------------

    def _one(self, word: str) -> CacheRow:
        found = self._matching(word)
        if not found:
            raise self._missing(word)
        return _only(word, found)

    def _matching(self, word: str) -> list[CacheRow]:
        """The copies whose id is a word, or else whose name begins with it."""
        rows = self._store.cache_mounts.all()
        by_id = [row for row in rows if row.id == word]
        by_name = [row for row in rows if len(word) >= _SHORTEST and row.name.startswith(word)]
        return sorted(by_id or by_name, key=lambda row: row.name)

    def _missing(self, word: str) -> UsageError:
        known = {row.id for row in self._store.cache_mounts.all()}
        hint = did_you_mean(word, known) or "img cache mounts ls lists those that are"
        return UsageError(f"there is no cache mount {word!r} here", hint=hint)

    def _say(self, level: str, text: str) -> None:
        self._progress(Note(level=level, text=text))


def _only(word: str, found: Sequence[CacheRow]) -> CacheRow:
    """The one row that is meant."""
    if len(found) > 1:
        raise UsageError(
            f"several cache mounts are called {word}", hint=_choice((r.name, r.shape) for r in found)
        )
    return found[0]


def _only_carried(word: str, index: CacheIndex | None, spec: CacheSpec) -> SharedMount:
    """The one mount of a shared cache that is meant."""
    mounts = index.mounts if index else ()
    by_id = [mount for mount in mounts if mount.id == word]
    by_key = [
        mount for mount in mounts if len(word) >= _SHORTEST and mount.key.startswith(word.partition(".")[0])
    ]
    found = by_id or by_key
    if not found:
        known = [mount.id for mount in mounts]
        hint = did_you_mean(word, known) or (
            f"it has {', '.join(sorted(set(known)))}" if known else "it has none"
        )
        raise UsageError(f"{spec} carries no cache mount {word!r}", hint=hint)
    if len(found) > 1:
        hint = _choice((mount.key, mount.shape) for mount in found)
        raise UsageError(f"{spec} carries several cache mounts {word}", hint=hint)
    return found[0]


def _choice(found: Iterable[tuple[str, str]]) -> str:
    """How to say which one."""
    names = "; ".join(f"{name} ({shape or 'no options'})" for name, shape in found)
    return f"name it by the beginning of one of these: {names}"


def _root_of(mount: SharedMount) -> tuple[tuple[int, int], int]:
    """Owner and mode of the folder itself, as far as a document says something that makes sense."""
    match = _ROOT.fullmatch(mount.root)
    if match is None:
        return (0, 0), _CACHE_MODE
    return (int(match[1]), int(match[2])), int(match[3], 8)


@contextmanager
def _opened(spec: CacheSpec, reach: Reach) -> Iterator[CacheBackend]:
    backend = open_backend(spec, reach)
    try:
        yield backend
    finally:
        backend.close()


def _read(backend: CacheBackend) -> CacheIndex | None:
    document = backend.read()
    return None if document is None else CacheIndex.from_bytes(document)


def _send(backend: CacheBackend, mount: SharedMount, spool: Path) -> None:
    """Puts the chunks that are new."""

    def send(chunk: Descriptor) -> None:
        path = spool / chunk.hex
        if path.exists():
            backend.put(chunk, lambda: path.open("rb"))

    once = {chunk.digest: chunk for chunk in mount.chunks}.values()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(send, once):
            pass
