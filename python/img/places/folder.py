"""`FolderSource` and `FolderTarget`: one image as loose files in a folder: skopeo's `dir:`.

`manifest.json` is the image's document as it is, `DIGITS` a blob, and `DIGITS.manifest.json` what an index
names. An image that was there stays whole until the new one's blobs are all there too. Then `manifest.json`
is renamed into place: the one moment of change, whatever ends the copy and whenever.
Source: containers-transports(5), "dir:path".
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from img import _core, regex
from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor, Reference, parse
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.places.files import Files, pour_file, whole
from img.places.layout import write_beside
from img.places.place import About, Cargo, Document, Source, read_document, sent_into
from img.progress import Progress
from img.registry import Sink, Stop, Upload

_VERSION = b"Directory Transport Version: 1.1\n"
_PARTIAL = regex.compile(r"\..+\.partial|[0-9a-f]{64}\.[\d-]+\.partial")
"""What a copy leaves that was killed."""
_OF_IMAGES = regex.compile(r"[0-9a-f]{64}(\.manifest\.json)?|signature-\d+")
"""Files that belong to one image: not those that somebody laid beside it."""


class FolderSource:
    """The image in a folder."""

    verbatim = True

    def __init__(self, files: Files) -> None:
        """Looks at nothing yet."""
        self._files = files
        self.where = f"dir:{files.where}"

    def homes(self, digest: str) -> Sequence[Reference]:
        """As `Source.homes`: it is in no registry."""
        return ()

    @property
    def names(self) -> tuple[Reference, ...]:
        """None: nothing in there has a name."""
        return ()

    def root(self) -> Document:
        """As `Source.root`."""
        if self._files.size("manifest.json") is None:
            raise InvalidDocument(self.where, "it has no manifest.json")
        return parse(
            whole(self._files, "manifest.json", MAX_DOCUMENT_BYTES), where=f"manifest of {self.where}"
        )

    def document(self, descriptor: Descriptor) -> Document:
        """As `Source.document`."""
        raw = whole(self._files, f"{descriptor.hex}.manifest.json", MAX_DOCUMENT_BYTES)
        return read_document(raw, descriptor, self.where)

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        """As `Source.pour`."""
        pour_file(self._files, blob.hex, blob, sink, stop=stop, progress=progress)

    def about(self, digest: str) -> Sequence[About]:
        """As `Source.about`: none."""
        return ()

    def close(self) -> None:
        """Nothing is open."""
        self._files.close()


class FolderTarget:
    """A folder that is written."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing yet."""
        self._folder = folder
        self._lock = -1
        self._made = False
        self._before: frozenset[str] = frozenset()
        self._written: set[str] = set()
        self.where = f"dir:{folder}"

    def begin(self, cargo: Cargo, source: Source) -> None:
        """As `Target.begin`."""
        folder = self._folder
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file")
        there = os.listdir(folder) if folder.is_dir() else []
        if "version" not in there and not all(map(_PARTIAL.fullmatch, there)):
            raise UsageError(f"{folder} is not empty, and no folder of skopeo's", hint="name a new one")
        self._made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._made = False
            raise UsageError(f"another copy is writing {folder}") from error
        self._before = frozenset(os.listdir(folder))
        self._write("version", _VERSION)

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """As `Target.has`: that is not known before what is there was read."""
        return False

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """As `Target.blob`."""
        sink = _core.BlobSink(str(self._folder / blob.hex), digest=blob.digest, size=blob.size)
        how = sent_into(sink, blob, source, stop=stop, progress=progress)
        self._written.add(blob.hex)
        return how

    def document(self, document: Document) -> None:
        """As `Target.document`."""
        self._write(f"{document.descriptor.hex}.manifest.json", document.raw)

    def about(self, about: About) -> None:
        """As `Target.about`."""
        self.document(about.document)

    def finish(self, root: Document) -> None:
        """As `Target.finish`: by one rename; what only the old image had goes then."""
        self._write("manifest.json", root.raw)
        self._sweep(
            name
            for name in os.listdir(self._folder)
            if _OF_IMAGES.fullmatch(name) or _PARTIAL.fullmatch(name)
        )
        self._close()

    def abort(self) -> None:
        """As `Target.abort`: the image that was there stays whole."""
        if self._lock >= 0 and self._made:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif self._lock >= 0:
            written, self._written = self._written - self._before, set()
            self._sweep(written)
        self._close()

    def _write(self, name: str, data: bytes) -> None:
        write_beside(self._folder / name, data)
        self._written.add(name)

    def _sweep(self, names: Iterable[str]) -> None:
        """Removes those of these files that are no part of what was written."""
        for name in names:
            if name not in self._written:
                (self._folder / name).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1
