"""`kept_file`: a file of the web as an earlier build left it in the store, whatever its server has now.

`Web` keeps its files here; a build without a network takes them from here, and loads nothing that could
open a connection.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from img.errors import FetchError
from img.remote.giturl import shown
from img.store import RemoteArea
from img.values import dataclass

ONLINE = "a build without --offline fetches it, and keeps it"
"""The hint for what was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFile:
    """A file that was fetched.

    Attributes:
        path: Where it lies: in the caller's folder, under the caller's name.
        digest: sha256 of its bytes, `sha256:<hex>`.
        size: Its bytes.
    """

    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """What an entry's file is, and what its server said of it. Written as JSON beside it."""

    digest: str = ""
    size: int = 0
    etag: str = ""
    modified: str = ""


def kept_file(area: RemoteArea, url: str, into: Path, *, name: str, checksum: str = "") -> WebFile:
    """Gives `into/name` as `Web.fetch` does, but asks nobody.

    Raises:
        FetchError: nothing was kept, or it has another digest.
    """
    with area.entry("http", url) as folder:
        known = read_kept(folder)
        if not known.digest:
            raise FetchError(shown(url), "it was never fetched, and the build is offline", ONLINE)
        if checksum and known.digest != checksum:
            text = f"what is kept of it has the digest {known.digest}, not {checksum}; the build is offline"
            raise FetchError(shown(url), text, ONLINE)
        return handed_out(folder, known, into / name)


def handed_out(folder: Path, known: KeptFile, target: Path) -> WebFile:
    """An entry's file at the caller's place."""
    os.link(folder / "data", target)
    return WebFile(path=target, digest=known.digest, size=known.size)


def read_kept(folder: Path) -> KeptFile:
    """What an entry holds; nothing where it is empty, or not whole."""
    try:
        known = KeptFile(**json.loads((folder / "meta.json").read_bytes()))
        if (folder / "data").stat().st_size == known.size:
            return known
    except (OSError, ValueError, TypeError):
        pass  # an entry that is new, or whose writer was killed
    return KeptFile()
