"""Image archives: one tar that is an OCI image layout and, where asked, docker's archive as well.

Docker's form is a `manifest.json` over the same blobs, as its own newer versions write it, so one
writer and one reader serve both. Reading accepts either form, and docker's old one with a folder a layer.
Source: OCI image-spec v1.1, image-layout.md; Docker image specification v1.2, "Combined Image JSON".
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from img import _core
from img.errors import DigestMismatch, InvalidDocument, LayerError, SizeMismatch
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Reference, parse
from img.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    INDEXES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from img.oci.hashing import digest_of
from img.oci.manifest import dump
from img.progress import Meter, Progress, Transferred, Transferring, silent
from img.store import Store, index_of, main_of
from img.values import dataclass, replace

Form = Literal["docker-archive", "oci-archive"]

_OCI_TYPES = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP}
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An image and the names that it has in an archive.

    Attributes:
        platforms: Where the names stand for several platforms: all their images, in the index's order.
        documents: Where they are written as they came: every manifest and index, the names' own last. What
            is no image is among them.
    """

    image: Image
    names: tuple[Reference, ...]
    platforms: tuple[Image, ...] = ()
    documents: tuple[Manifest | Index, ...] = ()

    @property
    def images(self) -> tuple[Image, ...]:
        """All of them."""
        return self.platforms or (self.image,)

    @property
    def index(self) -> Index | None:
        """What names the images together; None where there is one."""
        if self.documents and isinstance(self.documents[-1], Index):
            return self.documents[-1]
        return index_of(self.platforms) if self.platforms else None


# ---- writing -------------------------------------------------------------------------------------


def write_archive(
    store: Store, images: Sequence[Named], out: BinaryIO, form: Form, progress: Progress = silent
) -> None:
    """Writes images, whose blobs are all in the store, as one tar. The same images give the same bytes."""
    written: set[str] = set()
    blobs = {blob.digest: blob for named in images for blob in _layers_of(named)}
    name = ", ".join(dict.fromkeys(one.familiar for named in images for one in named.names))
    size, started = sum(blob.size for blob in blobs.values()), time.monotonic()
    progress(Transferring(action="save", name=name, blobs=len(blobs), total_bytes=size))

    def told(blob: Descriptor) -> Meter:
        return Meter(progress, "save", blob.digest, blob.size, name)

    # Headers with no times and no names of users: nothing of this machine gets in.
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        archive.copybufsize = 1 << 20  # type: ignore[attr-defined]  # 16 KiB by default
        _folders(archive, "blobs", "blobs/sha256")
        for named in images:
            for image in named.images:
                _document(archive, written, image.manifest.raw, image.digest)
                _document(archive, written, image.config_raw, image.id)
                for layer in image.layers:
                    _layer(archive, written, store, layer.descriptor, told)
            for document in named.documents:
                _document(archive, written, document.raw, document.digest)
                for blob in (document.config, *document.layers) if isinstance(document, Manifest) else ():
                    _layer(archive, written, store, blob, told)
            if named.index is not None:
                _document(archive, written, named.index.raw, named.index.digest)
        entries = [entry for named in images for entry in _index_entries(named)]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        _file(archive, "index.json", dump(index))
        if form == "docker-archive":
            _file(archive, "manifest.json", dump([_docker_entry(named) for named in images]))
        _file(archive, "oci-layout", _LAYOUT)
    seconds = time.monotonic() - started
    done = Transferred(action="save", name=name, moved=len(blobs), moved_bytes=size, seconds=seconds)
    progress(done)


def _layers_of(named: Named) -> Iterator[Descriptor]:
    """All blobs of images and of what is written beside them, but for the images' configs."""
    for image in named.images:
        yield from (layer.descriptor for layer in image.layers)
    for document in named.documents:
        if isinstance(document, Manifest):
            yield from (document.config, *document.layers)


def _folders(archive: tarfile.TarFile, *names: str) -> None:
    for name in names:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)


def _file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    archive.addfile(info, io.BytesIO(data))


def _document(archive: tarfile.TarFile, written: set[str], data: bytes, digest: str) -> None:
    if digest not in written:
        written.add(digest)
        _file(archive, _blob_name(digest), data)


def _layer(
    archive: tarfile.TarFile,
    written: set[str],
    store: Store,
    layer: Descriptor,
    told: Callable[[Descriptor], Meter],
) -> None:
    if layer.digest in written:
        return
    written.add(layer.digest)
    info = tarfile.TarInfo(_blob_name(layer.digest))
    info.size, info.mode = layer.size, 0o644
    with store.blobs.open(layer.digest) as blob:
        meter = told(layer)
        archive.addfile(info, _Told(blob, meter))
        meter.finished("written")


class _Told:
    """A file that says how much of it was read."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter
        self._read = 0

    def read(self, count: int = -1, /) -> bytes:
        piece = self._file.read(count)
        self._read += len(piece)
        self._meter.at(self._read)
        return piece


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"


def _index_entries(named: Named) -> list[dict[str, object]]:
    document = named.index or named.image.manifest
    descriptor = document.descriptor.to_json()
    if not named.names:
        return [descriptor]
    return [
        {
            **descriptor,
            "annotations": {
                "io.containerd.image.name": str(name),
                "org.opencontainers.image.ref.name": name.tag or str(name),
            },
        }
        for name in named.names
    ]


def _docker_entry(named: Named) -> dict[str, object]:
    return {
        "Config": _blob_name(named.image.id),
        # Docker takes tags alone here: a name by digest would make it refuse the archive.
        "RepoTags": [replace(name, digest="").familiar for name in named.names if name.tag],
        "Layers": [_blob_name(layer.digest) for layer in named.image.layers],
    }


# ---- reading -------------------------------------------------------------------------------------


def read_archive(store: Store, archive: Path, work: Path, progress: Progress = silent) -> list[Named]:
    """Takes the images of an archive into the store's blobs; names nothing.

    Args:
        work: Empty folder on the store's file system.
        progress: Is told how much of the archive was read (`load`), and digested of each layer (`check`).
    Raises:
        InvalidDocument: the file is no image archive.
        DigestMismatch, SizeMismatch: a blob of it is not what its descriptor says.
    """
    size = archive.stat().st_size
    meter = Meter(progress, "load", archive.name, size, archive.name)
    try:
        unpacked = _core.unpack_archive(str(archive), str(work), told=meter.at)
    except LayerError as error:
        raise error.of_archive(archive.name) from error
    if unpacked is None:
        raise InvalidDocument(archive.name, "it is no tar archive, compressed or not")
    meter.finished("read")
    layout = (work / "index.json").is_file()
    # What docker's own list names is one image of a platform; an index that stands beside it has them all.
    if (work / "manifest.json").is_file() and not (layout and _has_index(work)):
        return _read_docker(store, work, archive.name, progress)
    if layout:
        return _read_layout(store, work, progress)
    raise InvalidDocument(archive.name, "it has neither index.json nor manifest.json")


def _entries(root: Path) -> tuple[Descriptor, ...]:
    """What the archive's layout lists."""
    index = parse(_inside(root, "index.json").read_bytes(), OCI_INDEX, where="index.json")
    if not isinstance(index, Index):
        raise InvalidDocument("index.json", "it is not an index")
    return index.manifests


def _has_index(root: Path) -> bool:
    return any(entry.media_type in INDEXES for entry in _entries(root))


def _read_layout(store: Store, root: Path, progress: Progress) -> list[Named]:
    found: dict[str, Named] = {}
    for descriptor in _entries(root):
        images = _layout_images(store, root, descriptor, progress)
        if not images:
            continue
        names = found[descriptor.digest].names if descriptor.digest in found else ()
        found[descriptor.digest] = Named(
            image=main_of(images),
            names=(*names, *_reference(descriptor)),
            platforms=tuple(images) if len(images) > 1 else (),
        )
    return list(found.values())


def _layout_images(store: Store, root: Path, descriptor: Descriptor, progress: Progress) -> list[Image]:
    """The images of one entry: of an index, those that are there, one for each platform."""
    document = parse(_take(store, root, descriptor), descriptor.media_type, where=descriptor.digest)
    if isinstance(document, Index):
        images: dict[str, Image] = {}
        for platform in document.platforms:
            chosen = document.choose(platform)
            if chosen is not None and (root / _blob_name(chosen.digest)).is_file():
                images.update((str(i.platform), i) for i in _layout_images(store, root, chosen, progress))
        return list(images.values())
    raw = _take(store, root, document.config)
    for layer in document.layers:
        _take_file(store, _inside(root, _blob_name(layer.digest)), layer, progress)
    return [_image(document, raw)]


def _reference(descriptor: Descriptor) -> tuple[Reference, ...]:
    """The full name that an index gives an image, if it gives one."""
    for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
        text = descriptor.annotations.get(key, "")
        if "/" in text or (":" in text and not text.startswith("sha256")):
            return (Reference.parse(text),)
    return ()


def _read_docker(store: Store, root: Path, name: str, progress: Progress) -> list[Named]:
    try:
        entries = json.loads(_inside(root, "manifest.json").read_bytes())
        listed = [
            (str(e["Config"]), [str(layer) for layer in e["Layers"]], e.get("RepoTags") or [])
            for e in entries
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDocument(name, f"its manifest.json is not docker's: {error}") from error
    found = []
    for config_name, layer_names, tags in listed:
        raw = _inside(root, config_name).read_bytes()
        layers = tuple(_docker_layer(store, _inside(root, layer), progress) for layer in layer_names)
        oci = any(layer.media_type == OCI_LAYER_ZSTD for layer in layers)
        config_type, manifest_type = (OCI_CONFIG, OCI_MANIFEST) if oci else (DOCKER_CONFIG, DOCKER_MANIFEST)
        config = Descriptor(media_type=config_type, digest=store.blobs.put(raw), size=len(raw))
        if oci:
            layers = tuple(replace(x, media_type=_OCI_TYPES.get(x.media_type, x.media_type)) for x in layers)
        manifest = Manifest.make(config, layers, media_type=manifest_type)
        store.blobs.put(manifest.raw)
        names = tuple(Reference.parse(str(tag)) for tag in tags)
        found.append(Named(image=_image(manifest, raw), names=names))
    return found


def _docker_layer(store: Store, path: Path, progress: Progress) -> Descriptor:
    """Takes a layer whose digest nothing states: its bytes say it."""
    with path.open("rb") as stream:
        magic = stream.read(4)
    media_type = DOCKER_LAYER_GZIP if magic.startswith(b"\x1f\x8b") else DOCKER_LAYER
    if magic == b"\x28\xb5\x2f\xfd":  # zstd, for which docker's schema 2 has no type
        media_type = OCI_LAYER_ZSTD
    digest = _digest_of(path, path.parent.name if path.name == "layer.tar" else path.stem, progress)
    _publish(store, path, digest)
    return Descriptor(media_type=media_type, digest=digest, size=path.stat().st_size)


def _image(manifest: Manifest, config_raw: bytes) -> Image:
    config = ImageConfig.from_bytes(config_raw)
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidDocument(
            "manifest", f"{len(manifest.layers)} layers, but {len(config.diff_ids)} diff IDs in the config"
        )
    return Image(manifest=manifest, config=config, config_raw=config_raw)


def _inside(root: Path, name: str) -> Path:
    """A file of the unpacked archive; a name or a link that leads out of it is refused."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise InvalidDocument(name, "the archive has no such file")
    return path


def _take(store: Store, root: Path, descriptor: Descriptor) -> bytes:
    """Takes a document in, and gives its bytes."""
    path = _inside(root, _blob_name(descriptor.digest))
    _check_size(path, descriptor)
    raw = path.read_bytes()
    digest = store.blobs.put(raw)
    if digest != descriptor.digest:
        raise DigestMismatch("blob", descriptor.digest, digest)
    return raw


def _take_file(store: Store, path: Path, layer: Descriptor, progress: Progress) -> None:
    """Takes a layer in, once its bytes are known to be right."""
    _check_size(path, layer)
    digest = _digest_of(path, layer.digest, progress)
    if digest != layer.digest:
        raise DigestMismatch("blob", layer.digest, digest)
    _publish(store, path, digest)


def _digest_of(path: Path, name: str, progress: Progress) -> str:
    """The digest of a layer's file; `name` is what it is called meanwhile."""
    meter = Meter(progress, "check", name, path.stat().st_size)
    digest = digest_of(path, meter.at)
    meter.finished("read")
    return digest


def _check_size(path: Path, descriptor: Descriptor) -> None:
    size = path.stat().st_size
    if size != descriptor.size:
        raise SizeMismatch(descriptor.size, size)


def _publish(store: Store, path: Path, digest: str) -> None:
    if not store.blobs.has(digest):
        path.chmod(0o644)
        os.utime(path)  # it was written now, whatever the archive says
        try:
            os.link(path, store.blobs.path(digest))  # an archive may name one file twice
        except FileExistsError:
            pass
