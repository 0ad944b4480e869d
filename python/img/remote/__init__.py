"""What a build reads over the network besides images: files of the web, and git repositories.

`Web` fetches one file, `Git` one commit; both keep what they fetched in the store's `RemoteArea` and ask
only whether it is still the same. `Tokens` are the secrets that open doors; `parse_git` tells whether a
word names a repository. A sibling of the registry client, of which it knows nothing: that one speaks one
protocol to hosts that answer in kind, this one asks whatever a Dockerfile names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from img.remote.giturl import GitUrl, GitUrlError, checked_hash, checked_ref, parse_git, shown
from img.remote.reach import Reach
from img.remote.tokens import Tokens

if TYPE_CHECKING:
    from img.remote.git import Git, GitTree, KeptGit
    from img.remote.http import Web
    from img.remote.kept import WebFile, kept_file
    from img.remote.program import GitProgram

__all__ = [
    "Git",
    "GitProgram",
    "GitTree",
    "GitUrl",
    "GitUrlError",
    "KeptGit",
    "Reach",
    "Tokens",
    "Web",
    "WebFile",
    "checked_hash",
    "checked_ref",
    "kept_file",
    "parse_git",
    "shown",
]

_HOMES = {
    "git": ("Git", "GitTree", "KeptGit"),
    "http": ("Web",),
    "kept": ("WebFile", "kept_file"),
    "program": ("GitProgram",),
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: most builds fetch nothing."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"img.remote.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'img.remote' has no attribute {name!r}")
