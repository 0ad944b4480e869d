"""`push` of artifacts: files in a registry that are no image, perhaps about one (`img artifact`).

An artifact is a manifest whose layers are files as they are, each with its name as an annotation; a folder is
packed into one. Nothing of it stays in the store. `retrieving` fetches them.
Source: OCI image-spec v1.1, manifest.md, "Guidelines for Artifact Usage"; ORAS, "Media Types & Annotations".
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from img.engine.folders import FOLDER, pack
from img.engine.notes import CONFIG_NOTES, MANIFEST_NOTES, TITLE, Notes
from img.engine.tally import Tally
from img.errors import UsageError
from img.oci import Descriptor, Manifest, Platform, Reference
from img.oci.descriptor import OCI_EMPTY, sha256
from img.oci.hashing import digest_of
from img.oci.reference import is_tag
from img.progress import Progress, silent
from img.registry import Registry, in_parallel
from img.registry.faults import absent
from img.registry.stop import Stop
from img.values import dataclass, field, replace

ANY_FILE = "application/octet-stream"
"""Media type of a file of which nothing is said."""

ANY_ARTIFACT = "application/vnd.unknown.artifact.v1"
"""Artifact type where none is given: the specification wants one. ORAS uses the same."""

ANY_CONFIG = "application/vnd.unknown.config.v1+json"
"""Media type of a config of which nothing is said, likewise."""

_EMPTY = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file, or a folder, on its way into an artifact.

    Attributes:
        media_type: Empty for the usual one.
        title: Its name there.
    """

    path: Path
    media_type: str
    title: str

    def described(self, spool: Callable[[], Path], epoch: int) -> tuple[Descriptor, Path]:
        """Reads the file, or packs the folder; gives its entry in the manifest, and the file that is sent."""
        if self.path.is_dir():
            packed, path = pack(self.path, self.title, self.media_type or FOLDER, spool(), epoch=epoch)
            return replace(packed, annotations={**packed.annotations, TITLE: self.title}), path
        return replace(self.describe(), annotations={TITLE: self.title}), self.path

    def describe(self) -> Descriptor:
        """Reads the file; gives what points at it, which says nothing of its name."""
        return Descriptor(
            media_type=self.media_type or ANY_FILE,
            digest=digest_of(self.path),
            size=self.path.stat().st_size,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest:
    """An artifact that is to be made.

    Attributes:
        files: `PATH` or `PATH:TYPE` each; a folder is packed.
        artifact_type: What it is; empty for `ANY_ARTIFACT`, or for what its config is, where it has one.
        subject: The name of the manifest that it is about, of the same repository; empty for none.
        platform: Where that name stands for an index, the image for this platform; empty for the index.
        annotations: Of its manifest.
        annotation_file: A JSON file of them: by the names of files, `$manifest` and `$config`.
        config: `PATH` or `PATH:TYPE` of its config; empty for none.
        epoch: Seconds; no time in a packed folder is later.
    """

    files: tuple[str, ...] = ()
    artifact_type: str = ""
    subject: str = ""
    platform: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    annotation_file: str = ""
    config: str = ""
    epoch: int = 0


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
    spool: Callable[[], Path],
    jobs: int = 4,
    progress: Progress = silent,
) -> Artifact:
    """Sends files, and then the manifest that names them; see `Client.push_artifact`.

    Args:
        name: Where to; empty for the repository of the subject, in which it gets no tag. Further tags may
            stand behind the first, with commas between them.
        cwd: Folder that paths are relative to.
        spool: Gives a folder for packed ones; called only where there is one.
        progress: Where the sum of the transfer goes.
    Raises:
        UsageError: a file cannot be read, two have one name, or the subject is of another repository.
        NotFound: there is no such subject. RegistryError.
    """
    files = read_files(request.files, cwd)
    config = _read_config(request.config, cwd)
    name, further = _tags(name)
    target = _target(name, request.subject)
    notes = Notes.read(Path(cwd, request.annotation_file)) if request.annotation_file else Notes()
    notes.check([file.title for file in files])
    subject = _subject(registry, request.subject, request.platform)
    if any(file.path.is_dir() for file in files):
        registry.check_push(target)  # what is not allowed is told before the work
    blobs: dict[str, tuple[Descriptor, Path | None]] = {}
    layers = []
    for file in files:
        described, path = file.described(spool, request.epoch)
        layers.append(notes.on(described, file.title))
        blobs[described.digest] = (described, path)
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(_EMPTY), size=len(_EMPTY))
    about = config.describe() if config is not None else empty
    blobs.setdefault(about.digest, (about, config.path if config is not None else None))
    if not layers:
        blobs.setdefault(empty.digest, (empty, None))
    manifest = Manifest.make(
        notes.on(about, CONFIG_NOTES),
        layers or [empty],
        artifact_type=request.artifact_type or ("" if config is not None else ANY_ARTIFACT),
        subject=subject,
        annotations={**notes.of(MANIFEST_NOTES), **request.annotations},
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
        for each in (place, *(replace(place, tag=tag) for tag in further)):
            registry.push_manifest(each, manifest.raw, manifest.media_type)
    progress(tally.sum([place]))
    return Artifact(
        name=str(place),
        digest=manifest.digest,
        artifact_type=manifest.kind,
        subject=subject.digest if subject else "",
    )


def _tags(name: str) -> tuple[str, list[str]]:
    """A name with its first tag, and the others that stand behind it."""
    first, *further = name.split(",")
    for tag in further:
        if not is_tag(tag):
            raise UsageError(f"{name} has no tag {tag!r}", hint="write NAME:TAG,TAG")
    return first, further


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
    """Reads `PATH` and `PATH:TYPE`, and looks whether the files and folders are there.

    A path below `cwd` is the file's name; of one elsewhere, its last part.

    Raises:
        UsageError: one is neither file nor folder, or two have one name.
    """
    found: dict[str, ArtifactFile] = {}
    for word in words:
        path, kind = _path_and_type(word, cwd)
        if not (path.is_file() or path.is_dir()):
            raise UsageError(f"{word}: no such file", hint="write PATH or PATH:MEDIA-TYPE")
        inside = os.path.normpath(os.path.relpath(path, cwd)) if not os.path.isabs(word) else ".."
        outside = inside.partition("/")[0] == ".."
        title = Path(os.path.abspath(path)).name if outside else inside
        if title in found:
            raise UsageError(f"two files would have the name {title}", hint="push them one by one")
        found[title] = ArtifactFile(path=path, media_type=kind, title=title)
    return list(found.values())


def _path_and_type(word: str, cwd: str) -> tuple[Path, str]:
    """A path, and the media type behind its last colon, where that is none of the path."""
    text, colon, kind = word.rpartition(":")
    whole = not colon or "/" not in kind or Path(cwd, word).exists()
    return Path(cwd, word if whole else text), "" if whole else kind


def _read_config(word: str, cwd: str) -> ArtifactFile | None:
    if not word:
        return None
    path, kind = _path_and_type(word, cwd)
    if not path.is_file():
        raise UsageError(f"{word}: no such file", hint="--config takes PATH or PATH:MEDIA-TYPE")
    return ArtifactFile(path=path, media_type=kind or ANY_CONFIG, title="")


def _subject(registry: Registry, name: str, platform: str) -> Descriptor | None:
    if not name:
        return None
    reference = Reference.parse(name)
    if platform:
        return registry.resolve(reference, Platform.parse(platform)).descriptor
    found = registry.head(reference)
    if found is None:
        raise absent(reference)
    return found


def _opened(path: Path | None) -> BinaryIO:
    return path.open("rb") if path is not None else io.BytesIO(_EMPTY)
