"""`Landing`: how what was fetched of an artifact comes to its names in a folder: all of it, or nothing.

`retrieving.pull` calls it. Folders that are there stay, and may hold symlinks of their owner's: none of these
is followed out of the folder. What is to replace something replaces it by a rename.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from img.engine.folders import Unpacked, is_packed, unpack
from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor
from img.oci.hashing import digest_of

if TYPE_CHECKING:
    from img.engine.retrieving import ArtifactWish


def blob_in(spool: Path, descriptor: Descriptor) -> Path:
    """Where a blob is before it gets its names."""
    return spool / descriptor.hex


class Landing:
    """One folder that files come to."""

    def __init__(self, root: Path, wish: ArtifactWish) -> None:
        """Looks at nothing yet."""
        self._root = str(root)
        self._real = os.path.realpath(root)
        self._wish = wish

    def check(self, path: PurePosixPath, layer: Descriptor) -> None:
        """Looks for what is in the way, before anything is fetched.

        Raises:
            UsageError: something is.
        """
        place = self._place(path)
        if is_packed(layer):
            self._check_folder(place)
        else:
            self._check_inside(os.path.dirname(place))
            self._check_file(place)

    def land(self, named: Mapping[PurePosixPath, Descriptor], spool: Path, where: str) -> list[Path]:
        """Gives everything its name; gives the paths of files, and of folders as wholes.

        Raises:
            UsageError: something is in the way. InvalidDocument, DigestMismatch: as `unpack`, or two are one.
        """
        unpacked: list[tuple[str, Unpacked]] = []
        for number, (path, layer) in enumerate(named.items()):
            if is_packed(layer):
                beside = spool / f"folder-{number}"
                beside.mkdir()
                folder = unpack(blob_in(spool, layer), layer, path, beside, where)
                unpacked.append((self._place(path), folder))
        plain = {self._place(path): layer for path, layer in named.items() if not is_packed(layer)}
        made = self._check_all(plain, unpacked, where)
        for place, folder in unpacked:
            os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
            _merge(str(folder.root), place)
        last = {layer.digest: place for place, layer in plain.items()}
        for place, layer in plain.items():
            os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
            _move(blob_in(spool, layer), place, last=place == last[layer.digest])
        for place, mode, time_ns in reversed(made):
            os.chmod(place, mode)
            os.utime(place, ns=(time_ns, time_ns))
        return [Path(self._place(path)) for path in named]

    # ---- inside ------------------------------------------------------------------------------

    def _place(self, path: PurePosixPath) -> str:
        return os.path.normpath(f"{self._root}/{path}")

    def _check_all(
        self, plain: Mapping[str, Descriptor], unpacked: Sequence[tuple[str, Unpacked]], where: str
    ) -> list[tuple[str, int, int]]:
        """Looks through everything once more, now that it is known what is in packed folders.

        Returns:
            The folders that are not there yet, with the permissions and times that they are to have.
        """
        files, folders = set(plain), dict[str, tuple[int, int]]()
        for place, each in unpacked:
            folders.update((_joined(place, inside), (mode, time)) for inside, mode, time in each.folders)
        fresh = {place for place in folders if not os.path.lexists(place)}
        for place in folders:
            self._check_folder(place)
        for place in plain:
            self._check_file(place)
        for top, each in unpacked:
            for inside in each.files:
                place = _joined(top, inside)
                if place in files and not _is(each.root / inside, plain.get(place)):
                    shown = os.path.relpath(place, self._root)
                    raise InvalidDocument(where, f"two files are called {shown!r}")
                files.add(place)
                if os.path.dirname(place) not in fresh:
                    self._check_file(place)
        # What is in one packed folder cannot be in its own way: the parents of folders and plain files can.
        for place in (*folders, *plain):
            if (place in files and place in folders) or not files.isdisjoint(_parents(place, self._root)):
                raise InvalidDocument(where, f"{place!r} would be a file, and a folder of others")
        return [(place, *folders[place]) for place in folders if place in fresh]

    def _check_file(self, place: str) -> None:
        if os.path.lexists(place) and not self._wish.overwrite:
            raise UsageError(f"{place} is there already", hint="--overwrite replaces it")
        if os.path.isdir(place) and not os.path.islink(place):
            raise UsageError(f"{place} is a folder, and would be a file")

    def _check_folder(self, place: str) -> None:
        if os.path.lexists(place) and not os.path.isdir(place):
            raise UsageError(f"{place} is no folder, and would be one")
        self._check_inside(place)

    def _check_inside(self, folder: str) -> None:
        # A folder that is there may be a symlink of its owner's: an artifact is not led by it.
        if os.path.commonpath([self._real, os.path.realpath(folder)]) != self._real:
            raise UsageError(f"{folder} leads out of {self._root}", hint="name an empty folder with -o DIR")


def _is(path: Path, layer: Descriptor | None) -> bool:
    """Whether a file has the bytes of a layer, so that it is the same, whichever of them gets the name."""
    if layer is None or path.is_symlink() or path.stat().st_size != layer.size:
        return False
    return digest_of(path) == layer.digest


def _joined(folder: str, inside: str) -> str:
    """A place below a folder; all that are below the present one are written without it."""
    return os.path.normpath(f"{folder}/{inside}")


def _parents(place: str, root: str) -> Iterator[str]:
    """The folders between a place and the one that everything comes to."""
    while len(place) > len(root):
        place = os.path.dirname(place)
        yield place


def _merge(source: str, place: str) -> None:
    """Moves a folder to its place, or what is in it where there is such a folder."""
    waiting = [(source, place)]
    while waiting:
        source, place = waiting.pop()
        if os.path.isdir(source) and not os.path.islink(source) and os.path.isdir(place):
            waiting += [(f"{source}/{name}", f"{place}/{name}") for name in os.listdir(source)]
        else:
            os.replace(source, place)


def _move(source: Path, place: str, *, last: bool) -> None:
    """Gives a file a name, in the place of what is there; a copy, where others are still to get it."""
    import shutil

    if not last:
        copy = source.with_suffix(".copy")
        shutil.copyfile(source, copy)
        source = copy
    os.replace(source, place)
