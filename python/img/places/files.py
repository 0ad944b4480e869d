"""`Files`: the files of a place, by name: those of a folder, or of a tar that is read where it lies.

A plain tar is not unpacked: its heads are read once, and its files out of the middle. One with compression
around it is unpacked into a folder first. Names and links come from outside: none leads out of the place.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from img import _core
from img.errors import InvalidDocument, LayerError, SizeMismatch, UsageError
from img.oci import Descriptor
from img.progress import Progress
from img.registry import Sink, Stop

PIECE_BYTES = 1 << 20
_MOST_MEMBERS = 200_000
_MOST_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 512
_BROKEN = (tarfile.TarError, ValueError, EOFError, ArithmeticError, LookupError, RecursionError)
"""What the standard library raises over a tar that is none."""
_MOST_LINKS = 8
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Files(Protocol):
    """Named files. Safe from several threads."""

    where: str

    def size(self, name: str) -> int | None:
        """A file's bytes; None where there is no such file."""

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Reads from the middle of a file; fewer bytes than asked for only at its end."""

    def close(self) -> None:
        """Closes what is open."""


class Folder:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        """Looks at nothing yet."""
        self._root = root.resolve()
        self.where = str(root)

    def size(self, name: str) -> int | None:
        """As `Files.size`."""
        path = self._path(name)
        return path.stat().st_size if path is not None else None

    def read(self, name: str, offset: int, count: int) -> bytes:
        """As `Files.read`."""
        path = self._path(name)
        if path is None:
            raise InvalidDocument(self.where, f"it has no {name}")
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(count)

    def _path(self, name: str) -> Path | None:
        try:
            path = (self._root / name).resolve()
            return path if path.is_relative_to(self._root) and path.is_file() else None
        except (OSError, RuntimeError, ValueError):
            return None  # no name of a file: too long, with a NUL in it, a link to itself

    def close(self) -> None:
        """Nothing is open."""


class _Heads(io.RawIOBase):
    """A tar of which heads alone are read, and no head without a limit.

    The standard library reads as much for one entry as the archive claims: records of pax, GNU's long names,
    maps of sparse files, and heads before heads.
    """

    def __init__(self, file: io.FileIO, where: str) -> None:
        self._file = file
        self._where = where
        self._name = ""
        self._left = _MOST_HEAD_BYTES

    def next(self) -> None:
        """Whatever is read from now on is of another entry."""
        self._left = _MOST_HEAD_BYTES

    def read(self, count: int = -1) -> bytes:
        """Reads a part of a head.

        Raises:
            InvalidDocument: the entry has had enough.
        """
        self._left -= count if count >= 0 else _MOST_HEAD_BYTES + 1
        if self._left < 0:
            raise InvalidDocument(
                self._where, f"the head of {self._name!r} in it is longer than {_MOST_HEAD_BYTES} bytes"
            )
        data = self._file.read(count)
        if count == _BLOCK_BYTES:
            self._name = data[:100].partition(b"\0")[0].decode(errors="replace")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class Tar:
    """The files of a plain tar."""

    def __init__(self, path: Path, where: str) -> None:
        """Reads the heads.

        Raises:
            InvalidDocument: it is no tar, or one that nobody would take for an image.
        """
        self.where = where
        self._file = path.open("rb", buffering=0)
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._read_heads()
        except _BROKEN as error:
            self._file.close()
            raise InvalidDocument(where, f"it is no tar archive: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def _read_heads(self) -> None:
        heads = _Heads(self._file, self.where)
        with tarfile.open(fileobj=heads, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= _MOST_MEMBERS:
                    reason = f"it has more than {_MOST_MEMBERS} files: no image archive has"
                    raise InvalidDocument(self.where, reason)
                self._note(member)
                heads.next()
                # The module keeps members of an iteration, and what pax says of all that follow: for nobody.
                archive.members.clear()  # type: ignore[attr-defined]
                archive.pax_headers.clear()  # type: ignore[attr-defined]

    def _note(self, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name).lstrip("/")
        if member.size < 0:
            raise InvalidDocument(self.where, f"{name!r} in it has {member.size} bytes")
        if member.issym():
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            self._links[name] = posixpath.normpath(member.linkname).lstrip("/")
        elif member.isreg() and not member.issparse():
            self._places[name] = (member.offset_data, member.size)

    def _place(self, name: str) -> tuple[int, int] | None:
        name = posixpath.normpath(name)
        for _ in range(_MOST_LINKS):
            if name in self._places:
                return self._places[name]
            name = self._links.get(name, "")
        return None

    def size(self, name: str) -> int | None:
        """As `Files.size`."""
        place = self._place(name)
        return place[1] if place else None

    def read(self, name: str, offset: int, count: int) -> bytes:
        """As `Files.read`."""
        place = self._place(name)
        if place is None:
            raise InvalidDocument(self.where, f"it has no {name}")
        return os.pread(self._file.fileno(), max(0, min(count, place[1] - offset)), place[0] + offset)

    def close(self) -> None:
        """Closes the archive."""
        self._file.close()


def open_archive(path: Path, scratch: Callable[[], Path]) -> Files:
    """The files of an archive, compressed or not.

    Args:
        scratch: Makes an empty folder for one that has to be unpacked.
    Raises:
        UsageError: there is no such file. InvalidDocument: it is no archive, or a broken or hostile one.
    """
    where = str(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and no archive", hint=f"an image layout in it is oci:{path}")
    if not path.is_file():
        raise UsageError(f"no such archive: {path}")
    with path.open("rb") as file:
        magic = file.read(8)
    if not any(magic.startswith(packed) for packed in _PACKED):
        return Tar(path, where)
    folder = scratch()
    try:
        unpacked = _core.unpack_archive(str(path), str(folder))
    except LayerError as error:
        raise error.of_archive(where) from error
    if unpacked is None:
        raise InvalidDocument(where, "it is no tar archive, compressed or not")
    files = Folder(folder)
    files.where = where
    return files


def whole(files: Files, name: str, limit: int) -> bytes:
    """Reads a small file.

    Raises:
        InvalidDocument: there is none, or it is longer than `limit` bytes.
    """
    size = files.size(name)
    if size is None:
        raise InvalidDocument(files.where, f"it has no {name}")
    if size > limit:
        raise InvalidDocument(f"{name} of {files.where}", f"longer than {limit} bytes")
    return files.read(name, 0, size)


def pour_file(
    files: Files, name: str, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress
) -> None:
    """Writes a file into a sink, from where the sink stands.

    Raises:
        InvalidDocument: there is none. SizeMismatch: it has another length. Stopped. What the sink raises.
    """
    from img.progress import Meter

    size = files.size(name)
    if size is None:
        raise InvalidDocument(files.where, f"the blob {blob.digest} is missing")
    if size != blob.size:
        raise SizeMismatch(blob.size, size)
    meter = Meter(progress, "copy", blob.digest, blob.size)
    while sink.offset < size:
        stop.check()
        piece = files.read(name, sink.offset, PIECE_BYTES)
        if not piece:
            raise SizeMismatch(size, sink.offset)
        sink.write(piece)
        meter.at(sink.offset)
    meter.finished("fetched")
