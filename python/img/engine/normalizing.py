"""`normalized`: a context whose files have the modes of git's index (`--context-normalize=git`).

git keeps one bit of a file's mode; the rest of what stands on disk is the umask of whoever made the work
tree. With the index's modes two clones give one layer. `Build` calls it; git runs outside the namespace, as
the real user, and reads nothing but the index.
Source: git-ls-files(1); gitformat-index(5), "Index entry".
"""

from __future__ import annotations

from pathlib import Path

from img import _core
from img.context import Context
from img.engine.requests import BuildRequest
from img.errors import UsageError
from img.remote import parse_git
from img.values import replace

_MOST_BYTES = 64 << 20
"""What is read of a program's output, at the most."""

_ENVIRONMENT = (
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("LC_ALL", "C"),
    # A work tree's configuration may name a program to be run; to list an index needs none.
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "core.fsmonitor"),
    ("GIT_CONFIG_VALUE_0", "false"),
)


def normalized(context: Context, request: BuildRequest) -> Context:
    """The context as the request wants it.

    Raises:
        UsageError: there is no such way to normalize it, or it is no work tree of git.
    """
    if not request.context_normalize:
        return context
    if request.context_normalize != "git":
        raise UsageError(
            f"--context-normalize cannot be {request.context_normalize!r}", hint="--context-normalize=git"
        )
    if context.lasting:
        return replace(context, modes=_core.IndexModes(_index(context.root, context.name)))
    if parse_git(request.context, short=True) is not None:
        # git wrote these files from a commit: each one's own bit is that of the commit.
        return replace(context, modes=_core.IndexModes(b""))
    raise UsageError(
        f"--context-normalize=git: {context.name} is no work tree of git",
        hint="it takes a folder, or the URL of a repository",
    )


def _index(root: Path, name: str) -> bytes:
    """What git lists of the index, paths relative to the context."""
    words = ["git", "ls-files", "--stage", "-z"]
    if (root / ".gitmodules").is_file():
        words.append("--recurse-submodules")
    try:
        code, out, err = _core.run_outside(words, env=_ENVIRONMENT, cwd=str(root))
    except OSError as error:
        raise UsageError(
            "--context-normalize=git needs the program git, which is not here", hint="install the package git"
        ) from error
    if code:
        raise UsageError(
            f"--context-normalize=git: {name} is no work tree of git that can be read", hint=_said(err)
        )
    if len(out) >= _MOST_BYTES:
        raise UsageError(f"--context-normalize=git: the index of {name} is longer than {_MOST_BYTES} bytes")
    return out


def _said(err: bytes) -> str:
    """git's own reason, on one line."""
    lines = err.decode("utf-8", "replace").splitlines()
    line = next((line for line in lines if line.startswith("fatal:")), "")
    text = line.removeprefix("fatal:").strip()
    return f"git says: {''.join(c if c.isprintable() else ' ' for c in text)[:300]}" if text else ""
