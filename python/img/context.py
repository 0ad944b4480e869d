"""`Context`: the folder that COPY and ADD read, with what `.dockerignore` takes away.

A context comes from a folder, from an archive, or is empty (a Dockerfile on standard input). Nothing
is copied out of a folder: COPY reads it in place. What must be unpacked lies in a folder of the caller.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

from img import _core, regex
from img.dockerfile import numbered_ignore
from img.dockerfile.faults import printable
from img.errors import CopyError, DockerfileError, UsageError
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.values import dataclass

_GLOB = regex.compile(r"[*?\[\\]")
DEFAULT_NAMES = ("Dockerfile", "dockerfile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where a build's files come from.

    Attributes:
        root: The folder.
        name: What people call it, for messages.
        ignore: Patterns of `.dockerignore`, in order.
        ignore_name: The file that they came from; empty where there is none.
        ignore_lines: Where each pattern stands in that file, from 1.
        modes: What git's index says of the files' modes, where that counts and not the disk.
        lasting: The files stay where they are when the build is over, so their digests may be remembered.
    """

    root: Path
    name: str
    ignore: tuple[str, ...] = ()
    ignore_name: str = ""
    ignore_lines: tuple[int, ...] = ()
    modes: _core.IndexModes | None = None
    lasting: bool = True

    @classmethod
    def ignoring(
        cls, root: Path, name: str, data: bytes, ignore_name: str, *, lasting: bool = True
    ) -> Context:
        """A context with what an ignore file says.

        Args:
            data: The file's bytes, as `read_ignore` gives them.
        Raises:
            DockerfileError: one of its patterns is not valid; with its place in that file.
        """
        found = numbered_ignore(data)
        for line, pattern in found:
            try:
                _core.IgnoreRules((pattern,))
            except CopyError as error:
                raise DockerfileError(
                    f"{error.reason}: {printable(pattern)}",
                    path=ignore_name,
                    line=line,
                    column=1,
                    excerpt=printable(pattern),
                    hint="as in Go's filepath.Match: * ? [a-z], ** for folders, \\ before special characters",
                ) from error
        return cls(
            root=root,
            name=name,
            ignore=tuple(pattern for _, pattern in found),
            ignore_name=ignore_name,
            ignore_lines=tuple(line for line, _ in found),
            lasting=lasting,
        )

    def select(
        self,
        patterns: tuple[str, ...],
        exclude: tuple[str, ...] = (),
        *,
        parents: bool = False,
        hidden: bool = False,
    ) -> _core.Selection:
        """Chooses files for one COPY, or for a mount.

        Args:
            hidden: What the ignore file takes away is remembered.
        Raises:
            CopyError: a pattern names nothing.
        """
        return _core.Selection(
            str(self.root),
            patterns,
            ignore=self.ignore,
            exclude=exclude,
            parents=parents,
            hidden=hidden,
            modes=self.modes,
        )

    def ignored_by(self, path: str) -> str:
        """Where the pattern stands that takes a path out, `.dockerignore:3`; empty where none does."""
        path = posixpath.normpath("/" + path).lstrip("/")
        index = _core.IgnoreRules(self.ignore).excluding(path) if self.ignore else None
        if index is None:
            return ""
        return f"{self.ignore_name}:{self.ignore_lines[index]}" if self.ignore_lines else self.ignore_name


def literal(path: str) -> str:
    """A path as a pattern of `Context.select` that means itself."""
    return _GLOB.sub(r"\\\g<0>", path)


def open_folder(path: str | Path) -> Path:
    """Checks that a context folder is one.

    Raises:
        UsageError: it is missing, or not a folder.
    """
    root = Path(path)
    if not root.exists():
        raise UsageError(f"the build context {path} does not exist", hint="img build [OPTIONS] PATH")
    if not root.is_dir():
        raise UsageError(
            f"the build context {path} is a file",
            hint=f"name its folder, and the file with -f: img build -f {path} {root.parent}",
        )
    return root.resolve()


def unpack(archive: Path, into: Path) -> bool:
    """Unpacks a context archive; False where the file is no archive (it may be a Dockerfile)."""
    return _core.unpack_archive(str(archive), str(into)) is not None


def read_dockerfile(root: Path, file: str | None, *, cwd: Path) -> tuple[bytes, str]:
    """Reads the Dockerfile; gives its bytes and the name that messages use.

    Args:
        file: What `-f` says: a path from `cwd`, else from the context; None for the default names.
    Raises:
        DockerfileError: there is none, or it is too long.
    """
    candidates = [cwd / file, root / file] if file else [root / name for name in DEFAULT_NAMES]
    for path in candidates:
        if path.is_file():
            if path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise DockerfileError(f"longer than {MAX_DOCUMENT_BYTES} bytes", path=str(file or path.name))
            return path.read_bytes(), file or path.name
        if path.is_dir():
            raise DockerfileError("it is a folder, not a file", path=str(file or path.name))
    if file:
        raise DockerfileError(f"no such file, neither here nor in {root}", path=file)
    raise DockerfileError(
        f"{root} has no Dockerfile",
        path=str(root / DEFAULT_NAMES[0]),
        hint="name it with -f FILE, or give another PATH",
    )


def read_ignore(root: Path, names: tuple[str, ...], *, beside: Path | None = None) -> tuple[bytes, str]:
    """Reads the first ignore file that exists; empty bytes and an empty name where none does.

    Args:
        names: Candidates in order, as `dockerfile.ignore_names` gives them.
        beside: The Dockerfile's folder, where it is not the context's.
    """
    for name in names:
        for folder in (beside, root):
            path = folder / name if folder else None
            if path and path.is_file() and (folder == root or name != ".dockerignore"):
                return path.read_bytes(), name
    return b"", ""


# ---- what was fetched or unpacked: its symlinks lead nowhere else ----------------------------------


def read_dockerfile_inside(root: Path, file: str, *, name: str) -> tuple[bytes, str]:
    """Like `read_dockerfile`, for a tree that came from outside: nothing beyond it is read.

    Args:
        file: What `-f` says: a path in the tree; empty for the default names.
        name: What people call the tree.
    Raises:
        DockerfileError: there is none, or it is too long.
    """
    for candidate in (file,) if file else DEFAULT_NAMES:
        data = _inside(root, candidate, MAX_DOCUMENT_BYTES)
        if data is not None:
            return data, candidate
    if file:
        raise DockerfileError(f"there is no such file in {name}", path=file)
    hint = "name it with -f FILE; it is looked up in the context"
    raise DockerfileError(f"{name} has no Dockerfile", path=DEFAULT_NAMES[0], hint=hint)


def read_ignore_inside(root: Path, names: tuple[str, ...], *, folder: str) -> tuple[bytes, str]:
    """Like `read_ignore`, for a tree that came from outside.

    Args:
        folder: The Dockerfile's folder in the tree; empty for its root.
    """
    for name in names:
        for place in {folder: None, "": None} if name != ".dockerignore" else ("",):
            data = _inside(root, f"{place}/{name}", MAX_DOCUMENT_BYTES)
            if data is not None:
                return data, name
    return b"", ""


def read_inside(root: Path, path: str) -> bytes:
    """Reads a small file of a tree that came from outside; empty where there is none."""
    return _inside(root, path, MAX_DOCUMENT_BYTES) or b""


def _inside(root: Path, path: str, limit: int) -> bytes | None:
    return _core.read_in_layers([str(root)], path, limit)
