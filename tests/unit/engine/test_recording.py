"""What the recorder makes of a request, of a plan's times, and of a disk that fails it."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from img.builder.graph import Node, RunOp
from img.engine import BuildRequest
from img.engine.recording import Recorder, critical_path, describe
from img.oci import Platform
from img.progress import Event, Note, StepDone, StepExplained, StepStarted, Transfer
from img.store import Store
from img.values import replace


def step(number: int, seconds: float, *inputs: int, status: str = "done") -> dict[str, Any]:
    return {"number": number, "seconds": seconds, "inputs": list(inputs), "status": status}


def test_the_critical_path_is_the_chain_that_took_longest() -> None:
    steps = [
        step(0, 0),
        step(1, 2, 0),
        step(2, 3, 0),
        step(3, 2, 1),
        step(4, 0.5, 2, 3),
        step(5, 9, 0, status="cached"),
    ]
    assert critical_path(steps) == ([1, 3, 4], 4.5)
    assert critical_path([]) == ([], 0.0)
    assert critical_path([step(0, 0), step(1, 4, 0, status="cached")]) == ([], 0.0)


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        step(
            n,
            draw(st.integers(0, 9)),
            *draw(st.sets(st.integers(0, n - 1), max_size=3) if n else st.just(set())),
        )
        for n in range(draw(st.integers(0, 9)))
    ]


@given(graphs())
def test_no_chain_of_a_graph_is_longer_than_its_critical_path(steps: list[dict[str, Any]]) -> None:
    path, seconds = critical_path(steps)
    by_number = {s["number"]: s for s in steps}
    assert sum(by_number[n]["seconds"] for n in path) == seconds

    def longest(number: int) -> float:
        below = max((longest(n) for n in by_number[number]["inputs"]), default=0)
        return float(by_number[number]["seconds"]) + below

    assert seconds == max((longest(n) for n in by_number), default=0)

    def reaches(upper: int, lower: int) -> bool:
        return any(n == lower or reaches(n, lower) for n in by_number[upper]["inputs"])

    assert all(reaches(upper, lower) for lower, upper in pairwise(path))


def test_a_request_is_described_without_its_secrets() -> None:
    secret = "s3cr3t"
    request = BuildRequest(
        context=f"https://user:{secret}@example.org/repo.git?key={secret}#main",
        dockerfile=f"https://user:{secret}@example.org/Dockerfile",
        tags=("app",),
        build_args={"V": "1", "DB_PASSWORD": secret, "HTTP_PROXY": f"http://u:{secret}@proxy"},
        contexts={"a": f"https://user:{secret}@example.org/a.tar", "b": f"git@example.org:b?{secret}"},
        secret_files={"k": f"/{secret}"},
        secret_values={"v": secret},
        agents={"default": (f"/{secret}",)},
        cache_to=(f"type=s3,bucket=b,secret_access_key={secret},session_token={secret}",),
        cache_from=(f"type=gha,token={secret},scope=main",),
    )
    data = describe(request)
    assert secret not in str(data)
    assert data["context"] == "https://example.org/repo.git"
    assert data["build_args"] == {"V": "1", "DB_PASSWORD": None, "HTTP_PROXY": None}
    assert data["secrets"] == ["k", "v"]
    assert data["cache_to"] == ["type=s3,bucket=b"]
    assert data["cache_from"] == ["type=gha,scope=main"]


def test_a_context_may_be_called_anything(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with Recorder(store, BuildRequest(context="/a/\udcff"), lambda event: None) as record:
        record.begin()
    assert store.builds.find().context == "/a/\ufffd"


def plan() -> tuple[Node, ...]:
    platform = Platform("linux", "amd64")
    return (Node(number=0, op=RunOp(args=("true",), env=(), platform=platform), title="RUN true"),)


def test_what_moved_is_counted_once_a_blob_and_steps_that_had_no_end_are_stopped(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with Recorder(store, BuildRequest(context="."), lambda event: None) as record:
        record.begin()
        record.planned(plan())
        for done in (1, 5, 10):
            record(Transfer(action="pull", digest="sha256:a", done_bytes=done, total_bytes=10))
        record(Transfer(action="pull", digest="sha256:b", done_bytes=7, total_bytes=7))
        record(StepStarted(step=0, title="RUN true", why="its text changed"))
        record.write(0, b"\xff\n")
    found = store.builds.record(store.builds.find())
    assert found.moved == {"pull": {"count": 2, "bytes": 17}}
    assert (found.steps[0].status, found.steps[0].why, found.steps[0].log_bytes) == (
        "stopped",
        "its text changed",
        2,
    )
    assert store.builds.log(found.id, 0) == b"\xff\n"


def test_an_explanation_is_read_again_as_it_was_said_while_the_build_runs_and_after(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    said = StepExplained(
        step=0,
        title="RUN true",
        key="k2",
        record="k1",
        created="2026-01-02T03:04:05Z",
        why="env A: 1 -> 2",
        differences=({"field": "env", "name": "A", "text": "env A: 1 -> 2"},),
        more=3,
    )
    with Recorder(store, BuildRequest(context="."), lambda event: None) as record:
        record.begin()
        record.planned(plan())
        record.explained(said)
        record(StepStarted(step=0, title="RUN true", why=said.why))
        assert store.builds.record(store.builds.find()).steps[0].explained == said
        known = replace(said, hit=True, record="k2", why="", differences=(), more=0)
        record.explained(known)
        assert store.builds.record(store.builds.find()).steps[0].explained == known
    found = store.builds.record(store.builds.last())
    assert found.steps[0].explained == known


def test_a_build_that_finds_all_in_the_cache_writes_one_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with Recorder(store, BuildRequest(context="."), lambda event: None) as record:
        record.begin()
        record.planned(plan())
        record.explained(StepExplained(step=0, title="RUN true", key="k", hit=True, record="k"))
        record(StepDone(step=0, title="RUN true", cached=True, key="k"))
        assert not store.builds.folder(record.build).exists()
    assert [path.name for path in store.builds.folder(record.build).iterdir()] == ["build.json"]


def test_a_record_that_cannot_be_written_is_said_once_and_fails_no_build(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    said: list[Event] = []
    with Recorder(store, BuildRequest(context="."), said.append) as record:
        record.begin()
        record.planned(plan())
        shutil.rmtree(store.builds.root)
        record(StepStarted(step=0, title="RUN true"))
        record.write(0, b"lost")
        record(StepDone(step=0, title="RUN true"))
    (note,) = said
    assert isinstance(note, Note)
    assert note.level == "warning"
    assert "record is not whole" in note.text
    assert store.builds.find().status == "done"
