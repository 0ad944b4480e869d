"""Shared caches in folders, read and rewritten without the program under test; and what a store recorded."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.layout import MANIFEST, digest_of

Document = dict[str, Any]


class CacheFolder:
    """A cache that `--cache-to type=local` wrote: one manifest, whose config is the document."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest(self) -> Document:
        """The manifest of the first tag."""
        entry = json.loads((self.folder / "index.json").read_text())["manifests"][0]
        found: Document = json.loads(self.blob(entry["digest"]))
        return found

    @property
    def document(self) -> Document:
        """The cache's document."""
        found: Document = json.loads(self.blob(self.manifest["config"]["digest"]))
        return found

    def record(self, part: str) -> Document:
        """The first record whose title holds a text."""
        return next(record for record in self.document["records"] if part in record["title"])

    def blob(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def put(self, data: bytes) -> str:
        """Adds a blob; gives its digest."""
        self.path(digest_of(data)).write_bytes(data)
        return digest_of(data)

    def copy(self, folder: Path) -> CacheFolder:
        """The same cache elsewhere."""
        shutil.copytree(self.folder, folder)
        return CacheFolder(folder)

    def rewrite(self, change: Callable[[Document], None]) -> None:
        """Changes the document; all digests over it are right again afterwards."""
        document = self.document
        change(document)
        self.replace(json.dumps(document).encode())

    def replace(self, raw: bytes) -> None:
        """Puts other bytes in the place of the document."""
        manifest = self.manifest
        manifest["config"] |= {"digest": self.put(raw), "size": len(raw)}
        data = json.dumps(manifest).encode()
        index = json.loads((self.folder / "index.json").read_text())
        index["manifests"][0] |= {"digest": self.put(data), "size": len(data), "mediaType": MANIFEST}
        (self.folder / "index.json").write_text(json.dumps(index))

    def blobs(self) -> dict[str, bytes]:
        """Every blob by its digest."""
        paths = (self.folder / "blobs" / "sha256").iterdir()
        return {f"sha256:{path.name}": path.read_bytes() for path in paths}


def records(state: Path) -> set[tuple[str, str, str]]:
    """What a store has recorded: key, diff ID and content of each step."""
    with sqlite3.connect(f"file:{state / 'img.db'}?mode=ro", uri=True) as database:
        return set(database.execute("SELECT key, diff_id, content FROM records"))


def layers(state: Path) -> set[str]:
    """Diff IDs of the layers that a store has."""
    with sqlite3.connect(f"file:{state / 'img.db'}?mode=ro", uri=True) as database:
        return {diff_id for (diff_id,) in database.execute("SELECT diff_id FROM layers")}
