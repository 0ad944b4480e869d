"""Reads results as plain values: what files an image holds, whoever made it.

`read_image` understands an OCI image layout (folder or tar); `read_root` a folder on disk. Both
give `Tree`, so that two builders' results can be compared, and one with a written expectation.
Owes nothing to the program under test.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

KINDS = {
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name of a tree; two are equal where a container could not tell them apart (times aside).

    Attributes:
        kind: `file`, `dir`, `link`, `char`, `block` or `fifo`.
        content: sha256 of a file's bytes, a link's target, or a device's `major:minor`.
        data: A small file's bytes; not compared.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    content: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()
    mtime: float = field(default=0.0, compare=False)
    data: bytes = field(default=b"", compare=False, repr=False)
    linked_to: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """A small file's text."""
        return self.data.decode()

    @property
    def owner(self) -> str:
        """`uid:gid`."""
        return f"{self.uid}:{self.gid}"

    @property
    def bits(self) -> str:
        """The mode, in octal."""
        return f"{self.mode:o}"


Tree = dict[str, Entry]


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """An image as read from a layout.

    Attributes:
        document: The whole OCI image configuration.
        layers: One tree per layer, base first, whiteouts as the names they have in the tar.
        tree: The files that a container would see.
    """

    digest: str
    manifest: dict[str, Any]
    document: dict[str, Any]
    layers: list[Tree]
    tree: Tree

    @property
    def config(self) -> dict[str, Any]:
        """The `config` member of the configuration: environment, command, user…"""
        return dict(self.document.get("config") or {})

    def text(self, path: str) -> str:
        """The text of a file."""
        return self.tree[path].text


def read_image(layout: Path, *, tag: str = "") -> ReadImage:
    """Reads an image out of an OCI layout: a folder, or a tar of one.

    Args:
        tag: Which image, by `org.opencontainers.image.ref.name`; the first one if empty. Of several
            platforms, this machine's; where there is none, the first.
    """
    if layout.is_dir():
        return _read(lambda name: (layout / name).read_bytes(), tag)
    with tarfile.open(layout) as archive:

        def member(name: str) -> bytes:
            found = archive.extractfile(name)
            assert found is not None
            return found.read()

        return _read(member, tag)


def _read(blob: Callable[[str], bytes], tag: str) -> ReadImage:
    def by_digest(digest: str) -> bytes:
        data = blob("blobs/" + digest.replace(":", "/"))
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest(), f"{digest} has other bytes"
        return data

    entries = json.loads(blob("index.json"))["manifests"]
    entry = next(
        e
        for e in entries
        if not tag or e.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    )
    manifest = json.loads(by_digest(entry["digest"]))
    if "manifests" in manifest:
        here = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
        listed = manifest["manifests"]
        entry = next((e for e in listed if e.get("platform", {}).get("architecture") == here), listed[0])
        manifest = json.loads(by_digest(entry["digest"]))
    document = json.loads(by_digest(manifest["config"]["digest"]))
    tars = [inflate(by_digest(layer["digest"])) for layer in manifest["layers"]]
    assert [hash_of(tar) for tar in tars] == document["rootfs"]["diff_ids"], "a diff ID is wrong"
    layers = [read_tar(io.BytesIO(tar)) for tar in tars]
    return ReadImage(
        digest=entry["digest"], manifest=manifest, document=document, layers=layers, tree=flatten(layers)
    )


def hash_of(data: bytes) -> str:
    """`sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def inflate(data: bytes) -> bytes:
    """Undoes gzip or zstd, told by the magic bytes, with the programs of that name."""
    if data[:2] == b"\x1f\x8b":
        return subprocess.run(["gzip", "-dc"], input=data, check=True, capture_output=True).stdout
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dc"], input=data, check=True, capture_output=True).stdout
    return data


def read_tar(stream: IO[bytes]) -> Tree:
    """The entries of one tar, by their paths without `./` and the trailing slash."""
    tree: Tree = {}
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            path = os.path.normpath(info.name).lstrip("/")
            if path == ".":
                continue
            if info.islnk():
                target = os.path.normpath(info.linkname).lstrip("/")
                known = tree.get(target)
                tree[path] = _linked(known, target) if known else _entry_of(info, b"", linked_to=target)
                continue
            found = archive.extractfile(info) if info.isreg() else None
            tree[path] = _entry_of(info, found.read() if found else b"")
    return tree


def _linked(entry: Entry, target: str) -> Entry:
    values = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    return Entry(**{**values, "linked_to": target})


def _entry_of(info: tarfile.TarInfo, data: bytes, *, linked_to: str = "") -> Entry:
    kind = KINDS.get(info.type, "file")
    content = ""
    if kind == "file":
        content = hash_of(data)
    elif kind == "link":
        content = info.linkname
    elif kind in ("char", "block"):
        content = f"{info.devmajor}:{info.devminor}"
    xattrs = sorted(
        (key.removeprefix("SCHILY.xattr."), value)
        for key, value in info.pax_headers.items()
        if key.startswith("SCHILY.xattr.")
    )
    return Entry(
        kind=kind,
        mode=info.mode & 0o7777 if kind != "link" else 0o777,
        uid=info.uid,
        gid=info.gid,
        content=content,
        xattrs=tuple(xattrs),
        mtime=float(info.mtime),
        data=data if len(data) < 1 << 20 else b"",
        linked_to=linked_to,
    )


def flatten(layers: list[Tree]) -> Tree:
    """What a container sees of these layers. Source: OCI image-spec v1.1, layer.md, "Whiteouts"."""
    tree: Tree = {}
    for layer in layers:
        for path in layer:
            parent, name = os.path.split(path)
            if name == ".wh..wh..opq":
                _remove_below(tree, parent)
            elif name.startswith(".wh."):
                gone = os.path.join(parent, name.removeprefix(".wh."))
                tree.pop(gone, None)
                _remove_below(tree, gone)
        for path, entry in layer.items():
            if os.path.basename(path).startswith(".wh."):
                continue
            if entry.kind != "dir" and path in tree:
                _remove_below(tree, path)
            target = tree.get(entry.linked_to) if entry.linked_to and entry.linked_to not in layer else None
            tree[path] = _linked(target, entry.linked_to) if target else entry
    return tree


def _remove_below(tree: Tree, folder: str) -> None:
    prefix = folder + "/" if folder else ""
    for path in [p for p in tree if p.startswith(prefix)]:
        del tree[path]


def read_root(root: Path) -> Tree:
    """The tree under a folder on disk, as this process sees it."""
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            tree[str(path.relative_to(root))] = _entry_on_disk(path)
    return tree


def _entry_on_disk(path: Path) -> Entry:
    status = path.lstat()
    kind, content, data = "file", "", b""
    if stat.S_ISDIR(status.st_mode):
        kind = "dir"
    elif stat.S_ISLNK(status.st_mode):
        kind, content = "link", os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        data = path.read_bytes()
        content = hash_of(data)
    elif stat.S_ISFIFO(status.st_mode):
        kind = "fifo"
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        kind = "char" if stat.S_ISCHR(status.st_mode) else "block"
        content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode) if kind != "link" else 0o777,
        uid=status.st_uid,
        gid=status.st_gid,
        content=content,
        mtime=status.st_mtime,
        data=data if len(data) < 1 << 20 else b"",
    )


def difference(left: Tree, right: Tree, *, ignore: tuple[str, ...] = ()) -> list[str]:
    """Lines that say where two trees differ; empty where they are the same."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        if any(path == name or path.startswith(name + "/") for name in ignore):
            continue
        one, two = left.get(path), right.get(path)
        if one is None or two is None:
            lines.append(f"{path}: only in the {'second' if one is None else 'first'}")
        elif one != two:
            lines.append(f"{path}: {one} != {two}")
    return lines
