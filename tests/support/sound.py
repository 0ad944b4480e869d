"""Tells what is wrong with a store or a registry's folder by reading its files: owes nothing to the program.

A registry's folder is Debian's docker-registry's, with its file-system driver.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_HEX = re.compile(r"[0-9a-f]{64}")


def store_complaints(state: Path, layers: Mapping[str, Mapping[str, bytes]] | None = None) -> list[str]:
    """What is wrong with a store's blobs, index and layer folders.

    Args:
        layers: The files of each layer by diff ID, for those that may be there.
    """
    found = []
    for path in (state / "oci/blobs/sha256").iterdir():
        if _HEX.fullmatch(path.name) and _sha256(path) != path.name:
            found.append(f"blob {path.name} has other bytes")
    document = json.loads((state / "oci/index.json").read_text())
    for entry in document["manifests"]:
        found += _missing(state / "oci/blobs/sha256", entry["digest"])
    with sqlite3.connect(f"file:{state}/img.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT diff_id, dir FROM layers").fetchall()
        names = {name for (name,) in database.execute("SELECT manifest FROM images")}
    folders = {path.name for path in (state / "layers").iterdir()}
    found += [f"layer {diff_id} has no folder" for diff_id, folder in rows if folder not in folders]
    found += [f"folder {folder} has no row" for folder in folders - {folder for _, folder in rows}]
    found += [f"a name leads to {n}, which is not here" for n in names if not _blob(state, n).exists()]
    found += [f"{path.name} is left in work/" for path in (state / "work").iterdir()]
    for diff_id, folder in rows:
        if layers is not None and _files(state / "layers" / folder) != dict(layers[diff_id]):
            found.append(f"layer {diff_id} has other files")
    return found


def _missing(blobs: Path, digest: str) -> list[str]:
    path = blobs / digest.removeprefix("sha256:")
    if not path.exists():
        return [f"index.json leads to {digest}, which is not here"]
    document = json.loads(path.read_text())
    return [complaint for inner in _named(document) for complaint in _present(blobs, inner)]


def _present(blobs: Path, entry: Mapping[str, Any]) -> list[str]:
    if "manifest" in entry["mediaType"] or "index" in entry["mediaType"]:
        return _missing(blobs, entry["digest"])
    there = (blobs / entry["digest"].removeprefix("sha256:")).exists()
    return [] if there else [f"index.json leads to an image that lacks {entry['digest']}"]


def _named(document: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    config = [document["config"]] if "config" in document else []
    return [*document.get("manifests", []), *document.get("layers", []), *config]


def _blob(state: Path, digest: str) -> Path:
    return state / "oci/blobs/sha256" / digest.removeprefix("sha256:")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class RegistryFolder:
    """The data of a registry, as its files say."""

    def __init__(self, folder: Path) -> None:
        """`folder`: its `rootdirectory`."""
        self._root = folder / "docker/registry/v2"

    def tag(self, name: str, tag: str) -> str:
        """The digest that a tag stands for; empty where there is none."""
        link = self._root / f"repositories/{name}/_manifests/tags/{tag}/current/link"
        return link.read_text() if link.exists() else ""

    def copy(self, name: str, to: str, tag: str) -> str:
        """Makes a repository that has what another one has; gives the digest of a tag of it."""
        shutil.copytree(self._root / f"repositories/{name}", self._root / f"repositories/{to}")
        return self.tag(to, tag)

    def complaints(self, name: str, tag: str) -> list[str]:
        """What is wrong with the image of a tag, and all that it names."""
        digest = self.tag(name, tag)
        return self._wrong(name, digest) if digest else [f"{name} has no tag {tag}"]

    def _wrong(self, name: str, digest: str) -> list[str]:
        raw = self._data(digest)
        if not raw.exists() or _sha256(raw) != digest[7:]:
            return [f"manifest {digest} is not here, or has other bytes"]
        found = []
        for entry in _named(json.loads(raw.read_text())):
            inner = entry["digest"]
            if "manifest" in entry["mediaType"]:
                found += self._wrong(name, inner)
            elif not (self._root / f"repositories/{name}/_layers/sha256/{inner[7:]}/link").exists():
                found.append(f"{name} lacks {inner}")
            elif _sha256(self._data(inner)) != inner[7:]:
                found.append(f"{inner} has other bytes")
        return found

    def spoilt(self, digests: Iterable[str]) -> list[str]:
        """Those of some blobs that are there with other bytes."""
        return [d for d in digests if self._data(d).exists() and _sha256(self._data(d)) != d[7:]]

    def forget(self, name: str, digests: Iterable[str]) -> None:
        """Takes a repository and blobs away, to save room."""
        shutil.rmtree(self._root / f"repositories/{name}", ignore_errors=True)
        for digest in digests:
            shutil.rmtree(self._data(digest).parent, ignore_errors=True)

    def _data(self, digest: str) -> Path:
        return self._root / f"blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
