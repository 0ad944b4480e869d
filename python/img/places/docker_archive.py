"""`docker_archive`: reads what `docker save` writes: a `manifest.json` over configs and layers.

Newer archives are OCI image layouts as well: their manifests are taken as they stand, byte for byte. Of older
ones the manifest is made: docker's schema 2 over the layers that are in there, of which plain ones are known
by the config's diff IDs. Source: Docker image specification v1.2, "Combined Image JSON".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from img.errors import InvalidDocument, InvalidReference, NotFound
from img.oci import Descriptor, ImageConfig, Index, Manifest, Reference, sha256
from img.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    MAX_DOCUMENT_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from img.oci.location import Location
from img.places.files import PIECE_BYTES, Files, pour_file, whole
from img.places.layout import LayoutSource, entries_of, full_names
from img.places.place import About, Document, Source
from img.progress import Progress
from img.registry import Sink, Stop
from img.values import dataclass, replace

_OCI_TYPES = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One image of docker's list, by the names of its files."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[Reference, ...]


def open_docker_archive(files: Files, location: Location) -> Source:
    """The image that a location means.

    Raises:
        InvalidDocument: it is no archive of docker's. NotFound: it has no such image.
    """
    listed = read_list(files)
    chosen = _choose(listed, location)
    if files.size("index.json") is not None:
        entry = _same(files, chosen)
        if entry is not None:
            plain = Location(transport="oci-archive", path=location.path, digest=entry.digest)
            return LayoutSource(files, plain)
    return MadeSource(files, chosen, str(location))


def read_list(files: Files) -> list[Listed]:
    """Reads docker's list.

    Raises:
        InvalidDocument: there is none, or it is none.
    """
    try:
        entries = json.loads(whole(files, "manifest.json", MAX_DOCUMENT_BYTES))
        return [
            Listed(
                config=str(entry["Config"]),
                layers=tuple(str(layer) for layer in entry["Layers"] or ()),
                tags=tuple(Reference.parse(str(tag)) for tag in entry.get("RepoTags") or ()),
            )
            for entry in entries
        ]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, InvalidReference) as error:
        raise InvalidDocument(files.where, f"its manifest.json is not docker's: {error}") from error


def _choose(listed: Sequence[Listed], location: Location) -> Listed:
    if location.number is not None:
        found = list(listed[location.number : location.number + 1])
    elif location.reference is not None:
        found = [image for image in listed if location.reference in image.tags]
    else:
        found = list(listed) if len(listed) == 1 else []
    if found:
        return found[0]
    there = [tag.familiar for image in listed for tag in image.tags]
    if location.reference is None and location.number is None and len(listed) > 1:
        what = f"{location} has {len(listed)} images, so say which"
    else:
        what = f"{location} is not there"
    raise NotFound(what, hint=f"there are {', '.join(there[:20])}" if there else "there are :@0, :@1, …")


def _same(files: Files, image: Listed) -> Descriptor | None:
    """The layout's entry for an image of docker's list: by its name, else by its config."""
    entries = entries_of(files)
    for entry in entries:
        if any(name in image.tags for name in full_names(entry)):
            return entry
    config = image.config.rpartition("/")[2].removesuffix(".json")
    seen: set[str] = set()
    for entry in entries:
        source = LayoutSource(files, Location(transport="oci", path=files.where, digest=entry.digest))
        waiting = [entry]
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            try:
                document = source.document(descriptor)
            except InvalidDocument:
                continue  # of a platform that is not in there
            if isinstance(document, Manifest) and document.config.hex == config:
                return entry
            if isinstance(document, Index) and descriptor is entry:
                waiting += document.manifests
    return None


class MadeSource:
    """An image of docker's list, whose manifest is made."""

    verbatim = False

    def __init__(self, files: Files, image: Listed, where: str) -> None:
        """Reads the config.

        Raises:
            InvalidDocument: it is none, or fits the layers not.
        """
        self._files = files
        self._image = image
        self.where = where
        self._config = whole(files, image.config, MAX_DOCUMENT_BYTES)
        self._homes: dict[str, str] = {sha256(self._config): image.config}
        self._manifest: Manifest | None = None

    def homes(self, digest: str) -> Sequence[Reference]:
        """As `Source.homes`: it is in no registry."""
        return ()

    @property
    def names(self) -> tuple[Reference, ...]:
        """As `Source.names`."""
        return self._image.tags

    def root(self) -> Document:
        """As `Source.root`: layers that are compressed are read for their digests."""
        if self._manifest is None:
            diff_ids = ImageConfig.from_bytes(self._config, where=f"config of {self.where}").diff_ids
            if len(diff_ids) != len(self._image.layers):
                raise InvalidDocument(
                    self.where, f"{len(self._image.layers)} layers, but {len(diff_ids)} in the config"
                )
            layers = [self._layer(*pair) for pair in zip(self._image.layers, diff_ids, strict=True)]
            oci = any(layer.media_type == OCI_LAYER_ZSTD for layer in layers)
            if oci:  # docker's schema 2 has no type for zstd
                layers = [replace(x, media_type=_OCI_TYPES.get(x.media_type, x.media_type)) for x in layers]
            config = Descriptor(
                media_type=OCI_CONFIG if oci else DOCKER_CONFIG,
                digest=sha256(self._config),
                size=len(self._config),
            )
            kind = OCI_MANIFEST if oci else DOCKER_MANIFEST
            self._manifest = Manifest.make(config, layers, media_type=kind)
        return self._manifest

    def document(self, descriptor: Descriptor) -> Document:
        """As `Source.document`: there is one."""
        root = self.root()
        if descriptor.digest != root.digest:
            raise InvalidDocument(self.where, f"it has no {descriptor.digest}")
        return root

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        """As `Source.pour`."""
        name = self._homes.get(blob.digest, blob.digest)
        pour_file(self._files, name, blob, sink, stop=stop, progress=progress)

    def about(self, digest: str) -> Sequence[About]:
        """As `Source.about`: none."""
        return ()

    def close(self) -> None:
        """Closes the archive."""
        self._files.close()

    def _layer(self, name: str, diff_id: str) -> Descriptor:
        size = self._files.size(name)
        if size is None:
            raise InvalidDocument(self.where, f"it has no {name}")
        magic = self._files.read(name, 0, 4)
        kind, digest = DOCKER_LAYER, diff_id
        if magic.startswith(b"\x1f\x8b"):
            kind, digest = DOCKER_LAYER_GZIP, self._digest(name, size)
        elif magic == b"\x28\xb5\x2f\xfd":
            kind, digest = OCI_LAYER_ZSTD, self._digest(name, size)
        self._homes[digest] = name
        return Descriptor(media_type=kind, digest=digest, size=size)

    def _digest(self, name: str, size: int) -> str:
        found = hashlib.sha256()
        at = 0
        while at < size and (piece := self._files.read(name, at, PIECE_BYTES)):
            found.update(piece)
            at += len(piece)
        return f"sha256:{found.hexdigest()}"
