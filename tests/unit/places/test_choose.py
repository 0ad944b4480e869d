"""Which part of an index is copied."""

from __future__ import annotations

from dataclasses import replace

from img.oci import Descriptor, Index, Manifest, Platform, sha256
from img.oci.descriptor import OCI_MANIFEST
from img.oci.manifest import ZSTD
from img.places.choose import choose
from img.places.place import Document

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def made(number: int, platform: Platform, *, zstd: bool = False) -> tuple[Descriptor, Manifest]:
    blob = Descriptor(media_type="a/b", digest=sha256(bytes([number])), size=1)
    manifest = Manifest.make(blob, [blob], media_type=OCI_MANIFEST)
    return replace(
        manifest.descriptor, platform=platform, annotations={ZSTD: "true"} if zstd else {}
    ), manifest


def test_variants_of_an_image_go_with_it_and_alone_it_is_the_one_for_everybody() -> None:
    pairs = [made(1, AMD64), made(2, ARM64), made(3, AMD64, zstd=True), made(4, ARM64, zstd=True)]
    index = Index.make([entry for entry, _ in pairs])
    documents = {entry.digest: manifest for entry, manifest in pairs}

    def read(entry: Descriptor) -> Document:
        return documents[entry.digest]

    assert choose(index, (AMD64,), read, "here") == pairs[0][1]
    assert choose(index, (), read, "here") == choose(index, (AMD64, ARM64), read, "here") == index
    other = made(5, Platform("linux", "s390x"))
    part = choose(index.with_manifest(other[0]), (AMD64, ARM64), read, "here")
    assert isinstance(part, Index) and part.manifests == index.manifests
