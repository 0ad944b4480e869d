"""What builds leave: records of every end, whole logs, and what other programs read of a result."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from img import Client, StoreError
from img.errors import UsageError

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.command import Img
from tests.support.orphans import Orphans

pytestmark = pytest.mark.once

DEADLINE = 60


def record(img: Img, *build: str) -> Any:
    return img.ok("history", "inspect", "--json", *build).json()


def logs(img: Img, *words: str) -> bytes:
    """Standard output of `img logs`, byte by byte."""
    done = subprocess.run(
        img.command("logs", *words), env=img.environment(), capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps(document: Any) -> dict[str, Any]:
    """The document's steps by title."""
    return {step["title"]: step for step in document["steps"]}


def wait_for_line(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    for line in process.stdout:
        seen += line
        if text in line:
            return
    raise AssertionError(f"{text!r} never came:\n{seen.decode()}")


# ---- every end of a build ------------------------------------------------------------------------


def test_a_build_leaves_its_plan_its_times_its_keys_and_its_result(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS one\nRUN echo one > /one\n"
        f"FROM {busybox_image}\nRUN usleep 300000; echo said\nCOPY --from=one /one /one\nENV A=1\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    result = img.ok("build", "--json", "-t", "me/app", "--build-arg", "V=3", context).json()
    found = record(img, result["build"])
    assert found["version"] == 1
    assert found["status"] == "done"
    assert found["request"]["context"] == str(context)
    assert found["request"]["build_args"] == {"V": "3"}
    assert found["result"]["digest"] == result["digest"]
    assert found["moved"]["pull"]["bytes"] > 100_000
    run = next(s for title, s in steps(found).items() if "usleep" in title)
    copy = next(s for title, s in steps(found).items() if "copy" in title)
    assert run["kind"] == "run"
    assert run["where"] == "Dockerfile:4"
    assert run["status"] == "done"
    assert 0.3 <= run["seconds"] <= found["seconds"]
    assert run["log_bytes"] == 5
    assert len(run["key"]) == 64
    assert run["number"] in copy["inputs"]
    assert found["critical_path"]["steps"] == [run["number"], copy["number"]]
    assert found["critical_path"]["seconds"] >= 0.3
    again = img.ok("build", "--json", "-t", "me/app", context).json()
    cached = record(img)
    assert cached["id"] == again["build"] != result["build"]
    assert {s["status"] for s in cached["steps"] if s["kind"] == "run"} == {"cached"}
    keys = [{s["title"]: s["key"] for s in r["steps"] if s["kind"] == "run"} for r in (cached, found)]
    assert keys[0] == keys[1]


def test_history_lists_builds_newest_first_with_how_they_ended(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n"}), tag="good:1")
    bad = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo why; exit 3\n"})
    failed = img.fails(1, "build", "-t", "bad:1", bad)
    img.fails(2, "build", "-t", "ugly:1", make_context({"Dockerfile": "FROM scratch\nRUNN x\n"}))
    rows = img.ok("history", "--json").json()
    assert [(row["name"], row["status"]) for row in rows] == [
        ("ugly:1", "failed"),
        ("bad:1", "failed"),
        ("good:1", "done"),
    ]
    assert rows[2]["steps"] == 1
    lines = img.ok("history").stdout.splitlines()
    assert lines[0].split() == ["BUILD", "NAME", "STATUS", "STARTED", "DURATION", "CACHED"]
    assert [line.split()[0] for line in lines[1:]] == [row["id"] for row in rows]
    assert img.ok("history", "-q", "--filter", "status=done").stdout.split() == [rows[2]["id"]]
    assert img.ok("history", "-q", "-n", "1").stdout.split() == [rows[0]["id"]]
    assert img.ok("history", "ls", "-f", "name=bad*", "--format", "{id}").stdout.split() == [rows[1]["id"]]
    assert img.fails(2, "history", "-f", "status=gone").text.count("interrupted") == 1
    found = record(img, "bad:1")
    assert found["error"]["kind"] == "BuildError"
    assert found["error"]["exit_code_of_step"] == 3
    step = next(s for s in found["steps"] if s["status"] == "failed")
    assert step["exit_code"] == 3
    assert f"img logs {found['id']} {step['number']}" in failed.text
    assert logs(img, found["id"], str(step["number"])) == b"why\n"
    assert "RUNN" in record(img, "ugly:1")["error"]["text"]


def test_a_quiet_build_that_fails_has_its_output_in_the_logs(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    steps = "RUN i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exit 1\n"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{steps}"})
    for flag in ("-q", "--progress=quiet"):
        outcome = img.fails(1, "build", flag, "--no-cache", context)
        assert "line 0\n" not in outcome.text
        assert logs(img, "RUN") == b"".join(b"line %d\n" % n for n in range(100))


def test_an_interrupted_and_a_killed_build_say_so_and_keep_what_was_written(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN echo begun; while true; do usleep 100000; done\nRUN echo never\n"
    context = make_context({"Dockerfile": dockerfile})
    for number, status in ((signal.SIGINT, "interrupted"), (signal.SIGKILL, "killed")):
        with Orphans() as orphans:
            process = img.start("build", "-t", "t", context)
            wait_for_line(process, b"begun\n")
            during = record(img)
            assert during["status"] == "running"
            assert next(s for s in during["steps"] if s["kind"] == "run")["status"] == "running"
            process.send_signal(number)
            process.wait(DEADLINE)
            assert orphans.left(DEADLINE) == []
        after = record(img)
        assert after["id"] == during["id"]
        assert after["status"] == status
        first, second = (s for s in after["steps"] if s["kind"] == "run")
        assert (first["status"], second["status"]) == ("stopped", "waiting")
        assert first["log_bytes"] == 6
        assert logs(img, str(first["number"])) == b"begun\n"
    assert [row["status"] for row in img.ok("history", "--json").json()] == ["killed", "interrupted"]
    img.ok("history", "inspect")


# ---- logs ----------------------------------------------------------------------------------------


def test_fifty_megabytes_of_any_bytes_are_kept_to_the_byte(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    noise = os.urandom(10_000_000)
    dockerfile = f"FROM {busybox_image}\nCOPY noise /noise\nRUN for i in 1 2 3 4 5; do cat /noise; done\n"
    img.ok("build", "-q", make_context({"Dockerfile": dockerfile, "noise": noise}))
    found = logs(img, "for i")
    assert len(found) == 50_000_000
    assert hashlib.sha256(found).digest() == hashlib.sha256(noise * 5).digest()


def test_logs_of_steps_that_run_at_once_are_apart_and_are_named_in_many_ways(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    one = "for i in 1 2 3 4 5; do echo NAME; usleep 10000; done; printf end"
    stages = "".join(
        f"FROM {busybox_image} AS {name}\nRUN {one.replace('NAME', name)}; touch /{name}\n"
        for name in ("one", "two")
    )
    dockerfile = f"{stages}FROM {busybox_image}\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    context = make_context({"Dockerfile": dockerfile})
    build = img.ok("build", "--json", "--jobs", "2", "-t", "app", context).json()["build"]
    first, second = (s for s in record(img)["steps"] if s["kind"] == "run")
    wanted = b"one\n" * 5 + b"end"
    for words in (
        (str(first["number"]),), ("Dockerfile:2",), (":2",), ("echo one",), ("ECHO ONE",),
        (build, ":2"), (build[:6], ":2"), ("app", ":2"), ("^0", ":2"),
    ):  # fmt: skip
        assert logs(img, *words) == wanted, words
    heads = [f"#{s['number']} {s['where']} {s['title']}\n".encode() for s in (first, second)]
    everything = heads[0] + wanted + b"\n" + heads[1] + wanted.replace(b"one", b"two")
    assert logs(img) == logs(img, build) == logs(img, "printf") == everything
    outcome = img.fails(2, "logs", "no such step")
    assert "history inspect" in outcome.text
    img.fails(5, "logs", "nobuild", ":2")
    img.fails(5, "logs", "^9")
    img.fails(2, "logs", "a", "b", "c")


def test_following_shows_a_running_build_of_another_process_to_its_end(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    """The build waits for a file that is written once its first line was followed."""
    dockerfile = (
        f"FROM {busybox_image}\nRUN --mount=type=cache,target=/c echo first; touch /c/here;"
        " while [ ! -e /c/go ]; do usleep 20000; done; echo second\nRUN echo third\n"
    )
    process = img.start("build", "-t", "t", make_context({"Dockerfile": dockerfile}))
    wait_for_line(process, b"first\n")
    assert img.ok("history", "-q", "--filter", "status=running").stdout.split()
    follower = img.start("logs", "-f")
    wait_for_line(follower, b"first\n")
    assert follower.poll() is None
    assert process.poll() is None
    (here,) = (img.state / "cache-mounts").glob("*/data")
    subprocess.run(hosts.inside("touch", str(here / "go")), check=True)
    output, _ = follower.communicate(timeout=DEADLINE)
    process.communicate(timeout=DEADLINE)
    assert follower.returncode == 0
    assert output.splitlines()[0] == b"second"
    assert output.splitlines()[-1] == b"third"
    assert logs(img, "-f", "third") == logs(img, "third") == b"third\n"


# ---- what goes -----------------------------------------------------------------------------------


def test_du_counts_logs_and_prune_rm_and_time_take_them(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN head -c 3000000 /dev/zero\n"})
    for _ in range(3):
        img.ok("build", "-q", "--no-cache", "-t", "t", context)
    ids = img.ok("history", "-q").stdout.split()
    usage = img.ok("du", "--json").json()
    assert usage["logs_bytes"] > 9_000_000
    assert usage["reclaimable_bytes"] > 9_000_000
    assert img.ok("du").stdout.count("Logs:") == 1
    assert img.ok("history", "rm", "^1").stdout.split() == [ids[1]]
    assert img.ok("history", "-q").stdout.split() == [ids[0], ids[2]]
    assert not (img.state / "logs" / ids[1]).exists()
    img.ok("prune")
    assert img.ok("history", "-q").stdout.split() == [ids[0], ids[2]]
    _age(img, ids[2], seconds=8 * 24 * 3600)
    assert img.ok("prune", "--json").json()["builds"] == 1
    assert img.ok("history", "-q").stdout.split() == [ids[0]]
    freed = img.ok("prune", "--all", "--json").json()
    assert freed["builds"] == 1
    assert freed["freed_bytes"] > 3_000_000
    assert img.ok("history", "-q").stdout == ""
    assert list((img.state / "logs").iterdir()) == []
    img.fails(5, "history", "inspect")
    img.fails(2, "history", "rm")


def _age(img: Img, build: str, *, seconds: float) -> None:
    """Makes a build older than it is."""
    import sqlite3

    with sqlite3.connect(img.state / "img.db") as database:
        database.execute("UPDATE builds SET started=started-? WHERE id=?", (seconds, build))
    database.close()


def test_prune_all_leaves_the_record_of_a_build_that_runs(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN echo begun; while true; do usleep 50000; done\n"
    process = img.start("build", make_context({"Dockerfile": dockerfile}))
    wait_for_line(process, b"begun\n")
    img.ok("prune", "--all")
    img.ok("history", "rm", "--all")
    (running,) = img.ok("history", "-q").stdout.split()
    assert "is running" in img.fails(5, "history", "rm", running).text
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert logs(img).endswith(b"begun\n")
    img.ok("history", "rm", "--all")
    assert img.ok("history", "-q").stdout == ""


# ---- secrets -------------------------------------------------------------------------------------


def test_nothing_secret_is_in_a_record(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    secret = "correct-horse-battery-staple"
    (tmp_path / "file").write_text(secret + "-file")
    dockerfile = (
        f"FROM {busybox_image}\nARG API_TOKEN\nARG https_proxy\n"
        'RUN --mount=type=secret,id=f --mount=type=secret,id=e,env=E test -n "$E" && test -s /run/secrets/f\n'
    )
    context = make_context({"Dockerfile": dockerfile, "extra/x": ""})
    img.ok(
        "build", "-t", "t", f"--secret=id=f,src={tmp_path / 'file'}", "--secret=id=e,env=SECRET",
        f"--build-arg=API_TOKEN={secret}", f"--build-arg=https_proxy=http://u:{secret}@127.0.0.1:1",
        f"--build-context=x={context / 'extra'}",
        context, env={"SECRET": secret + "-env"},
    )  # fmt: skip
    img("build", f"https://user:{secret}@127.0.0.1:1/repo.git?token={secret}#main")
    assert img.ok("history", "-q").stdout.count("\n") == 2
    found = record(img, "t")["request"]
    assert found["secrets"] == ["e", "f"]
    assert found["build_args"] == {"API_TOKEN": None, "https_proxy": None}
    for path in (img.state / "logs").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name == "build.json"
    everything = img.ok("history", "--json").stdout + img.ok("history", "inspect").stdout
    assert secret not in everything


def test_a_secret_that_a_step_prints_is_stars_on_the_screen_in_the_log_and_in_the_error(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    secret = "correct-horse-battery-staple"
    (tmp_path / "file").write_text(secret)
    dockerfile = (
        f"FROM {busybox_image}\n"
        "RUN --mount=type=secret,id=k,env=K set -x; : $K; set +x;"
        " printf 'correct-horse-'; usleep 50000; printf 'battery-staple'; exit 3\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    outcome = img.fails(1, "build", f"--secret=id=k,src={tmp_path / 'file'}", context)
    assert secret not in outcome.text.replace("printf", "")
    assert "***" in outcome.text
    (run,) = (s for s in record(img)["steps"] if s["kind"] == "run")
    assert logs(img).endswith(b"***")
    assert secret.encode() not in (img.state / f"logs/{record(img)['id']}/{run['number']}.log").read_bytes()
    assert secret not in img.ok("history", "inspect", "--json").stdout


# ---- an image's own history ----------------------------------------------------------------------


def test_history_of_an_image_shows_its_lines(img: Img, make_context: Context, busybox_image: str) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN head -c 5000 /dev/zero > /z\nENV A=1\n"
    img.build(make_context({"Dockerfile": dockerfile}), tag="me/app")
    rows = img.ok("history", "me/app", "--json").json()
    assert [row["created_by"].split()[0] for row in rows[:2]] == ["ENV", "RUN"]
    assert rows[0]["layer"] == ""
    assert rows[1]["size"] > 5000
    assert rows[1]["layer"].startswith("sha256:")
    lines = img.ok("history", "image", "me/app", "--no-trunc").stdout.splitlines()
    assert lines[0].split() == ["LAYER", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert len(lines) == 1 + len(rows)
    assert "img history inspect?" in img.fails(5, "history", "inspct").text
    build = img.ok("history", "-q").stdout.strip()
    assert f"img history inspect {build}" in img.fails(5, "history", build).text


# ---- files for other programs --------------------------------------------------------------------


def test_the_metadata_has_dockers_fields_and_the_build(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n"})
    flags = ("--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "m")
    img.ok("build", *flags, "-t", "t", "-t", "u:2", context)
    data = json.loads((tmp_path / "m").read_text())
    assert (tmp_path / "id").read_bytes() == data["containerimage.config.digest"].encode()
    assert data["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert data["containerimage.descriptor"]["digest"] == data["containerimage.digest"]
    assert data["containerimage.descriptor"]["platform"]["os"] == "linux"
    blob = img.state / "oci/blobs/sha256" / data["containerimage.digest"][7:]
    assert data["containerimage.descriptor"]["size"] == blob.stat().st_size
    assert data["image.name"] == "docker.io/library/t:latest,docker.io/library/u:2"
    assert data["img.build.ref"] == img.ok("history", "-q").stdout.strip()
    assert json.loads(Path(data["img.build.record"]).read_text())["id"] == data["img.build.ref"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".part")) == []


def test_the_metadata_of_several_targets_and_platforms_has_each(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    dockerfile = "FROM scratch AS a\nCOPY f /a\nFROM scratch AS b\nCOPY f /b\n"
    context = make_context({"Dockerfile": dockerfile, "f": ""})
    flags = ("--target=a", "--target=b", "--platform=linux/amd64,linux/arm64", "-t", "a=one", "-t", "b=two")
    img.ok("build", *flags, "--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "m", context)
    data = json.loads((tmp_path / "m").read_text())
    assert list(data["img.targets"]) == ["a", "b"]
    assert data["containerimage.descriptor"] == data["img.targets"]["b"]["containerimage.descriptor"]
    for target, name in (("a", "one"), ("b", "two")):
        found = data["img.targets"][target]
        assert found["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
        assert found["containerimage.digest"] == found["containerimage.descriptor"]["digest"]
        assert found["image.name"] == f"docker.io/library/{name}:latest"
    assert (tmp_path / "id").read_text() == data["id"]
    assert len(data["images"]) == 4
    row = img.ok("history", "--json").json()[0]
    assert row["names"] == ["docker.io/library/one:latest", "docker.io/library/two:latest"]
    assert record(img, "one")["request"]["tags"] == ["a=one", "b=two"]


def test_a_build_that_fails_leaves_no_files_of_an_earlier_one(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    flags = ("--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "m")
    img.ok("build", *flags, make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n"}))
    assert (tmp_path / "id").exists()
    bad = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN false\n"})
    img.fails(1, "build", *flags, bad)
    assert not (tmp_path / "id").exists()
    assert not (tmp_path / "m").exists()
    missing = img.fails(2, "build", "--iidfile", tmp_path / "none/id", bad)
    assert "--iidfile: there is no folder" in missing.text
    assert "is a folder" in img.fails(2, "build", "--metadata-file", tmp_path, bad).text


@pytest.mark.parametrize("flag", ["--iidfile", "--metadata-file"])
def test_a_device_is_written_into_and_stays_one(
    flag: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n"})
    assert "sha256:" in img.ok("build", flag, "/dev/stdout", context).stdout
    assert Path("/dev/stdout").is_symlink()


# ---- the library ---------------------------------------------------------------------------------


def test_the_library_reads_the_same(make_img: MakeImg, make_context: Context, busybox_image: str) -> None:
    img = make_img()
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo one\nRUN echo two\n"})
    with Client(state=img.state) as client:
        with pytest.raises(StoreError):
            client.build_record()
        result = client.build(context, tag="me/app")
        (row,) = client.history()
        assert (row.id, row.name, row.status, row.steps) == (result.build, "me/app:latest", "done", 2)
        assert row.image == result.digest
        found = client.build_record("me/app")
        assert [s.kind for s in found.steps] == ["source", "run", "run"]
        assert all(s.status == "done" for s in found.steps if s.shown)
        assert client.logs() == b"one\ntwo\n"
        assert client.logs(step=":3") == client.logs(row.id, found.steps[2].number) == b"two\n"
        with pytest.raises(UsageError):
            client.logs(step="three")


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_build_whose_caller_goes_ends_and_says_that_it_was_interrupted(
    how: str, make_img: MakeImg, make_context: Context, busybox_image: str
) -> None:
    """Ctrl-C in a terminal reaches the worker twice: by itself, and as the end of its input."""
    img = make_img()
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nRUN echo begun; while true; do usleep 50000; done\n"}
    )
    script = (
        "import img, sys\n"
        "def show(event):\n"
        "    if type(event).__name__ == 'StepOutput': print(event.text, flush=True)\n"
        "img.Client(state=sys.argv[1], progress=show).build(sys.argv[2])\n"
    )
    command = ["env", "--default-signal=INT", sys.executable, "-c", script, str(img.state), str(context)]
    with Orphans() as orphans:
        caller = subprocess.Popen(
            command, env=img.environment(), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_line(caller, b"begun\n")
        if how == "killed":
            caller.kill()
        else:
            os.killpg(caller.pid, signal.SIGINT)
        caller.communicate(timeout=DEADLINE)
        assert orphans.left(DEADLINE) == []
    found = record(img)
    assert (found["status"], "error" in found) == ("interrupted", False)
