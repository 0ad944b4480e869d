"""`plan_remotes`: what an ADD fetches: for each source that is a URL or a git repository, a node.

`plan.copy` calls it. Source: Dockerfile reference, "ADD": "Adding files from a URL", "Adding files from a
Git repository", `--checksum`, `--keep-git-dir`.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from img import regex
from img.builder.graph import GitOp, HttpOp
from img.context import literal
from img.dockerfile import instructions as ins
from img.dockerfile.faults import fault
from img.remote import GitUrl, GitUrlError, checked_hash, parse_git, shown
from img.values import dataclass, replace

if TYPE_CHECKING:
    from img.builder.plan import Planner, StageState

UNNAMED = "__unnamed__"
"""What a file is called whose URL ends without a name."""

_WEB = regex.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A source that is fetched: by which node, what is taken of it, and what people see of it."""

    node: int
    pattern: str
    shown: str


def plan_remotes(
    planner: Planner, stage: ins.Stage, state: StageState, copy: ins.Copy, sources: tuple[str, ...]
) -> tuple[Remote | None, ...]:
    """Plans the fetches of an ADD, each once for all ADDs that name the same.

    Returns:
        For each source what fetches it; None for one that is looked up in the context.
    Raises:
        DockerfileError: a URL or a checksum is none, or a flag fits no source.
    """
    if not copy.add:
        for word, source in zip(copy.sources, sources, strict=True):
            _refuse_remote(copy, word, source)
        return (None,) * len(sources)
    checksum = planner.expand(copy, copy.checksum, state.scope.variables)
    ops = [_op(copy, word, source, checksum) for word, source in zip(copy.sources, sources, strict=True)]
    _check_flags(planner, copy, ops)
    return tuple(None if op is None else _remote(planner, stage, copy, op) for op in ops)


def _refuse_remote(copy: ins.Copy, word: str, source: str) -> None:
    """COPY fetches nothing."""
    try:
        remote = _WEB.match(source) is not None or parse_git(source) is not None
    except GitUrlError:
        remote = True
    if remote:
        hint = "ADD fetches URLs and git repositories"
        raise fault(copy.span, f"COPY cannot fetch {shown(source)}", at=word, hint=hint)


def _remote(planner: Planner, stage: ins.Stage, copy: ins.Copy, op: HttpOp | GitOp) -> Remote:
    name = shown(op.url if isinstance(op, HttpOp) else op.remote)
    if op not in planner.fetches:
        planner.fetches[op] = planner.add(stage, op, (), f"ADD {name}", copy)
    pattern = literal(op.name) if isinstance(op, HttpOp) else "."
    return Remote(node=planner.fetches[op], pattern=pattern, shown=name)


def _op(copy: ins.Copy, word: str, source: str, checksum: str) -> HttpOp | GitOp | None:
    try:
        git = parse_git(source)
    except GitUrlError as error:
        raise fault(copy.span, f"{shown(source)}: {error}", at=word) from error
    if git is not None:
        return _git_op(copy, git, checksum)
    if not _WEB.match(source):
        return None
    try:
        parts = urlsplit(source)
        _ = parts.port
        host = parts.hostname
    except ValueError as error:
        raise fault(copy.span, f"{shown(source)} is no URL: {error}", at=word) from error
    if not host:
        raise fault(copy.span, f"{shown(source)} names no host", at=word)
    checksum = _sha256(copy, checksum)
    name = unquote(posixpath.basename(posixpath.normpath(parts.path))) if parts.path else ""
    if name in ("", ".", "..", "/") or "/" in name or "\0" in name:
        name = UNNAMED
    return HttpOp(url=source, name=name, checksum=checksum)


def _git_op(copy: ins.Copy, git: GitUrl, checksum: str) -> GitOp:
    try:
        checksum = checked_hash(checksum)
    except GitUrlError as error:
        raise fault(copy.span, f"--checksum of a git repository: {error}", at="--checksum") from error
    if checksum and git.checksum and not _agree(checksum, git.checksum):
        raise fault(
            copy.span, f"--checksum={checksum} contradicts the URL's own {git.checksum}", at="--checksum"
        )
    longest = max(checksum, git.checksum, key=len)
    git = replace(git, checksum=longest)
    return GitOp(
        remote=git.remote,
        ref=git.ref,
        subdir=git.subdir,
        checksum=git.checksum,
        keep_git_dir=copy.keep_git_dir if git.keep_git_dir is None else git.keep_git_dir,
        submodules=git.submodules is not False,
        mtime=git.mtime,
    )


def _agree(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _sha256(copy: ins.Copy, text: str) -> str:
    """The digest that a file must have, or empty."""
    algorithm = text.partition(":")[0]
    if text and algorithm in ("sha384", "sha512", "sha1", "md5"):
        message = f"--checksum by {algorithm} is not known; a file's digest is sha256:…"
        raise fault(copy.span, message, at="--checksum", hint="sha256sum FILE gives it")
    if text and not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        message = f"--checksum={text} is no digest"
        raise fault(copy.span, message, at="--checksum", hint="write sha256: and 64 hexadecimal digits")
    return text


def _check_flags(planner: Planner, copy: ins.Copy, ops: list[HttpOp | GitOp | None]) -> None:
    """Refuses a checksum that no source, or only some of several, could heed."""
    if copy.keep_git_dir and not any(isinstance(op, GitOp) for op in ops):
        planner.warnings.append(
            f"{copy.span.where}: --keep-git-dir does nothing: no source is a git repository"
        )
    if copy.checksum and (len(ops) != 1 or copy.heredocs):
        raise fault(copy.span, "--checksum is of one source, and there are several", at="--checksum")
    if copy.checksum and ops[0] is None:
        raise fault(
            copy.span,
            "--checksum is for what is fetched: an http(s) URL or a git repository",
            at="--checksum",
            hint="a file of the context is known by its content anyway",
        )
