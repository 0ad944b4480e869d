"""`ArchiveTarget`: an image as one tar: an OCI image layout and, where asked, docker's archive as well.

Sizes are known before the bytes are, so every blob has its place in the file from the beginning: they are
written side by side, in whatever order they come, and the same image always gives the same archive. It is
written beside its place and renamed. The forms are those of `exporter.archive`.
Source: OCI image-spec v1.1, image-layout.md; Docker image specification v1.2, "Combined Image JSON".
"""

from __future__ import annotations

import os
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from img.errors import InvalidDocument, Unsupported, UsageError
from img.oci import Descriptor, Manifest, Platform, Reference
from img.oci.descriptor import INDEXES, OCI_INDEX
from img.oci.manifest import Index, dump
from img.places.layout import LAYOUT, blob_name
from img.places.place import FULL_NAME, REF_NAME, About, Cargo, Document, Source, named
from img.places.supply import Verifying
from img.progress import Progress
from img.registry import Stop, Upload

_BLOCK = 512
_MOST_BYTES = 1 << 60
"""What no disk holds, and no file either."""

_END = bytes(20 * _BLOCK)
"""Two empty blocks, and what tar's usual record adds."""


class ArchiveTarget:
    """A tar that is written."""

    def __init__(self, path: Path, *, docker: bool, ref: str = "", name: Reference | None = None) -> None:
        """Touches nothing yet.

        Args:
            docker: Write docker's list as well, for one image of a platform.
            ref: The name in the layout; empty for none.
            name: The image's full name, where it has one.
        """
        self._path = path
        self._docker = docker
        self._ref = ref
        self._name = name
        self._partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        self._file = -1
        self._places: dict[str, int] = {}
        known = f":{ref}" if ref else f":{name.familiar}" if name else ""
        self.where = f"{'docker' if docker else 'oci'}-archive:{path}{known}"

    def begin(self, cargo: Cargo, source: Source) -> None:
        """As `Target.begin`: lays the whole file out, and writes all but the blobs."""
        if self._path.is_dir():
            raise UsageError(
                f"{self._path} is a folder, and no archive", hint=f"oci:{self._path} writes a layout"
            )
        if sum(blob.size for blob in cargo.blobs) > _MOST_BYTES:
            raise InvalidDocument(self.where, f"its layers have more than {_MOST_BYTES} bytes")
        listed = _docker_list(cargo, self._name, {d.digest for d in cargo.blobs}) if self._docker else None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        at = 0
        for name, size, data in self._contents(cargo, listed):
            head = _head(name, size)
            _write(self._file, head, at)
            at += len(head)
            if data is None:
                self._places[name] = at
            else:
                _write(self._file, data, at)
            at += -(-size // _BLOCK) * _BLOCK if size > 0 else 0
        _write(self._file, _END, at)

    def _contents(self, cargo: Cargo, listed: list[object] | None) -> Iterator[tuple[str, int, bytes | None]]:
        """Every member in its order: its name, size (-1 of a folder), and content where that is known."""
        yield "blobs", -1, b""
        yield "blobs/sha256", -1, b""
        blobs = {blob.digest: blob for blob in cargo.blobs}
        for document in cargo.everything:
            yield blob_name(document.digest), len(document.raw), document.raw
            if isinstance(document, Manifest):
                for part in (document.config, *document.layers):
                    if (blob := blobs.pop(part.digest, None)) is not None:
                        yield blob_name(blob.digest), blob.size, None
        entries = [named(a.document.descriptor, {REF_NAME: a.tag} if a.tag else {}) for a in cargo.about]
        names = {FULL_NAME: str(self._name)} if self._name else {}
        ref = self._ref or (self._name.tag if self._name else "")
        entries.append(named(cargo.root.descriptor, {**names, REF_NAME: ref} if ref else names))
        index = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        yield "index.json", len(index), index
        if listed is not None:
            raw = dump(listed)
            yield "manifest.json", len(raw), raw
        yield "oci-layout", len(LAYOUT), LAYOUT

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """As `Target.has`: a new file has nothing."""
        return False

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """As `Target.blob`."""
        sink = _Region(blob, self._file, self._places[blob_name(blob.digest)])
        source.pour(blob, sink, stop=stop, progress=progress)
        sink.finish()
        return Upload.SENT

    def document(self, document: Document) -> None:
        """As `Target.document`: it is there already."""

    def about(self, about: About) -> None:
        """As `Target.about`: it is there already."""

    def finish(self, root: Document) -> None:
        """As `Target.finish`: takes the place of what has the name."""
        os.close(self._file)
        self._file = -1
        self._partial.rename(self._path)

    def abort(self) -> None:
        """As `Target.abort`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._partial.unlink(missing_ok=True)


class _Region(Verifying):
    """A sink over a part of a file."""

    def __init__(self, blob: Descriptor, file: int, start: int) -> None:
        super().__init__(blob)
        self._file = file
        self._start = start

    def write(self, data: bytes) -> None:
        at = self._start + self.offset
        self.take(data)
        _write(self._file, data, at)

    def finish(self) -> None:
        self.check()

    def abort(self) -> None:
        """The whole file goes, or the part is written again."""


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, at)
        view, at = view[count:], at + count


def _head(name: str, size: int) -> bytes:
    """A member's head, with no times and no names of users: nothing of this machine gets in."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = max(0, size), 0o644
    if size < 0:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.PAX_FORMAT)


def _docker_list(cargo: Cargo, name: Reference | None, blobs: set[str]) -> list[object]:
    """Docker's list: one image of a platform, of several this machine's or the first.

    Raises:
        Unsupported: there is none, or a layer of it does not come along.
    """
    image = main_image(cargo)
    if image is None:
        raise Unsupported("anything but an image in docker's archive", "oci-archive: takes it")
    left = next((layer for layer in image.layers if layer.digest not in blobs), None)
    if left is not None:
        raise Unsupported("a foreign layer in docker's archive", f"{left.digest}; --foreign-layers brings it")
    return [
        {
            "Config": blob_name(image.config.digest),
            "RepoTags": [name.familiar] if name else [],
            "Layers": [blob_name(layer.digest) for layer in image.layers],
        }
    ]


def main_image(cargo: Cargo) -> Manifest | None:
    """The image that stands for all where one is asked for: this machine's, or the first; None of none."""
    images = {d.digest: d for d in cargo.documents if isinstance(d, Manifest) and d.is_image}
    root = cargo.root
    if isinstance(root, Manifest):
        return images.get(root.digest)
    host = Platform.host()
    for index in (d for d in reversed(cargo.documents) if isinstance(d, Index)):
        chosen = index.choose(host)
        if chosen is not None and chosen.digest in images:
            return images[chosen.digest]
    entries = (e for e in root.manifests if e.media_type not in INDEXES)
    named_ones = (e for e in entries if e.platform is None or e.platform.os != "unknown")
    return next((images[entry.digest] for entry in named_ones if entry.digest in images), None)
