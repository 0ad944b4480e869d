"""`GitUrl`: what a word that names a git repository says, and whether a word does.

The planner asks for ADD, the engine for contexts. Pure: nothing is fetched. A word is parted into the
remote, which git is given, and what it should take from there: ref, folder, and the query's options.
Source: Docker docs, "Build context", URL fragments and queries; BuildKit's `dfgitutil`.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from img import regex
from img.values import dataclass, replace

Mtime = Literal["", "checkout", "commit"]

_SCHEME = regex.compile(r"([a-zA-Z0-9]+)://")
_SCP = regex.compile(
    r"(?P<user>[a-zA-Z0-9_][a-zA-Z0-9-_]*)@(?P<host>[a-zA-Z0-9][a-zA-Z0-9.-]*):(?P<path>[^?#]+)"
)
_SHORT = "github.com/"
_BAD_REF = regex.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|/$|\.$|(^|/)\.")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
QUERY = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime")
"""The names that a query may have."""


class GitUrlError(ValueError):
    """A word names a git repository, but says something about it that makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitUrl:
    """A git repository and what to take of it.

    Attributes:
        remote: URL or `user@host:path`, without fragment and query; may hold a password.
        ref: Branch, tag, whole ref or commit; empty for the remote's HEAD.
        subdir: Folder inside, relative and without `..`; empty for the whole.
        checksum: Beginning of the commit's hash, or empty.
        keep_git_dir: None where nothing is said.
        submodules: None where nothing is said.
        mtime: When the files are from: `commit`, `checkout`, or nothing said.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: Mtime = ""


def parse_git(word: str, *, short: bool = False) -> GitUrl | None:
    """Reads a word as a git reference.

    Args:
        word: E.g. `https://host/team/app.git#v1:sub`, `git@host:team/app`, `ssh://…`, `git://…`.
        short: `github.com/team/app` counts, too: for contexts, where no such folder exists.
    Returns:
        What it says, or None where it names no git repository (but a path, or a file on the web).
    Raises:
        GitUrlError: it does name one, with a query, ref or folder that cannot be.
    """
    found = _SCP.match(word)
    if found and not _SCHEME.match(word):
        remote, rest = found.group(0), word[found.end() :]
        query, _, fragment = rest.removeprefix("?").partition("#") if rest[:1] == "?" else ("", "", rest[1:])
        return _complete(GitUrl(remote=remote), fragment, query)
    if word.startswith(_SHORT):
        if not short:
            return None
        word = f"https://{word}"
    elif not _names_git(word):
        return None
    parts = _split(word)
    remote = urlunsplit((parts.scheme.lower(), parts.netloc, parts.path, "", ""))
    return _complete(GitUrl(remote=remote), parts.fragment, parts.query)


def _names_git(word: str) -> bool:
    """Tells by scheme; of a web address by the path's end."""
    scheme = _SCHEME.match(word)
    kind = scheme.group(1).lower() if scheme else ""
    if kind in ("git", "ssh"):
        return True
    return kind in ("http", "https") and _split(word).path.endswith(".git")


def _split(word: str) -> SplitResult:
    try:
        parts = urlsplit(word)
        _ = parts.port
    except ValueError as error:
        raise GitUrlError(f"it is no URL: {error}") from error
    if not parts.hostname or parts.hostname.startswith("-"):
        raise GitUrlError("it names no host")
    return parts


def _complete(url: GitUrl, fragment: str, query: str) -> GitUrl:
    ref, _, subdir = unquote(fragment).partition(":")
    url = _with_query(replace(url, ref=ref, subdir=subdir), query)
    if url.remote.startswith("-"):
        raise GitUrlError("it begins with '-'")
    return replace(
        url, ref=checked_ref(url.ref), subdir=_folder(url.subdir), checksum=checked_hash(url.checksum)
    )


def _with_query(url: GitUrl, query: str) -> GitUrl:
    """Adds what the query form says; it may repeat the fragment, not contradict it."""
    values: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in QUERY:
            raise GitUrlError(f"unexpected query {name!r}; it may be {', '.join(QUERY)}")
        if name in values:
            raise GitUrlError(f"query {name!r} has several values")
        if not value and name not in ("keep-git-dir", "submodules"):
            raise GitUrlError(f"query {name!r} has no value")
        values[name] = value
    if "tag" in values and "branch" in values:
        raise GitUrlError("a query names a branch or a tag, not both")
    if "checksum" in values and values.get("commit", values["checksum"]) != values["checksum"]:
        raise GitUrlError(_conflict("checksum", values["checksum"], values["commit"]))
    for given in (
        values.get("ref", ""),
        _prefixed("refs/tags/", values.get("tag", "")),
        _prefixed("refs/heads/", values.get("branch", "")),
    ):
        if given:
            if url.ref and url.ref != given:
                raise GitUrlError(_conflict("ref", url.ref, given))
            url = replace(url, ref=given)
    if "subdir" in values and url.subdir and url.subdir != values["subdir"]:
        raise GitUrlError(_conflict("subdir", url.subdir, values["subdir"]))
    checksum = values.get("checksum") or values.get("commit", "")
    return replace(
        url,
        ref=url.ref or checksum,
        subdir=url.subdir or values.get("subdir", ""),
        checksum=checksum,
        keep_git_dir=_switch(values, "keep-git-dir"),
        submodules=_switch(values, "submodules"),
        mtime=_mtime(values.get("mtime", "")),
    )


def _conflict(what: str, one: str, other: str) -> str:
    return f"it says two things of the {what}: {one!r} and {other!r}"


def _prefixed(prefix: str, name: str) -> str:
    return name if not name or name.startswith(prefix) else prefix + name


def _switch(values: dict[str, str], name: str) -> bool | None:
    if name not in values:
        return None
    value = values[name]
    if value and value not in _TRUE | _FALSE:
        raise GitUrlError(f"{name} is true or false, not {value!r}")
    return value not in _FALSE


def _mtime(value: str) -> Mtime:
    if value == "checkout":
        return "checkout"
    if value == "commit":
        return "commit"
    if value:
        raise GitUrlError(f"mtime is checkout or commit, not {value!r}")
    return ""


def checked_ref(ref: str) -> str:
    """Gives a ref that git may be handed.

    Raises:
        GitUrlError: no ref looks like that; it could be taken for an option, or for several.
    Source: git-check-ref-format(1).
    """
    if ref.startswith(("-", "/", "+")) or _BAD_REF.search(ref):
        raise GitUrlError(f"{ref!r} is no name of a branch, tag or commit")
    return ref


def checked_hash(text: str) -> str:
    """Gives a commit's hash, or its beginning, in small letters.

    Raises:
        GitUrlError: it is none.
    """
    if text and not re.fullmatch(r"[0-9a-fA-F]{7,64}", text):
        raise GitUrlError(f"{text!r} is not the hash of a commit (at least 7 hexadecimal digits)")
    return text.lower()


def _folder(text: str) -> str:
    """A folder inside the repository; `/` and `.` mean the whole."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in text:
        raise GitUrlError(f"the folder {text!r} leads out of the repository")
    return "/".join(parts)


def shown(url: str) -> str:
    """A remote, or any URL, as people may see it: without password, query and fragment."""
    scheme = _SCHEME.match(url)
    if not scheme:
        return url.partition("?")[0].partition("#")[0]
    head, tail = url[: scheme.end()], url[scheme.end() :]
    host, slash, path = re.split(r"[?#]", tail, maxsplit=1)[0].partition("/")
    user, at, place = host.rpartition("@")
    kept = f"{user}@" if at and head.lower() == "ssh://" and ":" not in user else ""
    return f"{head}{kept}{place}{slash}{path}"
