"""`pack` and `unpack`: a folder as one file of an artifact, and a folder again.

`artifacts` and `landing` call them. The file is a tar of what is below the folder, each entry under the
folder's title, as ORAS has it; the same files give the same bytes. What comes back is hostile: it is unpacked
into a folder of its own, where nobody sees it, and is looked through there before anything gets its name.
Source: ORAS, "Media Types & Annotations" and its file store, for both annotations and the names of entries.
"""

from __future__ import annotations

import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from img import _core
from img.errors import DigestMismatch, InvalidDocument, LayerError, UsageError
from img.oci import Descriptor
from img.oci.descriptor import OCI_LAYER_GZIP
from img.values import dataclass

CONTENT_DIGEST = "io.deis.oras.content.digest"
"""The annotation that holds the digest of the tar."""

UNPACK = "io.deis.oras.content.unpack"
"""The annotation, `true`, of a file that is a packed folder."""

FOLDER = OCI_LAYER_GZIP
"""Media type of a packed folder of which nothing else is said."""

_MODE = 0o755
"""The permissions that travel: whether others may write is for each machine to say."""

_PATH_MAX = 4096
"""What no path may have that is given to the system, its end included."""

_STRANGE = "neither a file, nor a folder, nor a link"

_OVERRIDE = "user.img.override"
"""Where the extraction keeps what this process may not give a file: `uid:gid:mode:…`, the mode in octal."""


def is_packed(descriptor: Descriptor) -> bool:
    """Tells a packed folder from a file that stays what it is."""
    return descriptor.annotations.get(UNPACK) == "true"


# ---- up ----------------------------------------------------------------------------------------


def pack(
    folder: Path, title: str, media_type: str, spool: Path, *, epoch: int = 0
) -> tuple[Descriptor, Path]:
    """Packs a folder into a file of `spool`; gives its descriptor, without its title, and the file.

    Entries are in the order of their names, owned by 0, and no younger than `epoch`; a hard link is a file.

    Args:
        epoch: Seconds. The default leaves times out: two checkouts of one commit are the same then.
    Raises:
        UsageError: it holds what is no file, folder or link, or a link that leads out of it. OSError,
            DiskFull.
    """
    tar, blob = spool / f"{secrets.token_hex(8)}.tar", spool / secrets.token_hex(8)
    with tarfile.open(
        tar, "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as made:
        for path, inside in _walk(str(folder)):
            entry = _entry(path, inside, title, epoch)
            if entry.isreg():
                with open(path, "rb") as file:
                    made.addfile(entry, file)
            else:
                made.addfile(entry)
        end = made.offset + 2 * tarfile.BLOCKSIZE
    # ORAS digests what its reader of tars takes, and that is nothing behind the two blocks of the end.
    os.truncate(tar, end)
    packed = _core.pack_blob(str(tar), str(blob), compression="gzip")
    tar.unlink()
    notes = {CONTENT_DIGEST: packed.diff_id, UNPACK: "true"}
    descriptor = Descriptor(media_type=media_type, digest=packed.digest, size=packed.size, annotations=notes)
    return descriptor, blob


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """A folder and all below it, by name; with where each is below it: nowhere for itself."""
    waiting = [(folder, "")]
    while waiting:
        path, inside = waiting.pop()
        yield path, inside
        if os.path.isdir(path) and (not inside or not os.path.islink(path)):
            names = sorted(os.listdir(path), reverse=True)
            waiting += [(f"{path}/{name}", f"{inside}/{name}" if inside else name) for name in names]


def _entry(path: str, inside: str, title: str, epoch: int) -> tarfile.TarInfo:
    # The folder itself may be named by a symlink; what is below is what it is.
    status = os.lstat(path) if inside else os.stat(path)
    entry = tarfile.TarInfo(os.path.normpath(f"{title}/{inside}"))
    entry.mode, entry.mtime = stat.S_IMODE(status.st_mode) & _MODE, min(int(status.st_mtime), epoch)
    if stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        if not _stays(entry.linkname, inside):
            hint = "an artifact holds no such links"
            raise UsageError(f"{path} is a link that leads out of its folder", hint=hint)
    elif stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
    else:
        raise UsageError(f"{path} is no file, no folder and no link", hint="an artifact holds nothing else")
    return entry


def _stays(target: str, inside: str) -> bool:
    """Tells whether a link at a place below a folder leads to one below it, whatever other links there are.

    Steps up stand at the beginning alone, where they are steps up from a real folder. So no link that is
    passed on the way can have them lead elsewhere than they seem to.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    steps = [step for step in target.split("/") if step not in ("", ".")]
    ups = next((number for number, step in enumerate(steps) if step != ".."), len(steps))
    return ups <= inside.count("/") and ".." not in steps[ups:]


# ---- down --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A folder that came, where nobody looks for it yet.

    Attributes:
        root: The folder. Whatever is in it may be moved: folders are open to their owner.
        files: Files and links below it, by relative paths.
        folders: It (as the empty path) and the folders below it likewise, parents first, each with the
            permissions and the time (ns) that it is to have.
    """

    root: Path
    files: tuple[str, ...]
    folders: tuple[tuple[str, int, int], ...]


def unpack(blob: Path, descriptor: Descriptor, title: PurePosixPath, spool: Path, where: str) -> Unpacked:
    """Unpacks a packed folder below `spool`, an empty folder, and makes what came ordinary.

    Everything belongs to the caller then, and has permissions and no more: no set-id bits, no attributes.

    Args:
        blob: Verified against `descriptor`.
        where: The artifact's name, for errors.
    Raises:
        DigestMismatch: the tar is not what the annotation says.
        InvalidDocument: it is no archive, or holds what is no file, folder or link below `title`, or a link
            that leads out of it. DiskFull, OSError.
    """
    tar, into = spool / "tar", spool / "files"
    into.mkdir()
    try:
        diff_id = _core.pack_blob(str(blob), str(tar), compression="none").diff_id
        wanted = descriptor.annotations.get(CONTENT_DIGEST, "")
        if wanted and diff_id != wanted:
            raise DigestMismatch(f"tar of {title}", wanted, diff_id)
        if not _core.unpack_folder(str(tar), str(into)):
            raise InvalidDocument(where, f"{str(title)!r} should be a packed folder, and is no archive")
    except LayerError as error:
        raise InvalidDocument(where, f"{str(title)!r} cannot be unpacked: {error}") from error
    finally:
        tar.unlink(missing_ok=True)
    root = _below(into, title, where)
    files: list[str] = []
    folders: list[tuple[str, int, int]] = []
    for path, inside in _walk(str(root)):
        if len(os.fsencode(path)) >= _PATH_MAX:
            raise InvalidDocument(f"{where}: {title}", f"a path is too long: {inside[:40]}…")
        status = os.lstat(path)
        what = _make_ordinary(path, inside, status)
        if what:
            raise InvalidDocument(f"{where}: {title}", f"{inside!r} is {what}")
        if stat.S_ISDIR(status.st_mode):
            folders.append((inside, stat.S_IMODE(status.st_mode) & _MODE, status.st_mtime_ns))
        else:
            files.append(inside)
    return Unpacked(root=root, files=tuple(files), folders=tuple(folders))


def _below(into: Path, title: PurePosixPath, where: str) -> Path:
    """The folder of that title in what was unpacked, beside which there is nothing."""
    root = into
    for part in title.parts:
        if root != into:
            root.chmod(0o700)
        if os.listdir(root) != [part] or (root / part).is_symlink() or not (root / part).is_dir():
            raise InvalidDocument(where, f"the archive of {str(title)!r} holds what is not below that name")
        root = root / part
    return root


def _make_ordinary(path: str, inside: str, status: os.stat_result) -> str:
    """Makes one thing its owner's and nothing more; says what it is where an artifact may hold no such."""
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, 0):
        os.chown(path, 0, 0, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return "" if _stays(os.readlink(path), inside) else "a link that leads out of its folder"
    is_folder, mode = stat.S_ISDIR(status.st_mode), stat.S_IMODE(status.st_mode)
    if not (is_folder or stat.S_ISREG(status.st_mode)):
        return _STRANGE
    right = 0o700 if is_folder else mode & _MODE
    if mode & 0o600 != 0o600 or is_folder:
        os.chmod(path, 0o700)  # it may forbid its owner to look
        mode = 0o700
    for name in os.listxattr(path):
        if name == _OVERRIDE and _stands_for_a_device(os.getxattr(path, name)):
            return _STRANGE
        if name.startswith(("user.", "trusted.", "system.posix_acl", "security.capability")):
            os.removexattr(path, name)
    if mode != right:
        os.chmod(path, right)
    return ""


def _stands_for_a_device(override: bytes) -> bool:
    """Tells a file in whose place there would be a device, if this process might make one."""
    try:
        mode = int(override.split(b":")[2], 8)
    except (IndexError, ValueError):
        return True
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
