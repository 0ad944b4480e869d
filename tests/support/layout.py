"""Writes OCI image layouts by hand, so that base images owe nothing to the program under test.

Also a program: `python -m tests.support.layout DIR` writes the busybox base image of the demo.
Source: OCI image-spec v1.1, image-layout.md.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = 1_600_000_000


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of a layer. `kind` is a tar type flag; `data` a file's bytes."""

    path: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    mtime: int = EPOCH


def folder(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Item:
    """A folder."""
    return Item(path=path, kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def symlink(path: str, target: str) -> Item:
    """A symbolic link."""
    return Item(path=path, kind=tarfile.SYMTYPE, mode=0o777, link=target)


def tar_of(items: Iterable[Item]) -> bytes:
    """A plain tar of the items, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.type = item.kind
            info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, item.mtime
            info.linkname = item.link
            info.size = len(item.data)
            archive.addfile(info, io.BytesIO(item.data))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    """`sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_layout(
    folder: Path,
    layers: Iterable[bytes],
    config: Mapping[str, Any],
    *,
    tag: str = "latest",
    architecture: str = "",
) -> str:
    """Writes an image of these plain layer tars, base first, gzipped on the way.

    Args:
        architecture: As Go calls it; by default this machine's.

    Returns:
        The manifest's digest.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(media_type: str, data: bytes) -> dict[str, Any]:
        digest = digest_of(data)
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    tars = list(layers)
    document = {
        "created": "2020-09-13T12:26:40Z",
        "architecture": architecture or ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [{"created": "2020-09-13T12:26:40Z", "created_by": "by hand"} for _ in tars],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(CONFIG, json.dumps(document).encode()),
        "layers": [put(LAYER + "+gzip", gzip.compress(tar, 6, mtime=0)) for tar in tars],
    }
    entry = put(MANIFEST, json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(entry["digest"])


def write_index(folder: Path, manifests: Mapping[str, str], *, tag: str = "latest") -> str:
    """Makes the layout's image an index of images that it holds.

    Args:
        manifests: Digests of their manifests, by architecture.
    Returns:
        The index's digest.
    """
    blobs = folder / "blobs" / "sha256"
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": (blobs / digest.removeprefix("sha256:")).stat().st_size,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, digest in manifests.items()
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    digest = digest_of(data)
    (blobs / digest.removeprefix("sha256:")).write_bytes(data)
    entry = {
        "mediaType": INDEX,
        "digest": digest,
        "size": len(data),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return digest


def busybox_items() -> list[Item]:
    """A root file system of one static busybox, its applets, and the users that tests name."""
    program = shutil.which("busybox")
    if program is None:
        raise FileNotFoundError("busybox is missing: apt-get install busybox-static")
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    passwd = b"root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:worker:/home/worker:/bin/sh\n"
    group = b"root:x:0:\nstaff:x:50:\nworker:x:1000:\n"
    items = [folder(name) for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var")]
    items += [folder("tmp", 0o1777), folder("home/worker", 0o700, 1000, 1000)]
    items.append(Item(path="bin/busybox", data=Path(program).read_bytes(), mode=0o755))
    items += [symlink(f"bin/{applet}", "busybox") for applet in sorted(set(applets) - {"busybox"})]
    items.append(Item(path="etc/passwd", data=passwd))
    items.append(Item(path="etc/group", data=group))
    return items


def write_busybox(folder: Path) -> str:
    """Writes the busybox base image as a layout; gives its manifest's digest."""
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}
    return write_layout(folder, [tar_of(busybox_items())], config)


if __name__ == "__main__":
    sys.stdout.write(write_busybox(Path(sys.argv[1])) + "\n")
