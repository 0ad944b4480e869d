"""Why a step missed the cache: one clause beside it, all of it with --explain, and after the fact."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from img import Client

from tests.conftest import Context, MakeImg
from tests.support.command import Img, Outcome

pytestmark = pytest.mark.once

Edit = Callable[[Path], object]


def reason(outcome: Outcome, step: str) -> str:
    """The clause beside the one step whose title holds a text; empty where there is none."""
    lines = outcome.stderr.splitlines()
    (title,) = {lines[i - 1] for i, line in enumerate(lines) if line == "--->" and step in lines[i - 1]}
    return title.partition(" (")[2].removesuffix(")")


def write(root: Path, name: str, text: str) -> Path:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    return root / name


def edit(name: str, text: str) -> Edit:
    return lambda root: write(root, name, text)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def replace_by_file(path: Path) -> None:
    path.unlink()
    path.touch()


FILES: Mapping[str, str] = {"app/run.sh": "run", "app/x.py": "x" * 120, "app/lib/a": "", "app/lib/b": ""}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "app/run.sh").chmod(0o664), "mode 644 -> 664 app/run.sh"),
        (edit("app/x.py", "y" * 133), "app/x.py changed (120 -> 133 bytes)"),
        (edit("app/x.py", "y" * 120), "app/x.py changed (120 bytes)"),
        (edit("app/new", ""), "app/new added"),
        (lambda root: (root / "app/x.py").unlink(), "app/x.py removed"),
        (
            lambda root: [write(root, f"app/{name}", "") for name in "ab"],
            "2 files added: app/a, app/b",
        ),
        (
            lambda root: [write(root, f"app/{name}", "") for name in "abcd"],
            "4 files added: app/a, app/b, app/c, …",
        ),
        (
            lambda root: shutil.rmtree(root / "app/lib"),
            "app/lib/ removed with 2 more in it",
        ),
        (
            lambda root: [write(root, "app/x.py", ""), write(root, "app/z", "")],
            "app/x.py changed (120 -> 0 bytes) and 1 more",
        ),
        (
            lambda root: relink(root / "app/link", "x.py"),
            "link app/link: run.sh -> x.py",
        ),
        (
            lambda root: replace_by_file(root / "app/link"),
            "type link -> file app/link",
        ),
    ],
)
def test_a_copy_says_which_files_changed_and_how(
    change: Edit, said: str, img: Img, make_context: Context
) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY app /app\n", **FILES})
    (context / "app/link").symlink_to("run.sh")
    assert reason(img.build(context), "[copy") == "first build of this step"
    change(context)
    assert reason(img.build(context), "[copy") == said
    assert reason(img.build(context), "[copy") == ""


RUN = "RUN : here"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("ENV V=1\nRUN :", "ENV V=2\nRUN :", "env V: 1 -> 2"),
        ("RUN :", "ENV V=2\nRUN :", "env V added: 2"),
        ("ENV V=2\nRUN :", "RUN :", "env V removed"),
        (
            "ENV U=https://me:hidden@h/\nRUN :",
            "ENV U=https://me:secret@h/x\nRUN :",
            "env U: https://*********@h/ -> https://*********@h/x",
        ),
        ("RUN : one", "RUN : two", "args changed"),
        ("RUN :", "USER worker\nRUN :", "user: root -> worker"),
        ("RUN :", "RUN --network=none :", "network: default -> none"),
        ("RUN :", "RUN --mount=type=tmpfs,target=/x :", "mount /x added"),
        (
            "RUN --mount=type=tmpfs,target=/x :",
            "RUN --mount=type=tmpfs,target=/x,size=4096 :",
            "mount /x: size none -> 4096",
        ),
        (
            "RUN : one",
            "ENV V=1\nUSER worker\nRUN : two",
            "args changed, env V added: 1 and 1 more",
        ),
    ],
)  # fmt: skip
def test_a_run_says_which_input_differs(
    before: str, after: str, said: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{before}\n"})
    img.build(context)
    write(context, "Dockerfile", f"FROM {busybox_image}\n{after}\n")
    assert reason(img.build(context), "RUN") == said


def test_what_follows_names_the_step_below_that_gave_other_files(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nWORKDIR /w\nCOPY a /a\nENV X=1\nRUN cat /a > /b\nRUN : then\n"
    context = make_context({"Dockerfile": dockerfile, "a": "1"})
    img.build(context)
    write(context, "a", "2")
    outcome = img.build(context)
    below = "what is below changed: Dockerfile:3 COPY a /a gave other files"
    assert reason(outcome, "cat /a") == below
    assert reason(outcome, ": then") == below


def test_another_base_is_named(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo 1 > /new\n"})
    img.build(context, tag="base")
    dockerfile = "ARG BASE\nFROM $BASE\nRUN :\n"
    write(context, "Dockerfile", dockerfile)
    img.build(context, "--build-arg", f"BASE={busybox_image}")
    said = reason(img.build(context, "--build-arg", "BASE=base"), "RUN")
    assert said == "the base base:latest is another image"


def test_no_cache_and_a_lost_layer_are_named(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo 1 > /new\n"})
    img.build(context)
    assert reason(img.build(context, "--no-cache"), "RUN") == "--no-cache"
    with closing(sqlite3.connect(img.state / "img.db")) as database, database:
        database.execute("DELETE FROM layers WHERE content LIKE 'blake3:%'")
    assert reason(img.build(context), "RUN") == "its layer is no longer in the store"
    assert reason(img.build(context), "RUN") == ""


def test_the_mounted_context_says_which_files_changed(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN --mount=type=bind,source=d,target=/d cat /d/*\n"
    context = make_context({"Dockerfile": dockerfile, "d/a": "1"})
    img.build(context)
    write(context, "d/a", "22")
    assert reason(img.build(context), "RUN") == "mounted: d/a changed (1 -> 2 bytes)"


def test_another_version_of_the_keys_is_named(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN :\n"})
    img.build(context)
    change_records(img, lambda inputs: {**inputs, "v": 1})
    assert reason(img.build(context), "RUN") == "img changed how it computes keys"


def change_records(img: Img, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Makes of every record one with other inputs, under another key."""
    with closing(sqlite3.connect(img.state / "img.db")) as database, database:
        for key, inputs in database.execute("SELECT key, inputs FROM records").fetchall():
            text = json.dumps(change(json.loads(inputs)))
            database.execute("UPDATE records SET key=?, inputs=? WHERE key=?", (f"x{key}", text, key))


# ---- --explain ------------------------------------------------------------------------------------


def events(outcome: Outcome, kind: str) -> list[dict[str, Any]]:
    found = (json.loads(line) for line in outcome.stderr.splitlines())
    return [event for event in found if event["event"] == kind]


def test_explain_tells_the_key_the_record_and_every_difference_as_data(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nCOPY d /d\nENV A=1 B=1\nRUN :\n"
    context = make_context({"Dockerfile": dockerfile, **{f"d/{n:03}": "" for n in range(80)}})
    img.build(context)
    write(context, "Dockerfile", dockerfile.replace("A=1 B=1", "A=2 B=2"))
    known, missed = events(img.build(context, "--explain", "--progress", "json"), "StepExplained")
    assert known["hit"]
    assert known["record"] == known["key"]
    assert known["created"]
    assert not missed["hit"]
    assert missed["record"] not in ("", missed["key"])
    assert [one["text"] for one in missed["differences"]] == ["env A: 1 -> 2", "env B: 1 -> 2"]
    assert missed["differences"][0] == {
        "field": "env", "name": "A", "change": "changed", "old": "1", "new": "2", "text": "env A: 1 -> 2"
    }  # fmt: skip
    for number in range(80):
        write(context, f"d/{number:03}", "x")
    copied, ran = events(img.build(context, "--explain", "--progress", "json"), "StepExplained")
    assert (len(copied["differences"]), copied["more"]) == (50, 30)
    assert ran["why"].startswith("what is below changed: Dockerfile:2 COPY")
    done = events(img.build(context, "--progress", "json"), "StepDone")
    assert [event["key"] for event in done if event["key"]] == [copied["key"], ran["key"]]


def test_explain_tells_people_the_same(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nENV A=1\nRUN : one\n"})
    img.build(context)
    hit = img.build(context, "--explain").stderr
    assert "   hit: the record of this key, made 20" in hit
    assert "Using cache" in hit
    write(context, "Dockerfile", f"FROM {busybox_image}\nENV A=2\nRUN : two\n")
    text = img.build(context, "--explain").stderr
    lines = [line.strip() for line in text.splitlines() if line.startswith("   ")]
    assert lines[0].startswith("key ")
    assert lines[1] == "miss: args changed, env A: 1 -> 2"
    assert lines[2].startswith("nearest record ")
    assert lines[3:] == ["args changed", "- /bin/sh -c : one", "+ /bin/sh -c : two", "env A: 1 -> 2"]


@pytest.mark.parametrize("word", ["Dockerfile:3", "3", ": two"])
def test_a_step_of_the_last_build_is_explained_after_the_fact(
    word: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nENV A=1\nRUN : one\nRUN : two\n"})
    img.build(context)
    write(context, "Dockerfile", f"FROM {busybox_image}\nENV A=2\nRUN : one\nRUN : two\n")
    img.build(context)
    (found,) = img.ok("cache", "explain", word, "--json").json()
    assert found["where"] == ("Dockerfile:3" if word == "Dockerfile:3" else "Dockerfile:4")
    assert found["step"]["why"] == "env A: 1 -> 2"
    text = img.ok("cache", "explain", word).stdout
    assert "miss: env A: 1 -> 2" in text
    img.build(context)
    assert "hit: the record of this key" in img.ok("cache", "explain", word).stdout


def test_without_a_word_every_step_is_told_of_in_order(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nENV A=1\nRUN : one\nRUN : two\n"})
    img.build(context)
    told = img.ok("cache", "explain", "--json").json()
    assert [one["where"] for one in told] == ["Dockerfile:2", "Dockerfile:3", "Dockerfile:4"]


def test_steps_without_a_key_are_told_from_those_that_there_are_none_of(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.fails(5, "cache", "explain", "1")
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nENV A=1\nRUN false\nRUN : two\n"})
    img.fails(1, "build", context)
    assert "no cache key of its own" in img.ok("cache", "explain", "Dockerfile:1").stdout
    assert "no cache key" in img.ok("cache", "explain", "Dockerfile:2").stdout
    assert "first build of this step" in img.ok("cache", "explain", "Dockerfile:3").stdout
    assert "did not come to this step" in img.ok("cache", "explain", "Dockerfile:4").stdout
    assert "history inspect" in img.fails(2, "cache", "explain", "nothing of the kind").stderr
    write(context, "Dockerfile", "FROM\n")
    img.fails(2, "build", context)
    assert "nothing is known of any step" in img.fails(2, "cache", "explain").stderr


def test_the_record_of_every_build_keeps_what_was_said_of_its_steps(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nENV A=1\nRUN : one\n"
    context = make_context({"Dockerfile": dockerfile})
    img.build(context)
    write(context, "Dockerfile", dockerfile.replace("A=1", "A=2"))
    img.build(context, tag="app")
    img.build(context)
    whole = img.ok("history", "inspect", "--json", "app").json()
    run = whole["steps"][-1]
    assert run["text"] == "RUN : one"
    assert run["why"] == "env A: 1 -> 2"
    assert not run["explained"]["hit"]
    assert run["explained"]["record"] not in ("", run["key"])
    assert [one["text"] for one in run["explained"]["differences"]] == ["env A: 1 -> 2"]
    for build in ("app", "^1", whole["id"]):
        (found,) = img.ok("cache", "explain", "RUN : one", "--build", build, "--json").json()
        assert (found["build"], found["step"]["why"]) == (whole["id"], run["why"])
    with Client(state=img.state) as client:
        (newest,) = client.explain(":3")
        (before,) = client.explain(2, build="^1")
        (kept,) = client.build_record("^1").find_steps(":3")
    assert newest.step is not None
    assert newest.step.hit
    assert before.step == kept.explained
    assert before.step is not None
    assert before.step.differences[0]["new"] == "2"


def test_a_record_of_another_version_is_refused_by_name(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nRUN :\n"}))
    (path,) = img.state.glob("logs/*/build.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 9}))
    assert "has version 9; this img knows 1" in img.fails(5, "cache", "explain").stderr


def test_a_build_that_runs_is_explained_where_it_is_asked_for(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN : one\nRUN : two\n"})
    img.build(context)
    waits = "RUN echo begun; while true; do usleep 20000; done"
    write(context, "Dockerfile", f"FROM {busybox_image}\nRUN : one\n{waits}\n")
    process = img.start("build", context)
    assert process.stdout is not None
    assert any(b"begun" in line for line in process.stdout)
    (running,) = img.ok("history", "-q", "--filter", "status=running").stdout.split()
    assert [one["step"]["hit"] for one in explained(img, "--build", running)] == [True, False]
    assert [one["build"] for one in explained(img)] != [running, running]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert [one["build"] for one in explained(img)] == [running, running]


def explained(img: Img, *flags: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = img.ok("cache", "explain", "--json", *flags).json()
    return found


def test_a_build_argument_that_is_called_a_secret_is_told_without_its_values(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nARG API_TOKEN\nRUN :\n"})
    values = ("correct-horse", "battery-staple")
    for value in values:
        outcome = img.build(context, "--explain", "--build-arg", f"API_TOKEN={value}")
    assert reason(outcome, "RUN") == "env API_TOKEN changed"
    kept = b"".join(path.read_bytes() for path in img.state.glob("logs/*/*"))
    for value in values:
        assert value not in outcome.text + img.ok("cache", "explain").stdout
        assert value.encode() not in kept


# ---- the lists of files ---------------------------------------------------------------------------


def test_a_list_of_files_is_kept_once_and_goes_with_its_records(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "1"})
    img.build(context)
    write(context, "Dockerfile", "FROM scratch\nCOPY a /b\n")
    img.build(context)
    listings = img.state / "listings"
    assert len(list(listings.iterdir())) == 1
    img.ok("prune", "--all")
    assert list(listings.iterdir()) == []


def test_a_lost_list_costs_the_names_and_nothing_else(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "1"})
    img.build(context)
    for path in (img.state / "listings").iterdir():
        path.write_bytes(b"damaged")
    write(context, "a", "2")
    assert reason(img.build(context), "[copy") == "the files changed"


# ---- equal output ---------------------------------------------------------------------------------


def test_a_run_that_gives_the_same_bytes_lets_all_that_follows_hit_and_the_image_stay(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    mounted = "RUN --mount=type=bind,target=/c"
    context = make_context(
        {
            "Dockerfile": f"FROM {busybox_image}\n{mounted} wc -l < /c/in > /lines\n"
            f"{mounted} test -s /c/in\nRUN cp /lines /copied\n",
            "in": "one\n",
        }
    )
    img.build(context)
    before = img.image()
    write(context, "in", "two\n")
    outcome = img.build(context)
    assert reason(outcome, "wc -l") == "mounted: in changed (4 bytes)"
    assert reason(outcome, "test -s") == "mounted: in changed (4 bytes)"
    assert reason(outcome, "cp /lines") == ""
    assert img.image().digest == before.digest


def test_a_build_without_cache_gives_the_same_image_where_every_step_gives_the_same_bytes(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nCOPY a /a\nRUN cat /a > /b\nRUN :\nWORKDIR /w\n", "a": "1"}
    )
    img.build(context)
    before = img.image().digest
    img.build(context, "--no-cache")
    assert img.image().digest == before


# ---- secrets that count ---------------------------------------------------------------------------


def test_a_secret_that_counts_misses_where_it_changed_and_shows_nowhere(
    img: Img, make_img: MakeImg, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN --mount=type=secret,id=k cat /run/secrets/k > /dev/null\n"
    context = make_context({"Dockerfile": dockerfile})
    secret = tmp_path / "k"
    flag = f"id=k,src={secret},cache=hash"
    secret.write_text("1234")
    img.build(context, "--secret", flag)
    assert reason(img.build(context, "--secret", flag), "RUN") == ""
    secret.write_text("battery staple")
    assert reason(img.build(context, "--secret", flag), "RUN") == "the secret k changed"
    assert (
        reason(img.build(context, "--secret", f"id=k,src={secret}"), "RUN") == "the secret k counts no more"
    )
    key = img.state / "private.key"
    assert key.stat().st_mode & 0o777 == 0o600
    other = make_img()
    other.build(context, "--secret", flag)
    digests = [keyed(one) for one in (img, other)]
    assert digests[0] & digests[1] == set()
    kept = b"".join(path.read_bytes() for path in img.state.glob("*") if path.is_file())
    assert b"battery staple" not in kept


def keyed(img: Img) -> set[str]:
    """The digests that stand for secrets in the records of a store."""
    with closing(sqlite3.connect(img.state / "img.db")) as database:
        rows = database.execute("SELECT inputs FROM records").fetchall()
    return {digest for (text,) in rows for _, digest in json.loads(text).get("secrets", ())}


@pytest.mark.parametrize("flag", ["id=k,src=k,cache=maybe", "id=k,src=k,cache"])
def test_a_secret_knows_no_other_way_to_count(flag: str, img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\n", "k": ""})
    assert "cache" in img.fails(2, "build", "--secret", flag, ".", cwd=context).stderr


# ---- --context-normalize=git ----------------------------------------------------------------------


def git(root: Path, *words: str) -> None:
    """git as its user has it, with a name for commits; runs in a folder of this test."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(root.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "-C", str(root), *words], env=environment, check=True, capture_output=True)


@pytest.fixture
def work_tree(make_context: Context, busybox_image: str) -> Path:
    root = make_context(
        {
            "Dockerfile": f"FROM {busybox_image}\nCOPY src /src\n"
            "RUN --mount=type=bind,source=src,target=/m stat -c %a /m/plain /m/run /m/d > /modes\n",
            "src/plain": "p",
            "src/run": "r",
            "src/d/x": "x",
            "src/new": "n",
        }
    )
    (root / "src/run").chmod(0o755)
    (root / "src/link").symlink_to("plain")
    git(root, "init", "-q")
    git(root, "add", "Dockerfile", "src/plain", "src/run", "src/d", "src/link")
    return root


def test_another_umask_neither_misses_nor_changes_the_image(img: Img, work_tree: Path) -> None:
    img.build(work_tree, "--context-normalize=git")
    before = img.image()
    for name, mode in (
        ("plain", 0o664), ("run", 0o775), ("d/x", 0o600), ("d", 0o2775), ("new", 0o660), (".", 0o700),
    ):  # fmt: skip
        (work_tree / "src" / name).chmod(mode)
    outcome = img.build(work_tree, "--context-normalize=git")
    assert reason(outcome, "[copy") == reason(outcome, "stat -c") == ""
    fresh = img.build(work_tree, "--context-normalize=git", "--no-cache")
    assert reason(fresh, "[copy") == "--no-cache"
    after = img.image()
    assert after.digest == before.digest
    modes = {name: after.tree[f"src/{name}"].mode for name in ("plain", "run", "d", "d/x", "new")}
    assert modes == {"plain": 0o644, "run": 0o755, "d": 0o755, "d/x": 0o644, "new": 0o644}
    assert after.text("modes").split() == ["644", "755", "755"]


def test_the_index_says_what_is_executable_not_the_disk(img: Img, work_tree: Path) -> None:
    git(work_tree, "update-index", "--chmod=+x", "src/plain")
    img.build(work_tree, "--context-normalize=git")
    assert img.image().tree["src/plain"].mode == 0o755


def test_a_folder_that_is_no_work_tree_is_refused(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": ""})
    outcome = img.fails(2, "build", "--context-normalize=git", context)
    assert "is no work tree of git" in outcome.stderr
