"""`Landing`: how what was fetched of an artifact comes to its names in a folder: all of it, or nothing.

`retrieving.pull` calls it. Folders that are there stay, and may hold symlinks of their owner's: none of these
is followed out of the folder. What is to replace something replaces it by a rename.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from img.engine.folders import Unpacked, is_packed, unpack
from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor

if TYPE_CHECKING:
    from img.engine.retrieving import ArtifactWish


def blob_in(spool: Path, descriptor: Descriptor) -> Path:
    """Where a blob is before it gets its names."""
    return spool / descriptor.hex


class Landing:
    """One folder that files come to."""

    def __init__(self, root: Path, wish: ArtifactWish) -> None:
        """Looks at nothing yet."""
        self._root = root
        self._real = os.path.realpath(root)
        self._wish = wish

    def check(self, path: PurePosixPath, layer: Descriptor) -> None:
        """Looks for what is in the way, before anything is fetched.

        Raises:
            UsageError: something is.
        """
        if is_packed(layer):
            self._check_folder(self._root / path)
        else:
            self._check_file(self._root / path)

    def land(self, named: Mapping[PurePosixPath, Descriptor], spool: Path, where: str) -> list[Path]:
        """Gives everything its name; gives the paths of files, and of folders as wholes.

        Raises:
            UsageError: something is in the way. InvalidDocument, DigestMismatch: as `unpack`, or two are one.
        """
        unpacked: dict[PurePosixPath, Unpacked] = {}
        for number, (path, layer) in enumerate(named.items()):
            if is_packed(layer):
                beside = spool / f"folder-{number}"
                beside.mkdir()
                unpacked[path] = unpack(blob_in(spool, layer), layer, path, beside, where)
        sources = {path: blob_in(spool, layer) for path, layer in named.items() if path not in unpacked}
        for path, folder in unpacked.items():
            for inside in folder.files:
                if path / inside in sources:
                    raise InvalidDocument(where, f"two files are called {str(path / inside)!r}")
                sources[path / inside] = folder.root / inside
        self._check_all(sources, unpacked, where)
        made = self._make_folders(unpacked)
        counts: dict[Path, int] = {}
        for source in sources.values():
            counts[source] = counts.get(source, 0) + 1
        for path, source in sources.items():
            counts[source] -= 1
            self._move(source, self._root / path, last=not counts[source])
        for place, mode, time_ns in reversed(made):
            place.chmod(mode)
            os.utime(place, ns=(time_ns, time_ns))
        return [self._root / path for path in named]

    # ---- inside ------------------------------------------------------------------------------

    def _check_all(
        self, sources: Mapping[PurePosixPath, Path], unpacked: Mapping[PurePosixPath, Unpacked], where: str
    ) -> None:
        """Looks through everything once more, now that it is known what is in packed folders."""
        folders = {path / inside for path, each in unpacked.items() for inside, _, _ in each.folders}
        for path in sources:
            if path in folders or any(parent in sources for parent in path.parents):
                raise InvalidDocument(where, f"{str(path)!r} is a file, and a folder of others")
            self._check_file(self._root / path)
        for path in folders:
            if any(parent in sources for parent in path.parents):
                raise InvalidDocument(where, f"{str(path)!r} is below a file")
            self._check_folder(self._root / path)

    def _check_file(self, place: Path) -> None:
        if os.path.lexists(place) and not self._wish.overwrite:
            raise UsageError(f"{place} is there already", hint="--overwrite replaces it")
        if place.is_dir() and not place.is_symlink():
            raise UsageError(f"{place} is a folder, and would be a file")
        self._check_inside(place.parent)

    def _check_folder(self, place: Path) -> None:
        if os.path.lexists(place) and not place.is_dir():
            raise UsageError(f"{place} is no folder, and would be one")
        self._check_inside(place)

    def _check_inside(self, folder: Path) -> None:
        # A folder that is there may be a symlink of its owner's: an artifact is not led by it.
        if os.path.commonpath([self._real, os.path.realpath(folder)]) != self._real:
            raise UsageError(f"{folder} leads out of {self._root}", hint="name an empty folder with -o DIR")

    def _make_folders(self, unpacked: Mapping[PurePosixPath, Unpacked]) -> list[tuple[Path, int, int]]:
        """Makes what packed folders hold; gives those that were not there, with what they are to be like."""
        made = []
        for path, each in unpacked.items():
            for inside, mode, time_ns in each.folders:
                place = self._root / path / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    place.mkdir()
                except FileExistsError:
                    continue
                made.append((place, mode, time_ns))
        return made

    def _move(self, source: Path, place: Path, *, last: bool) -> None:
        """Gives a file a name, in the place of what is there; a copy, where others are still to get it."""
        import shutil

        place.parent.mkdir(parents=True, exist_ok=True)
        if not last:
            copy = source.with_suffix(".copy")
            shutil.copyfile(source, copy)
            source = copy
        os.replace(source, place)
