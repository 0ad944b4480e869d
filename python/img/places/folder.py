"""`FolderSource` and `FolderTarget`: one image as loose files in a folder: skopeo's `dir:`.

`manifest.json` is the image's document as it is, `DIGITS` a blob, and `DIGITS.manifest.json` what an index
names. A folder is written beside its place and renamed. Source: containers-transports(5), "dir:path".
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from img import _core
from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor, Reference, parse
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.places.files import Files, pour_file, whole
from img.places.place import About, Cargo, Document, Source, read_document, sent_into
from img.progress import Progress
from img.registry import Sink, Stop, Upload

_VERSION = b"Directory Transport Version: 1.1\n"


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
        self._partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
        self.where = f"dir:{folder}"

    def begin(self, cargo: Cargo, source: Source) -> None:
        """As `Target.begin`."""
        folder = self._folder
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "version").is_file():
            raise UsageError(f"{folder} is not empty, and no folder of skopeo's", hint="name a new one")
        self._partial.mkdir(parents=True)
        (self._partial / "version").write_bytes(_VERSION)

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """As `Target.has`: a new folder has nothing."""
        return False

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """As `Target.blob`."""
        sink = _core.BlobSink(str(self._partial / blob.hex), digest=blob.digest, size=blob.size)
        return sent_into(sink, blob, source, stop=stop, progress=progress)

    def document(self, document: Document) -> None:
        """As `Target.document`."""
        (self._partial / f"{document.descriptor.hex}.manifest.json").write_bytes(document.raw)

    def about(self, about: About) -> None:
        """As `Target.about`."""
        self.document(about.document)

    def finish(self, root: Document) -> None:
        """As `Target.finish`: takes the place of what is there."""
        (self._partial / "manifest.json").write_bytes(root.raw)
        if self._folder.is_dir():
            old = self._folder.with_name(f"{self._partial.name}.old")
            self._folder.rename(old)
            self._partial.rename(self._folder)
            shutil.rmtree(old)
        else:
            self._partial.rename(self._folder)

    def abort(self) -> None:
        """As `Target.abort`."""
        shutil.rmtree(self._partial, ignore_errors=True)
