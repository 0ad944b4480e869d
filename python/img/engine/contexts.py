"""`open_inputs`: what a build reads: its context and its Dockerfile, wherever they come from.

A context is a folder, a git repository, an archive or a lone Dockerfile; the last two come from the web or
from standard input, and are told apart by content. `Build` calls it once. What was fetched or unpacked is
hostile: nothing in it leads outside its folder.
Source: Docker docs, "Build context".
"""

from __future__ import annotations

import os
from pathlib import Path

from img import regex
from img.context import (
    Context,
    open_folder,
    read_dockerfile,
    read_dockerfile_inside,
    read_ignore,
    read_ignore_inside,
    read_inside,
    unpack,
)
from img.dockerfile import ignore_names, near
from img.engine.fetching import Fetcher
from img.engine.requests import BuildRequest
from img.engine.resolving import DEFAULT_NAME, Lock
from img.errors import UsageError
from img.oci.descriptor import MAX_DOCUMENT_BYTES
from img.remote import GitUrl, GitUrlError, parse_git, shown
from img.store import WorkFolder
from img.values import dataclass, field

KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
"""The build argument that leaves `.git` in a git context."""

_SCHEME = regex.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_KNOWN = ("http", "https", "git", "ssh")
_FORMS = "a context is a folder, a git or http(s) URL, or - for standard input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a build reads: its context, the Dockerfile's name and bytes, and the lock file beside it."""

    context: Context
    path: str
    text: bytes
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Root:
    """A context's folder, or a Dockerfile that came in the place of one (and an empty folder)."""

    folder: Path
    lasting: bool = False
    text: bytes | None = None


def open_inputs(request: BuildRequest, work: WorkFolder, fetcher: Fetcher) -> Inputs:
    """Opens the context and reads the Dockerfile.

    Raises:
        UsageError: the context is none. FetchError: it cannot be had.
        DockerfileError: there is no Dockerfile.
    """
    if request.context == "-" and request.dockerfile == "-":
        raise UsageError("the context and the Dockerfile cannot both come from standard input")
    root = _open_root(request, work, fetcher)
    given, path = _given(request, fetcher)
    text = given if given is not None else root.text
    cwd = Path(request.cwd) if root.lasting else root.folder
    file = "" if path else request.dockerfile
    if text is not None:
        path = path or "Dockerfile"
    elif root.lasting:
        text, path = read_dockerfile(root.folder, file or None, cwd=cwd)
    else:
        text, path = read_dockerfile_inside(root.folder, file, name=shown(request.context))
    name = shown(request.context)
    if not root.lasting:
        context = _ignoring_inside(root.folder, path if file else "Dockerfile", name)
        beside = None
    else:
        beside = (cwd if file and (cwd / path).is_file() else root.folder) / path
        context = ignoring(root.folder, name=name, beside=beside)
    lock = Lock() if given is not None or root.text is not None else _lock(root.folder, path, beside)
    return Inputs(context=context, path=path, text=text, lock=lock)


def _lock(root: Path, path: str, beside: Path | None) -> Lock:
    """The lock file beside a Dockerfile, not yet parsed.

    Args:
        path: The Dockerfile's name.
        beside: The Dockerfile itself; None where it came in a tree from outside.
    """
    name = os.path.join(os.path.dirname(path), DEFAULT_NAME)
    if beside is None:
        return Lock(shown=name, data=read_inside(root, name))
    place = beside.parent / DEFAULT_NAME
    return Lock(shown=name, data=place.read_bytes() if place.is_file() else b"", path=place)


def _given(request: BuildRequest, fetcher: Fetcher) -> tuple[bytes | None, str]:
    """The Dockerfile that `-f` brings from standard input or the web, and its name."""
    if request.dockerfile == "-":
        if not request.stdin:
            raise UsageError("nothing came on standard input", hint="img build -f - PATH < Dockerfile")
        return Path(request.stdin).read_bytes(), "Dockerfile"
    if is_web(request.dockerfile):
        path = fetcher.file(request.dockerfile, name="Dockerfile").path
        return _document(path, request.dockerfile), shown(request.dockerfile)
    return None, ""


def _open_root(request: BuildRequest, work: WorkFolder, fetcher: Fetcher) -> _Root:
    word = request.context
    if word == "-":
        if not request.stdin:
            raise UsageError("nothing came on standard input", hint="img build - < context.tar")
        return _unpacked(Path(request.stdin), work.folder("context"), "standard input")
    if not word:
        raise UsageError("the build context is an empty word", hint=_FORMS)
    local = Path(request.cwd) / word
    if _exists(local, word):
        return _Root(folder=open_folder(local), lasting=True)
    git = git_of(word, f"the build context {shown(word)}", request)
    if git is not None:
        return _Root(folder=fetcher.repository(git).root)
    if is_web(word):
        return _unpacked(fetcher.file(word, name="context").path, fetcher.folder(), word)
    refuse_scheme(word, f"the build context {shown(word)}", (*_KNOWN,), _FORMS)
    return _Root(folder=open_folder(local), lasting=True)


def _exists(path: Path, word: str) -> bool:
    """Tells whether a folder (or file) is there, and can be read."""
    try:
        found = path.exists()
    except OSError as error:
        raise UsageError(f"the build context {word} cannot be read: {error.strerror}") from error
    if found and path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"the build context {word} cannot be read: permission denied")
    return found


def _unpacked(file: Path, into: Path, word: str) -> _Root:
    """An archive's files, or a Dockerfile: told by content."""
    if unpack(file, into):
        return _Root(folder=into)
    return _Root(folder=into, text=_document(file, word))


def _document(file: Path, word: str) -> bytes:
    if file.stat().st_size > MAX_DOCUMENT_BYTES:
        hint = "it may be a tar archive, plain or compressed by gzip, bzip2, xz or zstd"
        raise UsageError(f"{shown(word)} is no archive, and too long for a Dockerfile", hint=hint)
    return file.read_bytes()


# ---- shared with named contexts --------------------------------------------------------------------


def is_web(word: str) -> bool:
    """Tells an http(s) URL."""
    return word.lower().startswith(("http://", "https://"))


def git_of(word: str, what: str, request: BuildRequest) -> GitUrl | None:
    """Reads a context's word as a git reference; `.git` is kept only where the build asks for it.

    Raises:
        UsageError: it is one that makes no sense; `what` names it.
    """
    try:
        url = parse_git(word, short=True)
    except GitUrlError as error:
        raise UsageError(f"{what}: {error}") from error
    if url is None:
        return None
    keep = request.build_args.get(KEEP_GIT_DIR, "").lower() in ("1", "true", "t")
    return GitUrl(
        remote=url.remote,
        ref=url.ref,
        subdir=url.subdir,
        checksum=url.checksum,
        keep_git_dir=keep if url.keep_git_dir is None else url.keep_git_dir,
        submodules=url.submodules,
        mtime=url.mtime,
    )


def refuse_scheme(word: str, what: str, known: tuple[str, ...], forms: str) -> None:
    """Refuses a URL of a scheme that no context has.

    Raises:
        UsageError: it is one; with the scheme that may have been meant.
    """
    scheme = _SCHEME.match(word)
    if scheme:
        like = near(scheme.group(1), known)
        hint = f"did you mean {like}://?" if like else forms
        raise UsageError(f"{what}: {scheme.group(1)}:// is no kind of context", hint=hint)


def ignoring(root: Path, *, name: str, beside: Path | None = None) -> Context:
    """A folder as a context, with its `.dockerignore`.

    Args:
        beside: The Dockerfile, whose own ignore file goes first.
    """
    names = ignore_names(beside.name) if beside else (".dockerignore",)
    data, found = read_ignore(root, names, beside=beside.parent if beside else None)
    return Context.ignoring(root, name, data, found)


def _ignoring_inside(root: Path, dockerfile: str, name: str) -> Context:
    """The same, for what was fetched: no symlink in it leads outside."""
    folder, _, file = dockerfile.rpartition("/")
    data, found = read_ignore_inside(root, ignore_names(file), folder=folder)
    return Context.ignoring(root, name, data, found, lasting=False)
