"""Records of builds: who is named by a word, what a journal says, what stays and what goes."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.errors import StoreError, UsageError
from img.store import BuildRow, Store, new_build_id
from img.store import builds as module
from img.store.build_record import BuildRecord, read_journal
from img.store.builds import BuildStore
from img.store.database import Database
from img.store.work import WorkArea


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "state")


def begun(store: Store, build: str, *names: str, age: float = 0.0) -> BuildRow:
    row = BuildRow(
        id=build,
        started=time.time() - age,
        seconds=0.0,
        status="running",
        lease=store.lease().path.name,
        names=names,
        context="/home/me/app",
        dockerfile="",
    )
    store.builds.begin(row)
    return row


def document(build: str, status: str = "done", **more: Any) -> dict[str, Any]:
    step = {"number": 0, "kind": "run", "title": "RUN make", "where": "a/Dockerfile:12", "inputs": []}
    return {
        "version": 1, "id": build, "status": status, "started": 1.0, "seconds": 2.0,
        "request": {"context": "."}, "steps": [{**step, "status": "done"}], **more,
    }  # fmt: skip


def ended(store: Store, build: str, *names: str, age: float = 0.0) -> BuildRow:
    begun(store, build, *names, age=age)
    store.builds.end(build, document(build), image="sha256:0", steps=2, cached=1)
    return store.builds.find(build)


def test_a_word_names_a_build_by_id_beginning_image_and_place(store: Store) -> None:
    old = ended(store, "abc111", "docker.io/library/app:latest", age=30)
    ended(store, "abd222", "docker.io/library/app:latest", age=20)
    new = ended(store, "xyz333", age=10)
    assert store.builds.find() == store.builds.find("^0") == new
    assert store.builds.find("^2") == store.builds.find("abc") == store.builds.find("abc111") == old
    assert store.builds.find("app").id == "abd222"
    assert new.name == "app", "without a name it is called after its context"
    assert store.builds.match("nothing") is None
    with pytest.raises(UsageError, match="several"):
        store.builds.find("ab")
    with pytest.raises(StoreError) as raised:
        store.builds.find("xyz334")
    assert raised.value.hint == "did you mean xyz333?"


def test_a_build_runs_for_as_long_as_its_lease_is_held(store: Store) -> None:
    begun(store, "a1")
    assert store.builds.find().status == "running"
    assert store.builds.record(store.builds.find()).status == "running"
    store.release_lease()
    assert store.builds.find().status == "killed"
    assert store.builds.record(store.builds.find()).status == "killed"


def test_a_build_that_ends_while_it_is_looked_at_is_not_taken_for_a_killed_one(store: Store) -> None:
    """Its process writes how it ended, and goes, between the look at its row and that at its lease."""

    class EndsMeanwhile(WorkArea):
        def held(self, name: str) -> bool:
            if store.work.held(name):
                store.builds.end("a1", document("a1", "interrupted"), image="", steps=1, cached=0)
                store.release_lease()
            return super().held(name)

    begun(store, "a1")
    looking = BuildStore(Database(store.root / "img.db"), store.builds.root, EndsMeanwhile(store.work.root))
    row = looking.find()
    assert (row.status, row.seconds) == ("interrupted", 2.0)
    assert looking.record(row).status == "interrupted"


def test_a_killed_build_is_one_whoever_else_looks_or_sweeps(store: Store) -> None:
    begun(store, "a1")
    lock = store.lease().path.with_suffix(".lock")
    store.release_lease()
    lock.touch()  # as a process that was killed leaves it
    looks = [store.work._locks() for _ in range(2)]
    assert [next(look) for look in looks] == [(lock, False)] * 2
    assert store.builds.find().status == "killed"
    assert (store.work.sweep(), lock.exists()) == (0, False)


def test_a_journal_is_read_up_to_the_line_that_was_cut_off() -> None:
    head = document("a1", "running", steps=[{"number": 3, "kind": "run", "title": "RUN a", "inputs": []}])
    lines = [json.dumps(line).encode() + b"\n" for line in (head, {"number": 3, "status": "running"})]
    done = json.dumps({"number": 3, "status": "done"}).encode()
    assert read_journal([]) is None
    assert read_journal([lines[0][:-1]]) is None
    read = read_journal([*lines, done])
    assert read is not None
    assert read["steps"][0]["status"] == "running"
    read = read_journal([*lines, done + b"\n", b"{"])
    assert read is not None
    assert read["steps"][0]["status"] == "done"


def test_a_document_of_a_newer_version_or_of_another_kind_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="version 2"):
        BuildRecord.from_data({**document("a1"), "version": 2})
    broken = document("a1")
    del broken["started"]
    with pytest.raises(StoreError, match="cannot be read"):
        BuildRecord.from_data(broken)
    row = ended(store, "a1")
    (store.builds.folder("a1") / "build.json").write_text("{")
    with pytest.raises(StoreError, match="is no record"):
        store.builds.record(row)


def test_steps_are_found_by_number_line_and_text() -> None:
    record = BuildRecord.from_data(document("a1"))
    for word in ("0", ":12", "Dockerfile:12", "a/Dockerfile:12", "make", "run MAKE"):
        assert [step.number for step in record.find_steps(word)] == [0], word
    for word in ("1", ":2", ":1", "file:12", "b/Dockerfile:12", "makes"):
        with pytest.raises(UsageError, match="no step"):
            record.find_steps(word)
    copy = {"number": 1, "kind": "copy", "title": "RUN [copy /a /b]", "text": "COPY a /b"}
    source = {"number": 2, "kind": "source", "title": "FROM scratch"}
    record = BuildRecord.from_data(document("a1", steps=[*document("a1")["steps"], copy, source]))
    assert [step.number for step in record.find_steps("copy A")] == [1]
    assert [step.number for step in record.find_steps("")] == [0, 1]
    with pytest.raises(UsageError, match="nothing is known of any step"):
        BuildRecord.from_data(document("a1", steps=[])).find_steps("")


def test_the_last_build_is_the_newest_that_does_not_run(store: Store) -> None:
    with pytest.raises(StoreError, match="no build has ended"):
        store.builds.last()
    last = ended(store, "b2", age=10)
    ended(store, "b1", age=20)
    begun(store, "running")
    assert store.builds.last() == last


def test_only_so_many_records_are_kept_those_of_running_builds_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_BUILDS", 3)
    begun(store, "running", age=100)
    for number in range(5):
        ended(store, f"b{number}", age=10 - number)
    assert [row.id for row in store.builds.all()] == ["b4", "b3", "b2", "running"]
    assert sorted(path.name for path in store.builds.root.iterdir()) == ["b2", "b3", "b4"]


def test_prune_takes_what_ended_before_and_folders_without_a_row(store: Store) -> None:
    begun(store, "running", age=100)
    ended(store, "old", age=50)
    ended(store, "new", age=1)
    stray = store.builds.folder("stray")
    stray.mkdir()
    (stray / "1.log").write_bytes(b"x" * 10_000)
    count, freed = store.builds.prune(ended_before=time.time() - 20)
    assert count == 1
    assert freed >= 10_000
    assert [row.id for row in store.builds.all()] == ["new", "running"]
    assert [path.name for path in store.builds.root.iterdir()] == ["new"]
    with pytest.raises(StoreError, match="is running"):
        store.builds.remove(store.builds.find("running"))


def test_an_id_is_never_taken_for_a_number() -> None:
    assert all(new_build_id()[0].isalpha() for _ in range(200))
    assert len({new_build_id() for _ in range(200)}) == 200


@given(st.text(), st.sampled_from(["done", "failed", "interrupted"]))
def test_a_document_reads_as_it_was_written(title: str, status: str) -> None:
    data = document("a1", status)
    data["steps"][0]["title"] = title
    again = BuildRecord.from_data(json.loads(module.dump_line(data)))
    assert again == BuildRecord.from_data(data)
    assert again.steps[0] == replace(again.steps[0], title=title)
