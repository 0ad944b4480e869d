"""A cache mount's copy as it lies on disk: what tells it from others (`CacheShape`), and what is noted of it.

`cache_mounts` makes, locks and removes copies; this is what stands beside `data/` in one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from img.oci.hashing import sha256
from img.values import dataclass

Chunks = Mapping[str, tuple[str, int]]
"""Digest and size of a chunk's blob, by the BLAKE3 of the tar's bytes in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """All that the beginning of a cache depends on: where one of these differs, it is another cache.

    Attributes:
        id: What people call it.
        uid: Owner of the folder, as the container sees it; `gid` likewise.
        mode: Permission bits of the folder; None for the usual ones, or the seed's.
        seed: Content digest of what it begins as, or empty.
        source: Path in there.
    """

    id: str
    uid: int = 0
    gid: int = 0
    mode: int | None = None
    seed: str = ""
    source: str = "/"

    @property
    def key(self) -> str:
        """Names the cache: the same on every machine."""
        facts = [self.id, self.uid, self.gid, self.mode, self.seed, self.source]
        return sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def __str__(self) -> str:
        """What tells it from others of its id, as the mount's options; empty where nothing does."""
        owner = [f"{name}={number}" for name, number in (("uid", self.uid), ("gid", self.gid)) if number]
        mode = [] if self.mode is None else [f"mode={self.mode:o}"]
        return ",".join([*owner, *mode, *([f"source={self.source}"] if self.seed else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRow:
    """One copy of a cache, for people.

    Attributes:
        shape: What tells it from others of its id (`str(CacheShape)`).
        used: In seconds since 1970.
        busy: Somebody holds it.
    """

    id: str
    path: Path
    used: float
    busy: bool
    shape: str = ""

    @property
    def name(self) -> str:
        """The copy: its cache's key, and a number."""
        return self.path.name

    @property
    def key(self) -> str:
        """Names the cache."""
        return self.path.name.partition(".")[0]


def about_of(path: Path) -> dict[str, str]:
    """What is noted of a copy; nothing where that cannot be read."""
    try:
        data = json.loads((path / "about.json").read_text(encoding="utf-8"))
        return {name: value for name, value in data.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):
        return {}


def read_chunks(copy: Path) -> Chunks:
    """What is known of a copy's chunks; nothing where that cannot be read."""
    try:
        data = json.loads((copy / "chunks.json").read_text(encoding="utf-8"))
        return {str(content): (str(digest), int(size)) for content, (digest, size) in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_chunks(copy: Path, chunks: Chunks) -> None:
    """Notes what is known of a copy's chunks: it only saves work, so two writers may overtake one another."""
    new = copy / f"chunks-{os.urandom(4).hex()}"
    new.write_text(json.dumps(chunks), encoding="utf-8")
    new.rename(copy / "chunks.json")
