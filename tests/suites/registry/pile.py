"""`Pile`: an OCI image layout made by hand, with whatever an index may name in it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.support.layout import CONFIG, INDEX, LAYER, MANIFEST, Item, digest_of, tar_of

REF = "org.opencontainers.image.ref.name"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

Pointer = dict[str, Any]


class Pile:
    """One layout; its methods give descriptors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: list[Pointer] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(self, media_type: str, data: bytes) -> Pointer:
        digest = digest_of(data)
        (self.folder / "blobs" / "sha256" / digest[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(self, media_type: str, **fields: Any) -> Pointer:
        data = {"schemaVersion": 2, "mediaType": media_type, **fields}
        return self.put(media_type, json.dumps(data).encode())

    def image(self, seed: str, *sizes: int, foreign: Pointer | None = None, **fields: Any) -> Pointer:
        """An image with a plain layer of random bytes for each size."""
        chance = random.Random(seed)
        tars = [tar_of([Item(path=f"f{n}", data=chance.randbytes(size))]) for n, size in enumerate(sizes)]
        diff_ids = [digest_of(tar) for tar in tars] + (["sha256:" + "0" * 64] if foreign else [])
        config = {
            "architecture": seed,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        layers = [self.put(LAYER, tar) for tar in tars] + ([foreign] if foreign else [])
        pointer = self.put(CONFIG, json.dumps(config).encode())
        return self.document(MANIFEST, config=pointer, layers=layers, **fields)

    def artifact(self, content: bytes, **fields: Any) -> Pointer:
        """Something that is no image."""
        config = self.put("application/vnd.oci.empty.v1+json", b"{}")
        layer = self.put("application/x-policy", content)
        return self.document(
            MANIFEST, artifactType="application/x-policy", config=config, layers=[layer], **fields
        )

    def index(self, entries: list[Pointer], **fields: Any) -> Pointer:
        return self.document(INDEX, manifests=entries, **fields)

    def name(self, pointer: Pointer, ref: str) -> str:
        """Lists something in the layout; gives its digest."""
        self._entries.append({**pointer, **({"annotations": {REF: ref}} if ref else {})})
        index = {"schemaVersion": 2, "manifests": self._entries}
        (self.folder / "index.json").write_text(json.dumps(index))
        return str(pointer["digest"])


def on(architecture: str) -> Pointer:
    """The platform of an index's entry."""
    return {"platform": {"os": "linux", "architecture": architecture}}


def everything(pile: Pile) -> str:
    """Names an index of all kinds of things `all`: two platforms, an attestation, an index within."""
    amd64, arm64 = pile.image("amd64", 700_000, 10), pile.image("arm64", 600_000)
    about = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": amd64["digest"],
    }
    attestation = {
        **pile.artifact(b"it was built well"),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": about,
    }
    inner = pile.index([{**pile.image("riscv64", 5), **on("riscv64")}], annotations={"note": "kept"})
    entries = [{**amd64, **on("amd64"), "x-unknown": 1}, {**arm64, **on("arm64")}, attestation, inner]
    return pile.name(pile.index(entries, **{"x-unknown": True}), "all")


def blobs_of(folder: Path) -> dict[str, bytes]:
    """Every blob of a layout."""
    return {path.name: path.read_bytes() for path in (folder / "blobs" / "sha256").iterdir()}
