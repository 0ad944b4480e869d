"""What a build reads from elsewhere: ADD of URLs and repositories, remote contexts, named contexts.

Servers are on loopback. `localhost` and `127.0.0.1` are one machine, and two hosts to who compares names.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import signal
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme
from img.client import Client
from img.errors import FetchError

from tests.conftest import Context, MakeImg
from tests.support.command import Img, Outcome, steps_run
from tests.support.gits import COMMITTED, GitDaemon, GitWeb, Repository
from tests.support.layout import Item, folder, tar_of, write_layout
from tests.support.web import MODIFIED, Web

pytestmark = pytest.mark.once


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitWeb]:
    """A web server that serves repositories too."""
    with GitWeb(tmp_path / "git") as running:
        yield running


@pytest.fixture
def app(server: GitWeb) -> Repository:
    """A repository of two commits: `v1` is the first, `main` the second."""
    repository = Repository(server.root, "app")
    repository.commit({"a": "one\n", "sub/b": "b\n", "Dockerfile": "FROM scratch\nCOPY . /c/\n"})
    repository.git("tag", "-a", "v1", "-m", "first")
    repository.commit({"a": "two\n", "sub/Dockerfile": "FROM scratch\nCOPY b /from-sub\n"})
    return repository


def _sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _tar(files: Mapping[str, str]) -> bytes:
    return tar_of(Item(path=name, data=text.encode()) for name, text in files.items())


def _files(img: Img) -> dict[str, str]:
    tree = img.image().tree
    return {path: e.data.decode(errors="replace") for path, e in tree.items() if e.kind == "file"}


def _build(img: Img, make_context: Context, *lines: str, **files: str) -> Outcome:
    text = "\n".join(("FROM scratch", *lines)) + "\n"
    return img.build(make_context({"Dockerfile": text, **files}))


# ---- ADD of a URL ----------------------------------------------------------------------------------


def test_a_file_has_its_name_its_mode_and_its_servers_time(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    _build(
        img,
        make_context,
        f"ADD {server.put('/d/f%20x.txt', 'hi')}?q=1#z /in/",
        f"ADD {server.url('/d/f%20x.txt')} /as",
    )
    tree = img.image().tree
    assert {path: (e.bits, e.owner, e.mtime) for path, e in tree.items() if e.kind == "file"} == {
        "in/f x.txt": ("600", "0:0", float(MODIFIED)),
        "as": ("600", "0:0", float(MODIFIED)),
    }
    assert tree["as"].text == "hi"


def test_a_file_without_a_time_is_from_1970(img: Img, make_context: Context, server: GitWeb) -> None:
    _build(img, make_context, f"ADD {server.put('/f', 'hi', modified=0)} /f")
    assert img.image().tree["f"].mtime == 0


def test_chmod_and_chown_are_heeded(img: Img, make_context: Context, server: GitWeb) -> None:
    _build(img, make_context, f"ADD --chmod=755 --chown=7:8 {server.put('/f', 'hi')} /f")
    entry = img.image().tree["f"]
    assert (entry.bits, entry.owner) == ("755", "7:8")


def test_a_url_without_a_name_gives_an_unnamed_file(img: Img, make_context: Context, server: GitWeb) -> None:
    _build(img, make_context, f"ADD {server.put('/', 'root')} /d/")
    assert _files(img) == {"d/__unnamed__": "root"}


def test_the_url_may_hold_variables(img: Img, make_context: Context, server: GitWeb) -> None:
    server.put("/v2/f", "two")
    _build(img, make_context, "ARG V=2", f"ADD {server.url('')}/v${{V}}/f /f")
    assert _files(img) == {"f": "two"}


def test_sources_from_everywhere_are_copied_in_their_order(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    """The later one wins where two have one name: `a` is in all three."""
    url = server.put("/a", "web\n")
    repository = server.repository("app")
    _build(img, make_context, f"ADD a {url} {repository}#:sub /one/", f"ADD {url} a /two/",
           f"ADD a {url} {repository} b /three/", a="local\n", b="last\n")  # fmt: skip
    files = _files(img)
    assert {k: v for k, v in files.items() if "Dockerfile" not in k} == {
        "one/a": "web\n", "one/b": "b\n",
        "two/a": "local\n",
        "three/a": "two\n", "three/b": "last\n", "three/sub/b": "b\n",
    }  # fmt: skip


def test_an_archive_stays_one_unless_unpack_says_otherwise(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    data = gzip.compress(_tar({"in/x": "unpacked"}))
    url = server.put("/a.tar.gz", data)
    _build(img, make_context, f"ADD {url} /kept/", f"ADD --unpack {url} /out/")
    tree = img.image().tree
    assert tree["kept/a.tar.gz"].data == data
    assert tree["out/in/x"].text == "unpacked"


def test_an_unchanged_file_is_asked_after_and_hits_the_cache(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.put('/f', 'hi')} /f\n"})
    first = img.build(context)
    second = img.build(context)
    assert server.statuses("/f") == [200, 304]
    assert (len(steps_run(first)), steps_run(second)) == (1, [])
    server.put("/f", "changed")
    third = img.build(context)
    assert server.statuses("/f") == [200, 304, 200]
    assert len(steps_run(third)) == 1
    assert _files(img) == {"f": "changed"}


def test_a_server_that_knows_times_alone_is_asked_by_time(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.put('/f', 'hi', etag=False)} /f\n"})
    img.build(context)
    assert steps_run(img.build(context)) == []
    assert "If-Modified-Since" in server.asked[1].headers


def test_a_file_with_the_right_checksum_is_not_asked_after_again(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    url = server.put("/f", "hi")
    context = make_context({"Dockerfile": f"FROM scratch\nADD --checksum={_sha(b'hi')} {url} /f\n"})
    img.build(context)
    img.build(context)
    img.build(context, "--no-cache")
    assert server.statuses("/f") == [200]


def test_a_checksum_that_differs_is_an_error_with_both(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    url = server.put("/f", "hi")
    wrong = "sha256:" + "0" * 64
    text = f"FROM scratch\nADD --checksum={wrong} {url} /f\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    for part in ("Dockerfile:2", url, wrong, _sha(b"hi"), "^"):
        assert part in outcome.stderr


def test_a_file_that_is_not_there_is_an_error_with_its_place(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    text = f"FROM scratch\nADD {server.url('/none')} /f\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert f"Dockerfile:2: {server.url('/none')}: HTTP 404" in outcome.stderr
    assert server.statuses("/none") == [404], "what is not there is asked for once"


def test_a_server_that_is_down_is_an_error(img: Img, make_context: Context, server: GitWeb) -> None:
    text = "FROM scratch\nADD http://127.0.0.1:1/f /f\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert "http://127.0.0.1:1/f: connection refused" in outcome.stderr


def test_a_server_that_fails_for_a_while_is_asked_again(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    _build(img, make_context, f"ADD {server.put('/f', 'hi', failures=2)} /f")
    assert server.statuses("/f") == [503, 503, 200]


def test_a_transfer_that_breaks_goes_on_where_it_broke(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    data = bytes(range(256)) * 8192
    _build(img, make_context, f"ADD {server.put('/f', data, cut=[700_000, 600_000])} /f")
    assert img.image().tree["f"].content == _sha(data)
    assert server.statuses("/f") == [200, 206, 206]
    assert server.asked[1].headers["Range"] == "bytes=700000-"


def test_a_transfer_that_breaks_starts_anew_where_it_cannot_go_on(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    data = b"x" * 500_000
    _build(img, make_context, f"ADD {server.put('/f', data, cut=[1000], etag=False, modified=0)} /f")
    assert img.image().tree["f"].content == _sha(data)
    assert server.statuses("/f") == [200, 200]


def test_a_body_of_unknown_size_is_taken_to_its_end(img: Img, make_context: Context, server: GitWeb) -> None:
    _build(img, make_context, f"ADD {server.put('/f', 'all of it', sized=False)} /f")
    assert _files(img) == {"f": "all of it"}


def test_a_redirect_is_followed_and_the_name_stays(img: Img, make_context: Context, server: GitWeb) -> None:
    server.put("/real", "there")
    _build(img, make_context, f"ADD {server.put('/f', '', status=302, location='/real')} /d/")
    assert _files(img) == {"d/f": "there"}


def test_a_redirect_round_in_a_circle_ends(img: Img, make_context: Context, server: GitWeb) -> None:
    url = server.put("/f", "", status=302, location="/f")
    outcome = img.fails(3, "build", make_context({"Dockerfile": f"FROM scratch\nADD {url} /f\n"}))
    assert "redirects more than" in outcome.stderr


def test_a_redirect_to_a_file_of_this_machine_is_refused(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    url = server.put("/f", "", status=302, location="file:///etc/passwd")
    outcome = img.fails(3, "build", make_context({"Dockerfile": f"FROM scratch\nADD {url} /f\n"}))
    assert "no web address" in outcome.stderr


def test_a_token_goes_to_its_host_and_follows_no_redirect(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    server.put("/open", "open")
    server.put("/f", "", status=302, location=server.url("/open", host="localhost"), secret="Bearer hush")
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.url('/f')} /f\n"})
    outcome = img.fails(3, "build", context)
    assert "HTTP 401" in outcome.stderr
    assert "HTTP_AUTH_TOKEN_127.0.0.1" in outcome.stderr
    with Client(img.state) as client:
        client.build(context, tag="t", secret_values={"HTTP_AUTH_TOKEN_127.0.0.1": "hush"})
    assert _files(img) == {"f": "open"}
    assert [asked.headers.get("Authorization") for asked in server.asked] == [None, "Bearer hush", None]


def test_a_password_in_a_url_opens_the_door_and_is_not_shown(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    secret = "Basic " + b64encode(b"me:pa55").decode()
    url = server.put("/f", "in", secret=secret).replace("//", "//me:pa55@")
    context = make_context({"Dockerfile": f"FROM scratch\nADD {url} /f\n"})
    outcome = img.build(context, "--debug")
    assert server.statuses("/f") == [200]
    assert "pa55" not in outcome.text + str(img.image().document)
    (context / "Dockerfile").write_text(f"FROM scratch\nADD {url}.none /f\n")
    outcome = img("build", "--debug", context)
    assert outcome.code == 3
    assert "HTTP 404" in outcome.stderr
    assert "pa55" not in outcome.text


def test_an_authority_that_nobody_knows_is_refused_and_one_that_is_named_is_not(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Web(tls=context) as server:
        files = make_context({"Dockerfile": f"FROM scratch\nADD {server.put('/f', 'safe')} /f\n"})
        outcome = img.fails(3, "build", files)
        assert "the TLS certificate was refused" in outcome.stderr
        img.ok("build", "-t", "t", files, env={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    assert _files(img) == {"f": "safe"}


def test_a_proxy_is_used_for_others_than_this_machine(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    """The server stands in for the proxy: it sees the whole URL as the path."""
    server.put("http://far.example/f", "by proxy")
    context = make_context({"Dockerfile": "FROM scratch\nADD http://far.example/f /f\n"})
    img.ok("build", "-t", "t", context, env={"http_proxy": server.url(""), "no_proxy": ""})
    assert _files(img) == {"f": "by proxy"}


# ---- ADD of a repository -----------------------------------------------------------------------------


def test_a_repository_gives_its_files_at_the_commits_time(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    (app.work / "run").write_text("#!/bin/sh\n")
    (app.work / "run").chmod(0o755)
    (app.work / "link").symlink_to("a")
    app.publish()
    _build(img, make_context, f"ADD --exclude=Dockerfile --exclude=sub {server.repository('app')} /app/")
    tree = img.image().tree
    assert {path: (e.kind, e.bits, e.owner, e.mtime) for path, e in tree.items() if path != "app"} == {
        "app/a": ("file", "644", "0:0", float(COMMITTED)),
        "app/run": ("file", "755", "0:0", float(COMMITTED)),
        "app/link": ("link", "777", "0:0", float(COMMITTED)),
    }


@pytest.mark.parametrize(
    ("said", "a"),
    [("#v1", "one\n"), ("?tag=v1", "one\n"), ("#main", "two\n"), ("?branch=main", "two\n"), ("", "two\n"),
     ("#refs/tags/v1", "one\n")],
)  # fmt: skip
def test_a_ref_says_which_commit(
    said: str, a: str, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    _build(img, make_context, f"ADD {server.repository('app')}{said} /")
    assert _files(img)["a"] == a


@pytest.mark.parametrize("said", ["#main:sub", "?subdir=sub", "#:/sub/"])
def test_a_subfolder_is_taken_alone(
    said: str, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    _build(img, make_context, f"ADD --exclude=Dockerfile {server.repository('app')}{said} /x/")
    assert _files(img) == {"x/b": "b\n"}


def test_a_commit_by_its_hash_is_asked_for_once_and_never_again(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    commit = app.git("rev-parse", "v1^{commit}")
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')}#{commit} /\n"})
    img.build(context)
    assert _files(img)["a"] == "one\n"
    asked = len(server.git_seen)
    img.build(context, "--no-cache")
    assert len(server.git_seen) == asked


def test_an_unchanged_repository_hits_the_cache_without_a_fetch(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')} /\n"})
    img.build(context)
    seen = len(server.git_seen)
    assert steps_run(img.build(context)) == []
    # Discovery and ls-refs: no pack is asked for.
    assert len(server.git_seen) - seen == 2
    app.commit({"a": "three\n"})
    assert len(steps_run(img.build(context))) == 1
    assert _files(img)["a"] == "three\n"


def test_a_commit_that_changes_other_folders_hits_the_cache(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')}#:sub /\n"})
    img.build(context)
    app.commit({"a": "three\n"})
    assert steps_run(img.build(context)) == []


def test_the_git_folder_is_left_out_and_kept_where_that_is_asked(
    img: Img, make_context: Context, server: GitWeb, app: Repository, busybox_image: str
) -> None:
    url = server.repository("app")
    _build(img, make_context, f"ADD {url} /without/", f"ADD --keep-git-dir {url}#main /with/")
    paths = set(img.image().tree)
    assert "without/.git" not in paths
    assert {"with/.git/HEAD", "with/.git/config", "with/.git/index"} <= paths
    assert url in img.image().text("with/.git/config")
    assert img.image().text("with/.git/refs/heads/main").strip() == app.git("rev-parse", "main")
    assert img.image().text("with/.git/HEAD").strip() == app.git("rev-parse", "main")


def test_a_kept_git_folder_is_a_repository(
    img: Img, make_context: Context, server: GitWeb, app: Repository, tmp_path: Path
) -> None:
    _build(img, make_context, f"ADD --keep-git-dir {server.repository('app')}#v1 /")
    img.ok("unpack", "-o", tmp_path / "out", "t")
    app.git("fsck", "--full", at=tmp_path / "out")
    assert app.git("status", "--porcelain", at=tmp_path / "out") == ""
    assert app.git("log", "--format=%s", at=tmp_path / "out") == "change"


def test_a_password_of_a_repository_is_in_no_layer(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    server.git_secret = "Basic " + b64encode(b"me:pa55").decode()
    url = server.repository("app").replace("//", "//me:pa55@")
    context = make_context({"Dockerfile": "FROM scratch\nARG U\nADD --keep-git-dir $U /\n"})
    outcome = img.build(context, "--debug", "--build-arg", f"U={url}")
    assert "pa55" not in outcome.text
    assert not [path for path, entry in img.image().tree.items() if b"pa55" in entry.data]


def test_submodules_come_too_and_relative_ones(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    inner = Repository(server.root, "inner")
    deep = inner.commit({"deep": "deep\n"})
    lib = Repository(server.root, "lib")
    lib.commit({"l": "lib\n"})
    commit = lib.submodule("third/inner", server.repository("inner"), deep)
    app.submodule("vendor/lib", "../lib.git", commit)
    url = server.repository("app")
    _build(img, make_context, f"ADD {url} /with/", f"ADD {url}?submodules=0 /without/")
    files = _files(img)
    assert files["with/vendor/lib/l"] == "lib\n"
    assert files["with/vendor/lib/third/inner/deep"] == "deep\n"
    assert not [path for path in files if path.startswith("without/vendor")]


@pytest.mark.parametrize("url", ["/srv/other.git", "file:///srv/other.git", "ext::sh -c id", "-upload"])
def test_a_submodule_of_this_machine_is_refused(
    url: str, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    app.submodule("lib", url, "1" * 40)
    text = f"FROM scratch\nADD {server.repository('app')} /\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert "no protocol that a build may use" in outcome.stderr


@pytest.mark.parametrize("name", [".git", ".."])
def test_a_path_of_a_repository_that_leads_astray_is_refused(
    name: str, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    """Such a tree cannot be added; its objects are made by hand."""
    blob = app.git("rev-parse", "main:a")
    (app.work / "listed").write_text(f"100644 blob {blob}\t{name}\n")
    tree = app.git("-c", "alias.t=!git mktree < listed", "t")
    commit = app.git("commit-tree", "-m", "bad", tree)
    app.git("update-ref", "refs/heads/bad", commit)
    app.push()
    text = f"FROM scratch\nADD {server.repository('app')}#bad /\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert "git cannot write its files" in outcome.stderr
    assert "Dockerfile:2" in outcome.stderr


def test_a_checksum_is_the_beginning_of_the_commits_hash(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    commit = app.git("rev-parse", "main")
    url = server.repository("app")
    _build(img, make_context, f"ADD --checksum={commit[:12]} {url}#main /")
    _build(img, make_context, f"ADD {url}?ref=main&checksum={commit} /")
    text = f"FROM scratch\nADD --checksum=0123456 {url}#main /\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert commit in outcome.stderr
    assert "0123456" in outcome.stderr


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("#mian", "no branch, tag or commit 'mian'", "did you mean main?"),
        ("?tag=v2", "no branch, tag or commit 'refs/tags/v2'", "did you mean v1?"),
        ("#" + "0" * 40, "0" * 40, ""),
        ("#1234567", "no branch, tag or commit '1234567'", "whole hash"),
        ("#main:sbu", "the folder sbu does not exist in main", "did you mean sub?"),
        ("#main:a", "the folder a is a file in main", ""),
    ],
)
def test_what_is_not_in_the_repository_is_an_error_that_names_something_near(
    said: str, message: str, hint: str, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    text = f"FROM scratch\nADD {server.repository('app')}{said} /\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert "Dockerfile:2" in outcome.stderr
    assert message in outcome.stderr
    assert hint in outcome.stderr


def test_a_repository_that_is_not_there_is_an_error(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    text = f"FROM scratch\nADD {server.repository('none')} /\n"
    outcome = img.fails(3, "build", make_context({"Dockerfile": text}))
    assert f"{server.repository('none')}: git cannot fetch its refs" in outcome.stderr
    assert "not found" in outcome.stderr


def test_a_repository_that_wants_a_token_says_how_to_give_one_and_takes_it(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    server.git_secret = "Basic " + b64encode(b"x-access-token:hush").decode()
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')} /\n"})
    outcome = img.fails(3, "build", context)
    assert "--secret id=GIT_AUTH_TOKEN" in outcome.stderr
    with Client(img.state) as client:
        client.build(context, tag="t", secret_values={"GIT_AUTH_TOKEN": "hush"})
        client.build(context, tag="t", no_cache=True, secret_values={"GIT_AUTH_TOKEN_127.0.0.1": "hush"})
    assert _files(img)["a"] == "two\n"


@pytest.mark.parametrize("age", ["old", "plain"])
def test_a_server_that_gives_no_single_commit_gives_all(
    age: str, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    first = app.git("rev-parse", "main~1")
    app.git("tag", "-d", "v1")
    app.git("push", "--quiet", "origin", ":refs/tags/v1")
    app.git("update-server-info", at=app.bare)
    server.git_age = age
    url = server.repository("app")
    _build(img, make_context, f"ADD {url}#main /new/", f"ADD {url}#{first} /old/")
    assert (_files(img)["new/a"], _files(img)["old/a"]) == ("two\n", "one\n")


def test_a_repository_of_longer_hashes(img: Img, make_context: Context, server: GitWeb) -> None:
    commit = Repository(server.root, "long", hashes="sha256").commit({"a": "long\n"})
    url = server.repository("long")
    _build(img, make_context, f"ADD {url} /x/", f"ADD --keep-git-dir {url}#{commit} /y/")
    assert (_files(img)["x/a"], _files(img)["y/.git/HEAD"].strip()) == ("long\n", commit)


def test_the_git_protocol_is_spoken(img: Img, make_context: Context, server: GitWeb, app: Repository) -> None:
    with GitDaemon(server.root) as root:
        _build(img, make_context, f"ADD {root}/app.git#v1 /")
    assert _files(img)["a"] == "one\n"


def test_ssh_is_spoken_with_the_users_program_and_the_agent_that_was_given(
    img: Img,
    make_context: Context,
    server: GitWeb,
    app: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program in ssh's place runs what git asks for on this machine, and notes its own agent."""
    program = tmp_path / "ssh"
    program.write_text(
        f'#!/bin/sh\necho "$SSH_AUTH_SOCK $*" >> {tmp_path}/log\nshift $(($# - 1))\neval "$1"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(program))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    agent = str(tmp_path / "s")
    text = (
        f"FROM scratch\nADD ssh://git@far.example{app.bare} /one/\nADD git@far.example:{app.bare}#v1 /two/\n"
    )
    with socket.socket(socket.AF_UNIX) as listener, Client(img.state) as client:
        listener.bind(agent)
        client.build(make_context({"Dockerfile": text}), tag="t", ssh={"default": agent})
    assert (_files(img)["one/a"], _files(img)["two/a"]) == ("two\n", "one\n")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].startswith(f"{agent} git@far.example git-upload-pack")


def test_a_path_of_this_machine_is_no_repository(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    for source in (app.bare, f"file://{app.bare}"):
        text = f"FROM scratch\nADD {source} /\n"
        outcome = img(*("build", make_context({"Dockerfile": text})))
        assert outcome.code != 0
        assert "context" in outcome.stderr


def test_one_id_is_enough(make_img: MakeImg, make_context: Context, server: GitWeb, app: Repository) -> None:
    img = make_img("--single-id")
    _build(img, make_context, f"ADD {server.repository('app')}#v1 {server.put('/f', 'f')} /x/")
    files = _files(img)
    assert (files["x/a"], files["x/f"]) == ("one\n", "f")


def test_git_runs_as_the_real_user_and_not_with_the_callers_repository(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    """A hook of somebody's repository may build: its GIT_DIR must not lead astray."""
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')} /\n"})
    img.ok("build", "-t", "t", context, env={"GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index"})
    assert _files(img)["a"] == "two\n"


def test_a_users_own_settings_change_no_file(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    (img.home / ".gitconfig").write_text(
        '[core]\n\tautocrlf = true\n\thooksPath = /nowhere\n[filter "x"]\n\tsmudge = tr a-z A-Z\n'
    )
    app.commit({".gitattributes": "a filter=x\n"})
    _build(img, make_context, f"ADD {server.repository('app')} /")
    assert _files(img)["a"] == "two\n"


# ---- contexts ----------------------------------------------------------------------------------------


def test_a_repository_is_a_context(img: Img, server: GitWeb, app: Repository) -> None:
    img.ok("build", "-t", "t", server.repository("app"))
    assert set(_files(img)) == {"c/a", "c/Dockerfile", "c/sub/b", "c/sub/Dockerfile"}


def test_a_repositorys_ref_and_folder_are_a_context(img: Img, server: GitWeb, app: Repository) -> None:
    img.ok("build", "-t", "t", f"{server.repository('app')}#main:sub")
    assert _files(img) == {"from-sub": "b\n"}
    img.ok("build", "-t", "t", f"{server.repository('app')}#v1")
    assert _files(img)["c/a"] == "one\n"


def test_a_file_of_the_context_is_named_by_f(img: Img, server: GitWeb, app: Repository) -> None:
    app.commit({"docker/Other": "FROM scratch\nCOPY a /other\n"})
    img.ok("build", "-t", "t", "-f", "docker/Other", server.repository("app"))
    assert _files(img) == {"other": "two\n"}
    outcome = img.fails(2, "build", "-f", "docker/None", server.repository("app"))
    assert "docker/None" in outcome.stderr


def test_a_git_context_keeps_its_git_folder_only_where_that_is_asked(
    img: Img, server: GitWeb, app: Repository
) -> None:
    url = server.repository("app")
    img.ok("build", "-t", "t", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", url)
    assert "c/.git/HEAD" in _files(img)


def test_dockerignore_of_a_repository_is_heeded(img: Img, server: GitWeb, app: Repository) -> None:
    app.commit({".dockerignore": "sub\nDockerfile\n.dockerignore\n"})
    img.ok("build", "-t", "t", server.repository("app"))
    assert _files(img) == {"c/a": "two\n"}


def test_a_dockerfile_that_is_a_symlink_out_of_the_repository_is_not_read(
    img: Img, server: GitWeb, app: Repository, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("FROM scratch\nLABEL leaked=yes\n")
    (app.work / "Dockerfile").unlink()
    (app.work / "Dockerfile").symlink_to(tmp_path / "secret")
    app.publish()
    outcome = img.fails(2, "build", server.repository("app"))
    assert "has no Dockerfile" in outcome.stderr


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_of_the_web_is_a_context(compress: object, img: Img, server: GitWeb) -> None:
    data = _tar(
        {"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "in tar", "b": "", ".dockerignore": "b\nD*\n"}
    )
    url = server.put("/context", compress(data))  # type: ignore[operator]
    img.ok("build", "-t", "t", url)
    assert _files(img) == {"a": "in tar", ".dockerignore": "b\nD*\n"}


def test_a_dockerfile_of_the_web_is_a_context_without_files(img: Img, server: GitWeb) -> None:
    img.ok("build", "-t", "t", server.put("/any", "FROM scratch\nLABEL a=b\n"))
    assert img.image().config["Labels"] == {"a": "b"}
    outcome = img.fails(2, "build", server.put("/copying", "FROM scratch\nCOPY a /\n"))
    assert "Dockerfile:2" in outcome.stderr


def test_a_dockerfile_of_the_web_builds_a_folder(img: Img, make_context: Context, server: GitWeb) -> None:
    url = server.put("/Other", "FROM scratch\nCOPY a /from-web\n")
    img.ok("build", "-t", "t", "-f", url, make_context({"a": "local", "Dockerfile": "FROM none\n"}))
    assert _files(img) == {"from-web": "local"}


def test_an_archive_of_the_web_and_a_dockerfile_on_standard_input(img: Img, server: GitWeb) -> None:
    url = server.put("/c.tar", _tar({"a": "in tar"}))
    img.ok("build", "-t", "t", "-f", "-", url, stdin=b"FROM scratch\nCOPY a /x\n")
    assert _files(img) == {"x": "in tar"}


def test_dockerignore_of_an_archive_on_standard_input_is_heeded(img: Img) -> None:
    data = _tar({"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": "*\n!a\n", "a": "a", "b": "b"})
    img.ok("build", "-t", "t", "-", stdin=data)
    assert _files(img) == {"a": "a"}


@pytest.mark.parametrize(
    ("context", "code", "message"),
    [
        ("{}/none", 2, "does not exist"),
        ("{}/Dockerfile", 2, "is a file"),
        ("", 2, "empty word"),
        ("ftp://host/x", 2, "ftp:// is no kind of context"),
        ("htps://host/x", 2, "did you mean https://?"),
        ("https://host/app.git#-x", 2, "no name of a branch"),
        ("https://host/app.git?what=1", 2, "unexpected query 'what'"),
        ("ssh://-oProxyCommand=id/x", 2, "names no host"),
        ("http://127.0.0.1:1/x", 3, "connection refused"),
    ],
)
def test_what_is_no_context(context: str, code: int, message: str, img: Img, make_context: Context) -> None:
    root = make_context({"Dockerfile": "FROM scratch\n"})
    assert message in img.fails(code, "build", context.format(root)).stderr


def test_a_context_without_a_dockerfile(img: Img, make_context: Context, server: GitWeb) -> None:
    assert "has no Dockerfile" in img.fails(2, "build", make_context({"a": ""})).stderr
    url = server.put("/c.tar", _tar({"a": ""}))
    assert f"{url} has no Dockerfile" in img.fails(2, "build", url).stderr


def test_a_long_file_that_is_no_archive(img: Img, server: GitWeb) -> None:
    url = server.put("/x", b"x" * (5 << 20))
    outcome = img.fails(2, "build", url)
    assert "no archive, and too long for a Dockerfile" in outcome.stderr


def test_the_library_builds_a_url(img: Img, server: GitWeb, app: Repository) -> None:
    server.git_secret = "Basic " + b64encode(b"x-access-token:hush").decode()
    with Client(img.state) as client:
        with pytest.raises(FetchError) as caught:
            client.build(server.repository("app"))
        assert caught.value.url == server.repository("app")
        token = img.home / "token"
        token.write_text("hush\n")
        client.build(server.repository("app"), tag="t", secrets={"GIT_AUTH_TOKEN": token})
        client.build(server.repository("app"), tag="u", secret_values={"GIT_AUTH_TOKEN": "hush"},
                     contexts={"other": server.put("/c.tar", _tar({"x": ""}))})  # fmt: skip
    assert _files(img)["c/a"] == "two\n"


# ---- named contexts ------------------------------------------------------------------------------------


def _named(img: Img, make_context: Context, value: str | Path, text: str, **files: str) -> None:
    context = make_context({"Dockerfile": text, **files})
    img.ok("build", "-t", "t", "--build-context", f"other={value}", context)


COPY_OTHER = "FROM scratch\nCOPY --from=other . /o/\n"


def test_a_folder_by_name_with_its_own_ignore_file(img: Img, make_context: Context) -> None:
    other = make_context({"a": "a", "skip": "", ".dockerignore": "skip\n.d*\n"})
    _named(img, make_context, other, COPY_OTHER, **{".dockerignore": "a\n"})
    assert _files(img) == {"o/a": "a"}


def test_a_build_may_begin_with_a_folders_files(img: Img, make_context: Context) -> None:
    other = make_context({"bin/a": "a", "b": "b"})
    _named(img, make_context, other, "FROM other\nCOPY c /bin/c\nENV A=1\n", c="c")
    assert _files(img) == {"bin/a": "a", "b": "b", "bin/c": "c"}
    assert len(img.image().layers) == 2
    empty = [line.get("empty_layer", False) for line in img.image().document["history"]]
    assert empty == [False, False, True]


def test_an_image_by_name_takes_the_place_of_a_base(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    text = "FROM nowhere.example/x:1 AS a\nRUN echo hi > /f\nFROM scratch\nCOPY --from=a /f /f\n"
    context = make_context({"Dockerfile": text})
    for value in (busybox_image, busybox_image + "@" + _digest(img, busybox_image)):
        img.ok("build", "-t", "t", "--build-context", f"nowhere.example/x:1=docker-image://{value}", context)
        assert _files(img) == {"f": "hi\n"}


def _digest(img: Img, reference: str) -> str:
    img.ok("pull", reference)
    rows = img.ok("images", "--json").json()
    return str(next(row["digest"] for row in rows if "busybox" in str(row)))


def test_names_of_images_are_compared_in_full(img: Img, make_context: Context) -> None:
    other = make_context({"a": "a"})
    for name, used in (("alpine", "docker.io/library/alpine:latest"), ("docker.io/library/alpine", "alpine")):
        context = make_context({"Dockerfile": f"FROM {used}\nCOPY --from={used} a /b\n"})
        img.ok("build", "-t", "t", "--build-context", f"{name}={other}", context)
        assert _files(img) == {"a": "a", "b": "a"}


def test_a_named_context_replaces_a_stage(img: Img, make_context: Context) -> None:
    other = make_context({"out": "ready made"})
    text = "FROM nowhere.example/x AS other\nRUN make\nFROM scratch\nCOPY --from=other out /\n"
    _named(img, make_context, other, text)
    assert _files(img) == {"out": "ready made"}


@pytest.mark.parametrize("word", ["target:made", "stage:made", "target:0"])
def test_another_stage_by_name(word: str, img: Img, make_context: Context) -> None:
    text = "FROM scratch AS made\nCOPY a /m\nFROM scratch\nCOPY --from=other /m /n\n"
    _named(img, make_context, word, text, a="made")
    assert _files(img) == {"n": "made"}


def test_a_repository_by_name(img: Img, make_context: Context, server: GitWeb, app: Repository) -> None:
    _named(img, make_context, f"{server.repository('app')}#v1", "FROM scratch\nCOPY --from=other a sub/b /\n")
    assert _files(img) == {"a": "one\n", "b": "b\n"}


def test_a_file_and_an_archive_of_the_web_by_name(img: Img, make_context: Context, server: GitWeb) -> None:
    _named(img, make_context, server.put("/d/file.txt", "single"), COPY_OTHER)
    assert _files(img) == {"o/file.txt": "single"}
    _named(img, make_context, server.put("/d/x.tgz", gzip.compress(_tar({"in/t": "t"}))), COPY_OTHER)
    assert _files(img) == {"o/in/t": "t"}


def test_a_named_context_that_nothing_reads_is_not_fetched(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    _named(img, make_context, server.url("/none"), "FROM scratch\nLABEL a=b\n")
    assert server.asked == []


def test_a_layout_on_disk_by_name(img: Img, make_context: Context, busybox_layout: Path) -> None:
    text = "FROM other\nRUN echo from layout > /f\n"
    context = make_context({"Dockerfile": text})
    for value in (busybox_layout, f"{busybox_layout}:latest"):
        img.ok("build", "-t", "t", "--build-context", f"other=oci-layout://{value}", context)
        assert img.image().text("f") == "from layout\n"


def test_a_layout_is_named_by_tag_and_digest(img: Img, make_context: Context, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest = write_layout(layout, [tar_of([folder("d"), Item(path="d/f", data=b"one")])], {}, tag="one")
    copy = "FROM scratch\nCOPY --from=other /d/f /f\n"
    _named(img, make_context, f"oci-layout://{layout}:one", copy)
    assert _files(img) == {"f": "one"}
    _named(img, make_context, f"oci-layout://{layout}@{digest}", copy)
    context = make_context({"Dockerfile": copy})
    outcome = img.fails(3, "build", "--build-context", f"other=oci-layout://{layout}:two", context)
    assert "no such image; there are one" in outcome.stderr


def test_a_layer_of_a_layout_that_is_damaged_is_refused(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    write_layout(layout, [tar_of([Item(path="f", data=b"one")])], {})
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.read_bytes()[:2] == b"\x1f\x8b")
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.write_bytes(bytes(data))
    context = make_context({"Dockerfile": "FROM scratch\nCOPY --from=other f /\n"})
    outcome = img.fails(5, "build", "--build-context", f"other=oci-layout://{layout}", context)
    assert "wrong bytes" in outcome.stderr


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("none", "there is no such folder"),
        ("docker-imge://alpine", "did you mean docker-image://?"),
        ("docker-image:alpine", "did you mean docker-image://alpine?"),
        ("docker-image://", "invalid reference"),
        ("docker-image://UP CASE", "invalid reference"),
        ("oci-layout://none", "there is no folder none"),
        ("oci-layout://.", "no OCI image layout"),
        ("target:", "names no stage"),
        ("target:none", "there is no stage 'none'"),
        ("s3://bucket", "s3:// is no kind of context"),
        ("https://h/a.git#-x", "no name of a branch"),
        ("", "there is no such folder"),
    ],
)
def test_what_is_no_named_context(value: str, message: str, img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nLABEL a=b\n"})
    outcome = img.fails(2, "build", "--build-context", f"x={value}", context, cwd=context)
    assert message in outcome.stderr


def test_two_named_contexts_for_one_name_are_refused(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\n"})
    words = ["--build-context", f"alpine={context}", "--build-context", f"alpine:latest={context}"]
    assert "there is another one for alpine" in img.fails(2, "build", *words, context).stderr


# ---- an end that nobody planned -------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("scheme", ["git", "http"])
def test_a_build_that_ends_while_a_server_is_silent_ends_at_once_and_git_with_it(
    scheme: str, number: signal.Signals, img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/app.git"
        process = img.start("build", make_context({"Dockerfile": f"FROM scratch\nADD {url} /\n"}))
        connection, _ = silent.accept()
        with connection:
            process.send_signal(number)
            assert process.wait(60) == (130 if number == signal.SIGINT else -number)
            # The connection ends when the last process that holds it does.
            connection.settimeout(60)
            while connection.recv(4096):
                pass
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')} /\n"})
    img.build(context)


def test_a_repository_that_a_killed_git_left_locked_is_used_again(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.repository('app')} /\n"})
    img.build(context)
    (repository,) = (img.state / "remote" / "git").glob("*/repository")
    (repository / "shallow.lock").touch()
    app.commit({"a": "three\n"})
    img.build(context)
    assert _files(img)["a"] == "three\n"


def test_a_file_whose_writer_was_killed_is_fetched_anew(
    img: Img, make_context: Context, server: GitWeb
) -> None:
    context = make_context({"Dockerfile": f"FROM scratch\nADD {server.put('/f', 'hi')} /f\n"})
    img.build(context)
    (entry,) = (img.state / "remote" / "http").glob("*/data")
    (entry.parent / "meta.json").write_text('{"digest": "sha')
    img.build(context)
    assert server.statuses("/f") == [200, 200]


# ---- the store -------------------------------------------------------------------------------------------


def test_what_was_fetched_is_counted_and_collected(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    url = server.put("/f", b"x" * 300_000)
    context = make_context({"Dockerfile": f"FROM scratch\nADD {url} {server.repository('app')} /x/\n"})
    img.build(context)
    kept = img.state / "remote"
    assert img.ok("du", "--json").json()["other_bytes"] >= 300_000
    assert len(list((kept / "http").glob("*/data"))) == 1
    assert len(list((kept / "git").glob("*/repository"))) == 1
    img.ok("prune")
    assert len(list((kept / "http").glob("*/data"))) == 1, "it was used lately"
    img.ok("prune", "--all")
    assert not list(kept.glob("*/*"))
    img.build(context)


def test_two_builds_at_once_fetch_one_repository(
    img: Img, make_context: Context, server: GitWeb, app: Repository
) -> None:
    lines = "".join(f"FROM scratch AS s{n}\nADD {server.repository('app')}#{ref} /{n}\n" for n, ref in
                    enumerate(("v1", "main")))  # fmt: skip
    text = lines + "FROM scratch\nCOPY --from=s0 / /\nCOPY --from=s1 / /\n"
    running = [img.start("build", "-t", f"t{n}", make_context({"Dockerfile": text})) for n in range(3)]
    outputs = [process.communicate()[0].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert img.image("t2").text("0/a") == "one\n"
    assert img.image("t2").text("1/a") == "two\n"


def test_an_image_is_the_same_wherever_it_was_fetched(
    make_img: MakeImg, make_context: Context, server: GitWeb, app: Repository
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM scratch\nADD {server.repository('app')} {server.put('/f', 'f')} /x/\n"}
    )
    digests = set()
    for _ in range(2):
        img = make_img()
        outcome = img.ok("build", "-t", "t", "--json", context, env={"SOURCE_DATE_EPOCH": "1600000000"})
        digests.add(outcome.json()["digest"])
    assert len(digests) == 1
