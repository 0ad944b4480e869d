"""The engine as a process (`python -m img` and the worker behind `Client`), over bases of nothing.

Every image here is FROM scratch, so that neither a registry nor a base is needed; what runs inside one
is for the end-to-end tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from img import Client
from img.errors import DockerfileError, ImageNotFound, ImgError, InvalidReference, UsageError
from img.progress import BuildStarted, Event, StepDone
from img.store import Store

PACKAGES = os.pathsep.join(path for path in sys.path if path)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the store is, or will be."""
    return tmp_path / "state"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with a few files."""
    root = tmp_path / "context"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_text(f"{name}\n")
        (root / name).chmod(0o644)
    return root


@pytest.fixture
def run(state: Path, tmp_path: Path) -> Run:
    """Runs `python -m img` on the store."""

    def start(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": PACKAGES, "LANG": "C.UTF-8"}
        return subprocess.run(
            [sys.executable, "-m", "img", "--state", str(state), *map(str, args)],
            env={**env, **options.pop("env", {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, **options,
        )  # fmt: skip

    return start


def write(context: Path, text: str) -> None:
    (context / "Dockerfile").write_bytes(text.encode("utf-8", "surrogateescape"))


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# ---- building ------------------------------------------------------------------------------------


def test_the_same_build_in_two_stores_at_any_number_of_jobs_gives_the_same_digest(
    run: Run, context: Path, tmp_path: Path
) -> None:
    stages = "".join(f"FROM scratch AS s{n}\nWORKDIR /w{n}\nCOPY a /f{n}\n" for n in range(4))
    write(context, stages + "FROM scratch\n" + "".join(f"COPY --from=s{n} / /\n" for n in range(4)))
    ids = []
    for number, jobs in enumerate(("1", "4")):
        os.utime(context / "a", (2_000_000 + number, 2_000_000 + number))
        store = tmp_path / f"store{number}"
        args = ("--state", store, "build", "-q", "--jobs", jobs, context)
        ids.append(ok(run(*args, env={"SOURCE_DATE_EPOCH": "1000000"})))
    assert ids[0] == ids[1] != ""


def test_a_changed_here_document_is_copied_even_where_the_stage_beside_it_is_the_same(
    run: Run, context: Path, tmp_path: Path
) -> None:
    for text in ("old", "new"):
        write(
            context,
            f"FROM scratch AS s\nCOPY a /a\nFROM scratch\nCOPY --from=s a <<note /d/\n{text}\nnote\n",
        )
        ok(run("build", "-t", text, context))
        ok(run("unpack", "-o", tmp_path / text, text))
        assert (tmp_path / text / "d" / "note").read_text() == f"{text}\n"
        assert (tmp_path / text / "d" / "a").read_text() == "a\n"


def test_a_label_may_hold_stray_bytes_and_a_command_may_not(run: Run, context: Path) -> None:
    write(context, 'FROM scratch\nLABEL a="x\udcff"\nCOPY a /\n')
    ok(run("build", "-t", "t", context))
    assert json.loads(ok(run("inspect", "t")))["config"]["Labels"] == {"a": "x\ufffd"}
    write(context, "FROM scratch\nCOPY a /\udcff\n")
    assert "Dockerfile:2: it holds bytes that are not UTF-8" in refused(run("build", context), 2)


def test_the_ignore_file_beside_the_dockerfile_counts_and_not_one_of_the_present_folder(
    run: Run, context: Path, tmp_path: Path
) -> None:
    write(context, "FROM scratch\nCOPY . /\n")
    (tmp_path / "Dockerfile.dockerignore").write_text("b\n")
    ok(run("build", "-t", "t", "context", cwd=tmp_path))
    ok(run("unpack", "-o", tmp_path / "all", "t"))
    assert (tmp_path / "all" / "b").exists()
    (context / "Dockerfile.dockerignore").write_text("a\n")
    ok(run("build", "-t", "t", "context", cwd=tmp_path))
    ok(run("unpack", "-o", tmp_path / "some", "t"))
    assert not (tmp_path / "some" / "a").exists()
    assert (tmp_path / "some" / "b").exists()


@pytest.mark.parametrize("epoch", ["now", "-1", "99999999999999"])
def test_an_epoch_that_no_date_can_hold_is_refused(run: Run, context: Path, epoch: str) -> None:
    write(context, "FROM scratch\n")
    assert "SOURCE_DATE_EPOCH" in refused(run("build", context, env={"SOURCE_DATE_EPOCH": epoch}), 2)


def test_conditions_of_ls_choose_rows(run: Run, context: Path) -> None:
    write(context, "FROM scratch\nCOPY a /\nCOPY b /\n")
    ok(run("build", "-t", "t", context))
    rows = json.loads(ok(run("ls", "--json")))
    assert len(rows) == 2
    wanted = str(rows[0]["id"])
    for condition in (f"id={wanted}", wanted[:12], f"id=={wanted}", f"diff_id={rows[0]['diff_id']}"):
        assert [row["id"] for row in json.loads(ok(run("ls", "--json", "-f", condition)))] == [wanted]
    assert json.loads(ok(run("ls", "--json", "-f", "mutable=true"))) == []
    assert "'colour' is no condition" in refused(run("ls", "-f", "colour=red"), 2)


# ---- the library's process -----------------------------------------------------------------------


def test_a_client_builds_names_saves_and_loads_with_events_on_the_way(
    state: Path, context: Path, tmp_path: Path
) -> None:
    write(context, "FROM scratch\nCOPY a /\nLABEL l=1\n")
    events: list[Event] = []
    with Client(state, progress=events.append) as client:
        result = client.build(context, tag=["app:1", "app:2"], labels={"team": "infra"})
        assert result.tags == ("docker.io/library/app:1", "docker.io/library/app:2")
        assert (result.steps, result.cached_steps) == (2, 1)
        assert events[0] == BuildStarted(name="app", steps=2)
        assert [event.cached for event in events if isinstance(event, StepDone)] == [False, True]
        assert client.build(context, tag="app:1", labels={"team": "infra"}).id == result.id
        image = client.store.names.get("app:1")
        assert image.config.labels == {"l": "1", "team": "infra"}
        client.save("app:1", tmp_path / "app.tar")
        client.export(image.with_labels(team="other"), f"type=oci,dest={tmp_path / 'other.tar'},name=other:1")
    with Client(tmp_path / "elsewhere") as client:
        assert client.load(tmp_path / "app.tar") == ["docker.io/library/app:1"]
        assert client.store.names.get("app:1").id == result.id
        assert client.load(tmp_path / "other.tar") == ["docker.io/library/other:1"]
        assert client.store.names.get("other:1").config.labels["team"] == "other"


def test_a_clients_errors_are_those_of_the_operation_with_their_fields(state: Path, context: Path) -> None:
    write(context, "FROM scratch\nCOPI a /\n")
    with Client(state) as client:
        with pytest.raises(DockerfileError) as caught:
            client.build(context)
        assert (caught.value.line, caught.value.excerpt) == (2, "COPI a /")
        assert "COPY" in caught.value.hint
        with pytest.raises(ImageNotFound):
            client.tag("missing", "other")
        with pytest.raises(InvalidReference):
            client.tag("missing", "Not A Name")
        with pytest.raises(UsageError):
            client.build("-")
        with pytest.raises(ImgError, match="no such archive"):
            client.load(context / "missing.tar")


def test_a_failed_save_leaves_no_half_archive(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with Client(state) as client, pytest.raises(ImageNotFound):
        client.save("missing", folder / "app.tar")
    assert list(folder.iterdir()) == []


def test_rm_takes_all_names_or_none_and_prune_all_leaves_what_names_need(state: Path, context: Path) -> None:
    write(context, "FROM scratch\nCOPY a /\n")
    with Client(state) as client:
        kept = client.build(context, tag="kept")
        write(context, "FROM scratch\nCOPY b /\n")
        client.build(context, tag="gone")
        with pytest.raises(ImageNotFound):
            client.remove("gone", "missing")
        assert {name.partition(":")[0] for name, _ in client.store.images()} == {
            "docker.io/library/kept",
            "docker.io/library/gone",
        }
        client.remove("gone")
        before = client.usage()
        pruned = client.prune(everything=True)
        assert len(pruned.layers) == 1
        assert before.reclaimable_bytes > 0
        assert client.usage().reclaimable_bytes == 0
        assert abs(before.total_bytes - pruned.freed_bytes - client.usage().total_bytes) < 64 << 10
        assert client.build(context, tag="again").cached_steps == 0
    with Store(state) as store:
        assert store.names.get("kept").id == kept.id


def test_a_worker_that_is_asked_for_what_it_does_not_do_says_so(state: Path) -> None:
    call = {"call": "__init__", "args": {}, "settings": {"state": str(state), "plain_http": []}}
    done = subprocess.run(
        [sys.executable, "-m", "img.worker"], input=json.dumps(call) + "\n", capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": PACKAGES},
    )  # fmt: skip
    assert json.loads(done.stdout)["error"]["text"] == "there is no call '__init__'"
    assert done.returncode == 1


def _ended(worker: subprocess.Popen[str]) -> int:
    """Waits for the end of a worker that waits in a read.

    A signal that comes between Python's last look for one and the read is seen with the next: it is told
    again, which says nothing to a worker that still has a caller.
    """
    for _ in range(60):
        try:
            return worker.wait(timeout=1)
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGIO)
    raise AssertionError("it never ended")


def test_a_worker_whose_caller_is_gone_ends_by_itself(state: Path, context: Path) -> None:
    write(context, "FROM scratch\nCOPY a /\n")
    call = {"call": "build", "settings": {"state": str(state), "plain_http": []}}
    pipe = context / "pipe"
    os.mkfifo(pipe)  # a Dockerfile that never ends coming: the worker waits in the middle of its work
    request = {"context": str(context), "dockerfile": "-", "stdin": str(pipe), "tags": []}
    worker = subprocess.Popen(
        [sys.executable, "-m", "img.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": PACKAGES},
    )  # fmt: skip
    assert worker.stdin is not None
    worker.stdin.write(json.dumps({**call, "args": {"request": request}}) + "\n")
    worker.stdin.flush()
    with open(pipe, "wb"):  # opens once the worker reads it
        worker.stdin.close()
        assert _ended(worker) == 130
    assert worker.stdout is not None
    assert worker.stdout.read() == ""
    worker.stdout.close()
    with Store(state) as store:
        assert store.work.live() == []
