"""Images made by hand, and the sink that takes their blobs in these tests."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from typing import BinaryIO

from img.errors import DigestMismatch, SizeMismatch
from img.oci import Descriptor, ImageConfig, Manifest, Platform, sha256
from img.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
)

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


class Bits:
    """An image with its blobs in memory."""

    def __init__(self, manifest: Manifest, blobs: dict[str, bytes]) -> None:
        self.manifest = manifest
        self.blobs = blobs

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self.manifest.layers

    def open(self, descriptor: Descriptor) -> BinaryIO:
        return io.BytesIO(self.blobs[descriptor.digest])


def make_image(
    *sizes: int, seed: int = 0, platform: Platform = AMD64, docker: bool = False, repeat: bool = False
) -> Bits:
    """An image with one layer of random bytes for each size; `repeat` names the last one twice."""
    layer_type = DOCKER_LAYER_GZIP if docker else OCI_LAYER
    chance = random.Random(f"{seed}{platform}")
    contents = [chance.randbytes(size) for size in sizes or (1000,)]
    contents += contents[-1:] if repeat else []
    layers = [Descriptor(media_type=layer_type, digest=sha256(c), size=len(c)) for c in contents]
    config = ImageConfig(platform=platform, diff_ids=tuple(layer.digest for layer in layers))
    pointer = config.descriptor(DOCKER_CONFIG if docker else OCI_CONFIG)
    manifest = Manifest.make(pointer, layers, media_type=DOCKER_MANIFEST if docker else OCI_MANIFEST)
    return Bits(manifest, {**{sha256(c): c for c in contents}, pointer.digest: config.to_bytes()})


class FileSink:
    """A sink over a file, which exists under its digest only once it was verified."""

    def __init__(self, folder: Path, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.target = folder / descriptor.hex
        self.partial = self.target.with_suffix(".partial")
        self._file = self.partial.open("wb")
        self._hash = hashlib.sha256()
        self.offset = 0
        self.ended = ""

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> Path:
        self._file.close()
        if self.offset != self.descriptor.size:
            raise SizeMismatch(self.descriptor.size, self.offset)
        actual = "sha256:" + self._hash.hexdigest()
        if actual != self.descriptor.digest:
            raise DigestMismatch("blob", self.descriptor.digest, actual)
        self.partial.rename(self.target)
        self.ended = "finished"
        return self.target

    def abort(self) -> None:
        self._file.close()
        self.partial.unlink(missing_ok=True)
        self.ended = self.ended or "aborted"


class Folder:
    """A folder of sinks, for `fetch`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sinks: list[FileSink] = []

    def open(self, descriptor: Descriptor) -> FileSink:
        self.sinks.append(FileSink(self.path, descriptor))
        return self.sinks[-1]

    def holds(self, bits: Bits) -> bool:
        """Tells whether exactly the image's layers are here, whole."""
        wanted = {layer.hex: bits.blobs[layer.digest] for layer in bits.layers}
        return {file.name: file.read_bytes() for file in self.path.iterdir()} == wanted

    @property
    def empty(self) -> bool:
        return not any(self.path.iterdir())
