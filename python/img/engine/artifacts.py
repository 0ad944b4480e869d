"""`push` and `pull` of artifacts: files in a registry that are no image, perhaps about one (`img artifact`).

An artifact is a manifest whose layers are files as they are, each with its name as an annotation. Nothing
of it goes through the store. A name that came from a registry is hostile until `contained` has seen it.
Source: OCI image-spec v1.1, manifest.md, "Guidelines for Artifact Usage"; ORAS, "Media Types & Annotations".
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from img.engine.tally import Tally
from img.errors import DigestMismatch, InvalidDocument, SizeMismatch, UsageError
from img.oci import Descriptor, Index, Manifest, Reference
from img.oci.descriptor import OCI_EMPTY, sha256
from img.oci.hashing import digest_of
from img.progress import Progress, Transferred, silent
from img.registry import Registry, fetch, in_parallel
from img.registry.faults import absent
from img.registry.stop import Stop
from img.values import dataclass, field, replace

TITLE = "org.opencontainers.image.title"
"""The annotation that holds a file's name."""

ANY_FILE = "application/octet-stream"
"""Media type of a file of which nothing is said."""

ANY_ARTIFACT = "application/vnd.unknown.artifact.v1"
"""Artifact type where none is given: the specification wants one. ORAS uses the same."""

_EMPTY = b"{}"
_LONGEST_NAME = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file on its way into an artifact.

    Attributes:
        title: Its name there.
    """

    path: Path
    media_type: str
    title: str

    def describe(self) -> Descriptor:
        """Reads the file, and gives its entry in the manifest."""
        return Descriptor(
            media_type=self.media_type,
            digest=digest_of(self.path),
            size=self.path.stat().st_size,
            annotations={TITLE: self.title},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest:
    """An artifact that is to be made.

    Attributes:
        files: `PATH` or `PATH:TYPE` each.
        artifact_type: What it is; empty for `ANY_ARTIFACT`.
        subject: The name of the manifest that it is about, of the same repository; empty for none.
        annotations: Of its manifest.
    """

    files: tuple[str, ...] = ()
    artifact_type: str = ""
    subject: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact that is in a registry now.

    Attributes:
        name: By which it is found there: with its tag, or with its digest where it has none.
        subject: Digest of the manifest that it is about, or empty.
    """

    name: str
    digest: str
    artifact_type: str
    subject: str = ""


# ---- up ----------------------------------------------------------------------------------------


def push(
    registry: Registry,
    name: str,
    request: ArtifactRequest,
    *,
    cwd: str = ".",
    jobs: int = 4,
    progress: Progress = silent,
) -> Artifact:
    """Sends files, and then the manifest that names them; see `Client.push_artifact`.

    Args:
        name: Where to; empty for the repository of the subject, in which it gets no tag.
        cwd: Folder that paths are relative to.
        progress: Where the sum of the transfer goes.
    Raises:
        UsageError: a file cannot be read, two have one name, or the subject is of another repository.
        NotFound: there is no such subject. RegistryError.
    """
    files = read_files(request.files, cwd)
    target = _target(name, request.subject)
    subject = _subject(registry, request.subject)
    blobs: dict[str, tuple[Descriptor, Path | None]] = {}
    layers = []
    for file in files:
        layers.append(file.describe())
        blobs[layers[-1].digest] = (layers[-1], file.path)
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(_EMPTY), size=len(_EMPTY))
    blobs.setdefault(empty.digest, (empty, None))
    manifest = Manifest.make(
        empty,
        layers or [empty],
        artifact_type=request.artifact_type or ANY_ARTIFACT,
        subject=subject,
        annotations=request.annotations,
    )
    place = target if target.tag else target.with_digest(manifest.digest)
    tally = Tally()

    def send(blob: tuple[Descriptor, Path | None], stop: Stop) -> None:
        descriptor, path = blob
        how = registry.push_blob(place, descriptor, lambda: _opened(path), stop=stop)
        if path is not None:
            tally.add(how.value, descriptor.size)

    with tally.busy():
        in_parallel(list(blobs.values()), send, jobs, None)
        registry.push_manifest(place, manifest.raw, manifest.media_type)
    progress(tally.sum([place]))
    return Artifact(
        name=str(place),
        digest=manifest.digest,
        artifact_type=manifest.artifact_type,
        subject=subject.digest if subject else "",
    )


def _target(name: str, subject: str) -> Reference:
    """Where an artifact goes: its name, or the repository of what it is about, without a tag."""
    about = Reference.parse(subject) if subject else None
    if name:
        target = Reference.parse(name)
        if target.digest:
            raise UsageError(f"{name} names a digest; an artifact gets a name:tag")
    elif about is not None:
        target = replace(about, tag="", digest="")
    else:
        raise UsageError("an artifact without a name has to be about something")
    if about is not None and about.name != target.name:
        raise UsageError(
            f"{target.familiar_name} is another repository than {about.familiar_name}",
            hint="what refers to a manifest is in the repository of that one",
        )
    return target


def read_files(words: Sequence[str], cwd: str) -> list[ArtifactFile]:
    """Reads `PATH` and `PATH:TYPE`, and looks whether the files are there.

    A path below `cwd` is the file's name; of one elsewhere, its last part.

    Raises:
        UsageError: one is no file, or two have one name.
    """
    found: dict[str, ArtifactFile] = {}
    for word in words:
        text, colon, kind = word.rpartition(":")
        whole = not colon or "/" not in kind or Path(cwd, word).exists()
        path = Path(cwd, word if whole else text)
        if not path.is_file():
            is_folder = path.is_dir()
            raise UsageError(
                f"{word}: {'that is a folder' if is_folder else 'no such file'}",
                hint="pack it first, with tar" if is_folder else "write PATH or PATH:MEDIA-TYPE",
            )
        inside = os.path.normpath(word if whole else text)
        title = Path(inside).name if os.path.isabs(inside) or inside.startswith("..") else inside
        if title in found:
            raise UsageError(f"two files would have the name {title}", hint="push them one by one")
        found[title] = ArtifactFile(path=path, media_type=ANY_FILE if whole else kind, title=title)
    return list(found.values())


def _subject(registry: Registry, name: str) -> Descriptor | None:
    if not name:
        return None
    reference = Reference.parse(name)
    found = registry.head(reference)
    if found is None:
        raise absent(reference)
    return found


def _opened(path: Path | None) -> BinaryIO:
    return path.open("rb") if path is not None else io.BytesIO(_EMPTY)


# ---- down --------------------------------------------------------------------------------------


def pull(
    registry: Registry, name: str, output: str, *, overwrite: bool = False, jobs: int = 4, progress: Progress
) -> list[Path]:
    """Fetches the files of an artifact into a folder; see `Client.pull_artifact`.

    They get their names when all of them are there and right; of a file that is in the way, none.

    Raises:
        UsageError: it is an image or an index, or a file is there already.
        InvalidDocument: a name in it leads out of the folder, or two are one.
        NotFound, RegistryError, DigestMismatch, SizeMismatch.
    """
    reference = Reference.parse(name)
    named = contained(_artifact(registry, reference), reference.familiar)
    root = Path(output)
    root.mkdir(parents=True, exist_ok=True)
    places = {root / path: layer for path, layer in named.items()}
    for place in places:
        _refuse_what_is_there(root, place, overwrite=overwrite)
    sinks: dict[str, FileSink] = {}

    def open_sink(descriptor: Descriptor) -> FileSink:
        sinks[descriptor.digest] = FileSink(root, descriptor)
        return sinks[descriptor.digest]

    try:
        began = time.monotonic()
        fetch(registry, reference, list(places.values()), open_sink, jobs=jobs, progress=progress)
        moved = [sink.offset for sink in sinks.values()]
        seconds = time.monotonic() - began
        name = reference.familiar
        progress(
            Transferred(action="pull", name=name, moved=len(moved), moved_bytes=sum(moved), seconds=seconds)
        )
        last = {layer.digest: place for place, layer in places.items()}
        for place, layer in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            sink = sinks[layer.digest]
            if place == last[layer.digest]:
                os.replace(sink.path, place)
            else:
                sink.copy_to(place)
    finally:
        for sink in sinks.values():
            sink.abort()
    return list(places)


def _artifact(registry: Registry, reference: Reference) -> Manifest:
    document = registry.manifest(reference)
    if isinstance(document, Index):
        entries = ", ".join(entry.digest for entry in document.manifests[:4])
        raise UsageError(f"{reference.familiar} is an index", hint=f"name one of its manifests: {entries}")
    if document.is_image:
        raise UsageError(f"{reference.familiar} is an image", hint=f"img pull {reference.familiar} pulls it")
    return document


def _refuse_what_is_there(root: Path, place: Path, *, overwrite: bool) -> None:
    if os.path.lexists(place) and not overwrite:
        raise UsageError(f"{place} is there already", hint="--overwrite replaces it")
    if place.is_dir() and not place.is_symlink():
        raise UsageError(f"{place} is a folder, and would be a file")
    # Folders that are there may hold symlinks of their owner's: an artifact is not led by them.
    real = os.path.realpath(root)
    if os.path.commonpath([real, os.path.realpath(place.parent)]) != real:
        raise UsageError(f"{place.parent} leads out of {root}", hint="name an empty folder with -o DIR")


def contained(manifest: Manifest, where: str) -> dict[PurePosixPath, Descriptor]:
    """The files of an artifact by their names; each is relative, and stays below its folder.

    A file without a name has its digest for one.

    Raises:
        InvalidDocument: a name is none, or leads elsewhere; two are one; or one would be a folder of another.
    """
    found: dict[PurePosixPath, Descriptor] = {}
    for layer in manifest.layers:
        if layer.media_type == OCI_EMPTY:
            continue
        title = layer.annotations.get(TITLE) or layer.digest.replace(":", "-")
        path = PurePosixPath(title)
        plain = len(title) <= _LONGEST_NAME and title.isprintable() and "\\" not in title
        if not plain or path.is_absolute() or not path.parts or ".." in path.parts:
            raise InvalidDocument(where, f"a file is called {title[:80]!r}, which is no name below a folder")
        if path in found:
            raise InvalidDocument(where, f"two files are called {title!r}")
        found[path] = layer
    for path in found:
        if any(parent in found for parent in path.parents):
            raise InvalidDocument(where, f"{str(path)!r} is below a file")
    return found


class FileSink:
    """Takes one file, beside where it will be, under a name that nobody looks for."""

    def __init__(self, folder: Path, descriptor: Descriptor) -> None:
        """Makes the file, for us alone until it is whole."""
        import hashlib
        import secrets

        self.path = folder / f".img-{secrets.token_hex(8)}"
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._file = self.path.open("xb")
        self.offset = 0

    def write(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> None:
        """Ends the file.

        Raises:
            SizeMismatch, DigestMismatch: it is not what the manifest says.
        """
        self._file.close()
        if self.offset != self._descriptor.size:
            raise SizeMismatch(self._descriptor.size, self.offset)
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._descriptor.digest:
            raise DigestMismatch("blob", self._descriptor.digest, found)

    def copy_to(self, place: Path) -> None:
        """Gives the file one more name, in the place of what is there."""
        import shutil

        copy = self.path.with_suffix(".copy")
        shutil.copyfile(self.path, copy)
        os.replace(copy, place)

    def abort(self) -> None:
        """Removes the file under the name that it came by."""
        self._file.close()
        self.path.unlink(missing_ok=True)
