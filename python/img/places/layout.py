"""`LayoutSource` and `LayoutTarget`: images in OCI image layouts; the source reads those in archives as well.

A layout that exists is added to: blobs appear whole or not at all, and `index.json` changes by rename, under
a lock on the folder itself. Source: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from img import _core
from img.errors import InvalidDocument, InvalidReference, UsageError
from img.oci import Descriptor, Index, Reference, parse
from img.oci.descriptor import MAX_DOCUMENT_BYTES, OCI_INDEX
from img.oci.location import Location
from img.oci.manifest import dump, load_object
from img.places.files import PIECE_BYTES, Files, pour_file, whole
from img.places.place import (
    FULL_NAME,
    REF_NAME,
    About,
    Cargo,
    Document,
    Source,
    cosign_tags,
    named,
    read_document,
    sent_into,
)
from img.progress import Progress
from img.registry import Sink, Stop, Upload

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def blob_name(digest: str) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/sha256/{digest.partition(':')[2]}"


class LayoutSource:
    """One image of a layout."""

    verbatim = True

    def __init__(self, files: Files, location: Location) -> None:
        """Looks for the image.

        Raises:
            InvalidDocument: it is no layout, or has no such image.
        """
        self._files = files
        self.where = str(location)
        self._entries = entries_of(files)
        self._entry = self._find(location)

    def homes(self, digest: str) -> Sequence[Reference]:
        """As `Source.homes`: it is in no registry."""
        return ()

    @property
    def names(self) -> tuple[Reference, ...]:
        """As `Source.names`."""
        return full_names(self._entry)

    def root(self) -> Document:
        """As `Source.root`."""
        return self.document(self._entry)

    def document(self, descriptor: Descriptor) -> Document:
        """As `Source.document`."""
        raw = whole(self._files, blob_name(descriptor.digest), MAX_DOCUMENT_BYTES)
        return read_document(raw, descriptor, self._files.where)

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        """As `Source.pour`."""
        pour_file(self._files, blob_name(blob.digest), blob, sink, stop=stop, progress=progress)

    def about(self, digest: str) -> Sequence[About]:
        """As `Source.about`: what the layout lists."""
        found = []
        for entry in self._entries:
            tag = entry.annotations.get(REF_NAME, "")
            if tag in cosign_tags(digest):
                found.append(About(document=self.document(entry), tag=tag))
            elif self._subjects[entry.digest] == digest:
                found.append(About(document=self.document(entry)))
        return found

    @cached_property
    def _subjects(self) -> dict[str, str]:
        """What the documents that the layout lists are about, by their digests; empty for nothing."""
        found: dict[str, str] = {}
        for entry in self._entries:
            if entry.digest not in found:
                subject = self.document(entry).subject
                found[entry.digest] = subject.digest if subject is not None else ""
        return found

    def close(self) -> None:
        """Closes the archive, where it is one."""
        self._files.close()

    def _find(self, location: Location) -> Descriptor:
        """The entry that a location means; without any word, the only one, else the one called `latest`."""
        if location.digest:
            found = [entry for entry in self._entries if entry.digest == location.digest]
            size = self._files.size(blob_name(location.digest))
            # A digest may be of a document that an index of the layout lists; its bytes say what it is.
            if not found and size is not None:
                found = [Descriptor(media_type="", digest=location.digest, size=size)]
        elif location.number is not None:
            found = list(self._entries[location.number : location.number + 1])
        elif location.ref or len(self._entries) != 1:
            found = [e for e in self._entries if (location.ref or "latest") in words_of(e)]
        else:
            found = list(self._entries)
        if found:
            return found[0]
        there = sorted({word for entry in self._entries for word in words_of(entry)})
        what = f"no such image; it has {', '.join(there[:20])}" if there else "no such image"
        if len(self._entries) > 1 and not (location.ref or location.digest or location.number is not None):
            what = f"{len(self._entries)} images, so say which: {', '.join(there[:20]) or ':@0, :@1, …'}"
        raise InvalidDocument(self.where, f"the layout has {what}")


def entries_of(files: Files) -> tuple[Descriptor, ...]:
    """What a layout lists.

    Raises:
        InvalidDocument: it is none.
    """
    if files.size("index.json") is None:
        raise InvalidDocument(files.where, "it is no OCI image layout: it has no index.json")
    raw = whole(files, "index.json", MAX_DOCUMENT_BYTES)
    index = parse(raw, OCI_INDEX, where=f"index.json of {files.where}")
    if not isinstance(index, Index):
        raise InvalidDocument(f"index.json of {files.where}", "it is not an index")
    return index.manifests


def words_of(entry: Descriptor) -> list[str]:
    """What an entry can be asked for by: its name in the layout, and that name's tag."""
    words = [entry.annotations[key] for key in (REF_NAME, FULL_NAME) if entry.annotations.get(key)]
    tags = [word.rpartition(":")[2] for word in words if ":" in word]
    short = [name.familiar for name in full_names(entry)]
    return list(dict.fromkeys([*words, *(tag for tag in tags if tag and "/" not in tag), *short]))


def full_names(entry: Descriptor) -> tuple[Reference, ...]:
    """The full name that an entry gives its image, if it gives one."""
    for key in (FULL_NAME, REF_NAME):
        text = entry.annotations.get(key, "")
        if "/" in text or ":" in text:
            try:
                return (Reference.parse(text),)
            except InvalidReference:
                continue
    return ()


class LayoutTarget:
    """A folder that is a layout, or becomes one."""

    def __init__(self, folder: Path, ref: str) -> None:
        """Touches nothing yet.

        Args:
            ref: The name in the layout; empty for none.
        """
        self._folder = folder
        self._ref = ref
        self._about: list[About] = []
        self.where = f"oci:{folder}" + (f":{ref}" if ref else "")

    def begin(self, cargo: Cargo, source: Source) -> None:
        """As `Target.begin`: makes the folder."""
        folder = self._folder
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, and no layout", hint=f"oci-archive:{folder} writes one")
        strange = folder.is_dir() and any(folder.iterdir()) and not (folder / "oci-layout").is_file()
        if strange and not (folder / "blobs").is_dir():
            raise UsageError(f"{folder} is not empty, and no OCI image layout", hint="name a new folder")
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not (folder / "oci-layout").is_file():
                write_beside(folder / "oci-layout", LAYOUT)

    def has(self, document: Document, blobs: Sequence[Descriptor]) -> bool:
        """As `Target.has`: that is not known before what is there was read."""
        return False

    def blob(self, blob: Descriptor, source: Source, *, stop: Stop, progress: Progress) -> Upload:
        """As `Target.blob`: one that is there is read, and replaced where it is not what its name says."""
        if self._is_sound(blob, stop):
            return Upload.PRESENT
        sink = _core.BlobSink(str(self._path(blob.digest)), digest=blob.digest, size=blob.size)
        return sent_into(sink, blob, source, stop=stop, progress=progress)

    def document(self, document: Document) -> None:
        """As `Target.document`."""
        if not self._is_sound(document.descriptor, Stop()):
            write_beside(self._path(document.digest), document.raw)

    def about(self, about: About) -> None:
        """As `Target.about`: the layout lists it."""
        self.document(about.document)
        self._about.append(about)

    def finish(self, root: Document) -> None:
        """As `Target.finish`: an image that had the name loses it, and stays."""
        self.document(root)
        with self._locked():
            index = self._index()
            entries = index["manifests"]
            for about in self._about:
                _add(entries, about.document.descriptor, about.tag)
            _add(entries, root.descriptor, self._ref)
            write_beside(self._folder / "index.json", dump(index))

    def abort(self) -> None:
        """Blobs that are there help the next copy; the index does not name them."""

    def _path(self, digest: str) -> Path:
        return self._folder / blob_name(digest)

    def _is_sound(self, blob: Descriptor, stop: Stop) -> bool:
        """Tells whether a blob is here, byte for byte: others write here, too, and machines go down."""
        import hashlib  # OpenSSL's is fast, and slow to start

        try:
            with self._path(blob.digest).open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != blob.size:
                    return False
                seen = hashlib.sha256()
                while piece := file.read(PIECE_BYTES):
                    stop.check()
                    seen.update(piece)
        except FileNotFoundError:
            return False
        return seen.hexdigest() == blob.hex

    def _index(self) -> dict[str, list[dict[str, object]]]:
        try:
            raw = (self._folder / "index.json").read_bytes()
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}  # type: ignore[dict-item]
        data = load_object(raw, f"index.json of {self._folder}")
        entries = data.get("manifests")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidDocument(f"index.json of {self._folder}", "it is not an index")
        return data  # type: ignore[return-value]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds a lock on the folder, which every copy into it takes."""
        lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _add(entries: list[dict[str, object]], descriptor: Descriptor, ref: str) -> None:
    """Adds an entry; one of the same name goes, and so does one without a name for the same thing."""

    def name_of(entry: dict[str, object]) -> str:
        notes = entry.get("annotations")
        return str(notes.get(REF_NAME, "")) if isinstance(notes, dict) else ""

    def stays(entry: dict[str, object]) -> bool:
        if name_of(entry):
            return name_of(entry) != ref
        return entry.get("digest") != descriptor.digest

    entries[:] = [entry for entry in entries if stays(entry)]
    if ref or not any(entry.get("digest") == descriptor.digest for entry in entries):
        entries.append(named(descriptor, {REF_NAME: ref} if ref else {}))


def write_beside(path: Path, data: bytes) -> None:
    """Writes a small file beside its place and renames it."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
