"""Which words name a git repository, and what they say of it."""

from __future__ import annotations

import pytest
from img.remote import GitUrl, GitUrlError, parse_git, shown

H = "https://host.example/team/app.git"
C = "9d2ac1b9d2ac1b9d2ac1b9d2ac1b9d2ac1b9d2ac"

NAMES: list[tuple[str, GitUrl]] = [
    (H, GitUrl(remote=H)),
    ("http://host.example/app.git", GitUrl(remote="http://host.example/app.git")),
    ("HTTPS://host.example/app.git", GitUrl(remote="https://host.example/app.git")),
    ("https://host.example:8443/app.git", GitUrl(remote="https://host.example:8443/app.git")),
    ("https://me:word@host.example/app.git", GitUrl(remote="https://me:word@host.example/app.git")),
    ("git://host.example/app", GitUrl(remote="git://host.example/app")),
    ("git://host.example/app.git#v1", GitUrl(remote="git://host.example/app.git", ref="v1")),
    ("ssh://git@host.example/app", GitUrl(remote="ssh://git@host.example/app")),
    ("ssh://git@host.example:2222/app.git", GitUrl(remote="ssh://git@host.example:2222/app.git")),
    ("git@host.example:team/app.git", GitUrl(remote="git@host.example:team/app.git")),
    ("git@host.example:team/app", GitUrl(remote="git@host.example:team/app")),
    ("me_2@host.example:app#v1:sub", GitUrl(remote="me_2@host.example:app", ref="v1", subdir="sub")),
    ("git@host.example:app?branch=b", GitUrl(remote="git@host.example:app", ref="refs/heads/b")),
    ("git@host.example:app?subdir=s#v1", GitUrl(remote="git@host.example:app", ref="v1", subdir="s")),
    (f"{H}#", GitUrl(remote=H)),
    (f"{H}#main", GitUrl(remote=H, ref="main")),
    (f"{H}#feature/one", GitUrl(remote=H, ref="feature/one")),
    (f"{H}#{C}", GitUrl(remote=H, ref=C)),
    (f"{H}#main:sub/dir", GitUrl(remote=H, ref="main", subdir="sub/dir")),
    (f"{H}#:sub", GitUrl(remote=H, subdir="sub")),
    (f"{H}#:/", GitUrl(remote=H)),
    (f"{H}#main:/sub/", GitUrl(remote=H, ref="main", subdir="sub")),
    (f"{H}#main:./a//b/.", GitUrl(remote=H, ref="main", subdir="a/b")),
    (f"{H}#refs/pull/7/head", GitUrl(remote=H, ref="refs/pull/7/head")),
    (f"{H}#v1%2Frc", GitUrl(remote=H, ref="v1/rc")),
    (f"{H}?ref=v1", GitUrl(remote=H, ref="v1")),
    (f"{H}?tag=v1", GitUrl(remote=H, ref="refs/tags/v1")),
    (f"{H}?tag=refs/tags/v1", GitUrl(remote=H, ref="refs/tags/v1")),
    (f"{H}?branch=main", GitUrl(remote=H, ref="refs/heads/main")),
    (f"{H}?branch=refs/heads/main", GitUrl(remote=H, ref="refs/heads/main")),
    (f"{H}?ref=refs/tags/v1&tag=v1", GitUrl(remote=H, ref="refs/tags/v1")),
    (f"{H}?subdir=a/b", GitUrl(remote=H, subdir="a/b")),
    (f"{H}?subdir=a#main:a", GitUrl(remote=H, ref="main", subdir="a")),
    (f"{H}?ref=main#main", GitUrl(remote=H, ref="main")),
    (f"{H}?checksum={C}", GitUrl(remote=H, ref=C, checksum=C)),
    (f"{H}?commit={C}", GitUrl(remote=H, ref=C, checksum=C)),
    (f"{H}?ref=main&checksum=9D2AC1B", GitUrl(remote=H, ref="main", checksum="9d2ac1b")),
    (f"{H}?keep-git-dir=1", GitUrl(remote=H, keep_git_dir=True)),
    (f"{H}?keep-git-dir", GitUrl(remote=H, keep_git_dir=True)),
    (f"{H}?keep-git-dir=false", GitUrl(remote=H, keep_git_dir=False)),
    (f"{H}?submodules=0", GitUrl(remote=H, submodules=False)),
    (f"{H}?submodules", GitUrl(remote=H, submodules=True)),
    (f"{H}?mtime=commit", GitUrl(remote=H, mtime="commit")),
    (f"{H}?mtime=checkout&ref=v1", GitUrl(remote=H, mtime="checkout", ref="v1")),
]

NONE = [
    "", ".", "src", "./git@host.example:app", "/abs/path.git", "a.git", "https://host.example/app",
    "https://host.example/app.git/archive.tar", "https://host.example/app.tar.gz", "http://host.example",
    "host.example:app", "ftp://host.example/app.git", "file:///srv/app.git", "ext::sh -c id",
    "-u@host.example:app", "@host:app", "docker-image://alpine", "github.com/team/app",
]  # fmt: skip

WRONG = [
    (f"{H}?what=1", "unexpected query 'what'"),
    (f"{H}?ref=a&ref=b", "several values"),
    (f"{H}?ref=", "has no value"),
    (f"{H}?subdir", "has no value"),
    (f"{H}?ref=a#b", "two things of the ref"),
    (f"{H}?subdir=a#m:b", "two things of the subdir"),
    (f"{H}?tag=v1&branch=b", "not both"),
    (f"{H}?tag=v1#v1", "two things of the ref"),
    (f"{H}?checksum={C}&commit=1234567", "two things of the checksum"),
    (f"{H}?checksum=xyz", "not the hash of a commit"),
    (f"{H}?commit=12345", "at least 7"),
    (f"{H}?keep-git-dir=maybe", "true or false"),
    (f"{H}?submodules=2", "true or false"),
    (f"{H}?mtime=now", "checkout or commit"),
    (f"{H}#--upload-pack=sh", "no name of a branch"),
    (f"{H}#-x", "no name of a branch"),
    (f"{H}#+main", "no name of a branch"),
    (f"{H}#a b", "no name of a branch"),
    (f"{H}#a..b", "no name of a branch"),
    (f"{H}#a*", "no name of a branch"),
    (f"{H}#a%0Ab", "no name of a branch"),
    (f"{H}#main:../up", "leads out"),
    (f"{H}?subdir=a/../../b", "leads out"),
    ("ssh://-oProxyCommand=id/app", "no host"),
    ("git:///app", "no host"),
    ("https://host.example:port/app.git", "no URL"),
]


@pytest.mark.parametrize(("word", "said"), NAMES)
def test_a_word_that_names_a_repository(word: str, said: GitUrl) -> None:
    assert parse_git(word) == said


@pytest.mark.parametrize("word", NONE)
def test_a_word_that_names_none(word: str) -> None:
    assert parse_git(word) is None


@pytest.mark.parametrize(("word", "reason"), WRONG)
def test_a_repository_that_says_what_cannot_be(word: str, reason: str) -> None:
    with pytest.raises(GitUrlError, match=reason):
        parse_git(word)


def test_the_short_form_counts_for_contexts_alone() -> None:
    assert parse_git("github.com/team/app#v1:sub", short=True) == GitUrl(
        remote="https://github.com/team/app", ref="v1", subdir="sub"
    )
    assert parse_git("github.com/team/app") is None


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://me:word@host/app.git?token=x#y", "https://host/app.git"),
        ("https://word@host:8443/a", "https://host:8443/a"),
        ("ssh://git@host/app", "ssh://git@host/app"),
        ("ssh://git:word@host/app", "ssh://host/app"),
        ("git@host:app#main", "git@host:app"),
        ("http://u:p@ss@host/x", "http://host/x"),
        ("folder", "folder"),
    ],
)
def test_no_secret_of_a_url_is_shown(url: str, seen: str) -> None:
    assert shown(url) == seen
