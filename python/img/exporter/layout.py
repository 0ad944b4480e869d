"""`image_of`: an image of an OCI image layout on disk, brought into the store.

For `--build-context name=oci-layout://…`. Layers go through the same verifying sink as a pull's; what is
in the store already is not read again.
Source: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

from pathlib import Path

from img import regex
from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, parse
from img.oci.descriptor import MAX_DOCUMENT_BYTES, OCI_INDEX
from img.store import Store
from img.values import dataclass

_PIECE_BYTES = 1 << 20
_DIGEST = regex.compile(r"sha256:[0-9a-f]{64}")
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutName:
    """Which image of which layout: `path[:tag][@digest]`. Without either, the one called `latest`."""

    folder: Path
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str, *, cwd: Path) -> LayoutName:
        """Reads a name.

        Raises:
            UsageError: the folder is no image layout, or the digest is none.
        """
        path, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise UsageError(f"{digest!r} is no digest", hint="write sha256: and 64 hexadecimal digits")
        head, colon, tag = path.rpartition(":")
        if not colon or "/" in tag:
            head, tag = path, ""
        folder = cwd / head
        if not head or not folder.is_dir():
            raise UsageError(f"there is no folder {head or path}")
        if not (folder / "index.json").is_file():
            raise UsageError(f"{head} is no OCI image layout: it has no index.json")
        return cls(folder=folder.resolve(), tag=tag, digest=digest)

    def __str__(self) -> str:
        return f"{self.folder}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"


def image_of(store: Store, name: LayoutName, platform: Platform) -> Image:
    """Brings an image for a platform into the store's blobs; names nothing.

    Raises:
        InvalidDocument: the layout has no such image, or a document of it is none.
        DigestMismatch, SizeMismatch: a blob is not what its descriptor says.
    """
    raw = _read(name.folder / "index.json")
    index = parse(raw, OCI_INDEX, where="index.json")
    if not isinstance(index, Index):
        raise InvalidDocument("index.json", "it is not an index")
    manifest = _manifest(store, name, _entry(index, name), platform)
    config = _document(store, name, manifest.config)
    for layer in manifest.layers:
        _bring(store, name, layer)
    image = Image(manifest=manifest, config=ImageConfig.from_bytes(config), config_raw=config)
    if len(image.config.diff_ids) != len(manifest.layers):
        raise InvalidDocument(str(name), "its config does not name as many layers as its manifest")
    for known in image.layers:
        store.layers.remember_blob(known.diff_id, known.descriptor, source="")
    return image


def _entry(index: Index, name: LayoutName) -> Descriptor:
    """The entry that a name means."""
    if name.digest:
        found = [entry for entry in index.manifests if entry.digest == name.digest]
        # A digest may be of a manifest that an index of the layout lists; its blob then says what it is.
        blob = name.folder / _blob(name.digest)
        if not found and blob.is_file():
            found = [Descriptor(media_type="", digest=name.digest, size=blob.stat().st_size)]
    else:
        tag = name.tag or "latest"
        found = [entry for entry in index.manifests if tag in _tags(entry)]
        if not found and not name.tag and len(index.manifests) == 1:
            found = list(index.manifests)
    if not found:
        tags = sorted({tag for entry in index.manifests for tag in _tags(entry)})
        there = f"; there are {', '.join(tags)}" if tags else ""
        raise InvalidDocument(str(name), f"the layout has no such image{there}")
    return found[0]


def _tags(entry: Descriptor) -> set[str]:
    words = {entry.annotations.get(key, "") for key in _NAMES} - {""}
    return words | {word.rpartition(":")[2] for word in words if "/" not in word.rpartition(":")[2]}


def _manifest(store: Store, name: LayoutName, entry: Descriptor, platform: Platform) -> Manifest:
    document = parse(_document(store, name, entry), entry.media_type, where=entry.digest)
    if isinstance(document, Manifest):
        return document
    chosen = document.choose(platform)
    if chosen is None:
        there = ", ".join(str(p) for p in document.platforms) or "none"
        raise InvalidDocument(str(name), f"it has no image for {platform}; there are {there}")
    return _manifest(store, name, chosen, platform)


def _document(store: Store, name: LayoutName, descriptor: Descriptor) -> bytes:
    """Takes a document in, verified, and gives its bytes."""
    _bring(store, name, descriptor, limit=MAX_DOCUMENT_BYTES)
    return store.blobs.read(descriptor.digest)


def _bring(store: Store, name: LayoutName, descriptor: Descriptor, *, limit: int = 0) -> None:
    """Takes a blob in, unless it is here."""
    if not _DIGEST.fullmatch(descriptor.digest):
        raise InvalidDocument(str(name), f"{descriptor.digest!r} is no digest that is known here")
    if store.blobs.has(descriptor.digest):
        return
    path = name.folder / _blob(descriptor.digest)
    if not path.is_file():
        raise InvalidDocument(str(name), f"the blob {descriptor.digest} is missing")
    if limit and path.stat().st_size > limit:
        raise InvalidDocument(str(name), f"{descriptor.digest} is longer than {limit} bytes")
    sink = store.blobs.sink(descriptor)
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                sink.write(piece)
        sink.finish()
    finally:
        sink.abort()


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(path.name, f"longer than {MAX_DOCUMENT_BYTES} bytes")
    return raw
