"""`pull` of artifacts: their files come to a folder, by names that were looked at first.

`Engine.pull_artifact` calls it; `img artifact ls` reads what it would fetch. What a registry says of names is
hostile until `contained` has seen it, and what is in packed folders until `folders.unpack` has.
Source: OCI image-spec v1.1, manifest.md, "Guidelines for Artifact Usage"; ORAS, "Media Types & Annotations".
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from img import _core
from img.engine.folders import is_packed
from img.engine.landing import Landing, blob_in
from img.engine.notes import TITLE
from img.errors import DigestMismatch, InvalidDocument, SizeMismatch, UsageError
from img.oci import Descriptor, Index, Manifest, Platform, Reference
from img.oci.descriptor import OCI_EMPTY
from img.progress import Progress, Transferred
from img.registry import Registry, fetch
from img.values import dataclass

_LONGEST_NAME = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactWish:
    """What is fetched of an artifact, and how.

    Attributes:
        include: Patterns as a shell has them: files whose whole name one of them fits. Empty for all.
        platform: Of a name that stands for an index, the artifact for this platform.
        config: File to write its config to; empty for none.
        overwrite: What is there already is replaced.
    """

    include: tuple[str, ...] = ()
    platform: str = ""
    config: str = ""
    overwrite: bool = False


def pull(
    registry: Registry, name: str, output: str, wish: ArtifactWish, *, jobs: int = 4, progress: Progress
) -> list[Path]:
    """Fetches the files of an artifact into a folder; see `Client.pull_artifact`.

    They get their names when all of them are there and right; of a file that is in the way, none.

    Raises:
        UsageError: it is an image or an index, a file is there already, or no file fits; or `output` is
            no folder.
        InvalidDocument: a name in it leads out of the folder, two are one, or a packed folder holds such.
        NotFound, RegistryError, DigestMismatch, SizeMismatch.
    """
    reference = Reference.parse(name)
    manifest = read(registry, reference, wish.platform)
    named = _included(contained(manifest, reference.familiar), wish.include, reference.familiar)
    root = Path(output)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{root} is no folder", hint="-o names the folder that the files go into") from error
    spool = root / f".img-{secrets.token_hex(8)}"
    spool.mkdir(0o700)
    landing = Landing(root, wish)
    try:
        if wish.config and os.path.lexists(wish.config) and not wish.overwrite:
            raise UsageError(f"{wish.config} is there already", hint="--overwrite replaces it")
        config = registry.document(reference, manifest.config) if wish.config else b""
        for path, layer in named.items():
            landing.check(path, layer)
        began = time.monotonic()
        fetch(
            registry,
            reference,
            list(named.values()),
            lambda layer: FileSink(spool, layer),
            jobs=jobs,
            progress=progress,
        )
        once = {layer.digest: layer.size for layer in named.values()}
        seconds, moved = time.monotonic() - began, sum(once.values())
        name = reference.familiar
        progress(Transferred(action="pull", name=name, moved=len(once), moved_bytes=moved, seconds=seconds))
        landed = landing.land(named, spool, reference.familiar)
        if wish.config:
            Path(wish.config).write_bytes(config)
        return landed
    finally:
        _core.remove_tree(str(spool))


def read(registry: Registry, reference: Reference, platform: str = "") -> Manifest:
    """The manifest of an artifact.

    Raises:
        UsageError: it is an image, or an index. NotFound, RegistryError.
    """
    if platform:
        document: Manifest | Index = registry.resolve(reference, Platform.parse(platform))
    else:
        document = registry.manifest(reference)
    if isinstance(document, Index):
        entries = ", ".join(entry.digest for entry in document.manifests[:4])
        raise UsageError(f"{reference.familiar} is an index", hint=f"name one of its manifests: {entries}")
    if document.is_image:
        raise UsageError(f"{reference.familiar} is an image", hint=f"img pull {reference.familiar} pulls it")
    return document


def files_of(manifest: Manifest) -> list[dict[str, object]]:
    """What an artifact holds, as it says itself: for people, and for no path."""
    return [
        {
            "name": layer.annotations.get(TITLE, ""),
            "media_type": layer.media_type,
            "digest": layer.digest,
            "size": layer.size,
            "packed": is_packed(layer),
            "annotations": dict(layer.annotations),
        }
        for layer in manifest.layers
        if layer.media_type != OCI_EMPTY
    ]


def contained(manifest: Manifest, where: str) -> dict[PurePosixPath, Descriptor]:
    """The files of an artifact by their names; each is relative, and stays below its folder.

    A file without a name has its digest for one. A packed folder may be the folder itself, `.`, and others
    may be below it.

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
        nameless = not path.parts and not is_packed(layer)
        if not plain or path.is_absolute() or nameless or ".." in path.parts:
            raise InvalidDocument(where, f"a file is called {title[:80]!r}, which is no name below a folder")
        if path in found:
            raise InvalidDocument(where, f"two files are called {title!r}")
        found[path] = layer
    for path in found:
        if any(parent in found and not is_packed(found[parent]) for parent in path.parents):
            raise InvalidDocument(where, f"{str(path)!r} is below a file")
    return found


def _included(
    named: Mapping[PurePosixPath, Descriptor], patterns: Sequence[str], where: str
) -> dict[PurePosixPath, Descriptor]:
    """Those that a pattern fits.

    Raises:
        UsageError: a pattern fits none.
    """
    if not patterns:
        return dict(named)
    found: dict[PurePosixPath, Descriptor] = {}
    for pattern in patterns:
        fitting = {p: layer for p, layer in named.items() if fnmatchcase(str(p), os.path.normpath(pattern))}
        if not fitting:
            names = ", ".join(map(str, named)) or "none"
            raise UsageError(f"{where} has no file {pattern}", hint=f"it has {names}")
        found.update(fitting)
    return {path: layer for path, layer in named.items() if path in found}


class FileSink:
    """Takes one file, under its digest in a folder where nobody looks for it."""

    def __init__(self, folder: Path, descriptor: Descriptor) -> None:
        """Makes the file, for us alone until it is whole."""
        import hashlib

        self.path = blob_in(folder, descriptor)
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._file = self.path.open("wb")
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

    def abort(self) -> None:
        """Removes the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)
