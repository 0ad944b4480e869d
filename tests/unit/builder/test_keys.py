"""Cache keys: canonical, complete, and blind to what must not count."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.builder.graph import CopyOp, CopyPart, InlineFile, Node, Op, RunMount, RunOp
from img.builder.key import EMPTY, CacheKey, stacked
from img.builder.perform import Step, copy_key, quick_run_key, run_key
from img.builder.site import Result, RunOptions, Site
from img.context import Context
from img.executor import Rlimit, SandboxExecutor
from img.oci import Platform
from img.progress import silent
from img.snapshot.overlay import OverlaySnapshotter
from img.store import Store

from .planning import AMD64, ARM64, Bases

values = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
inputs = st.dictionaries(
    st.from_regex("[a-z]{1,6}", fullmatch=True).filter(lambda n: n not in ("op", "v")), values
)


@given(inputs, st.randoms())
def test_the_order_of_inputs_does_not_change_a_key(fields: dict[str, Any], chance: random.Random) -> None:
    names = list(fields)
    chance.shuffle(names)
    shuffled = CacheKey.make("run", **{name: fields[name] for name in names})
    assert shuffled.text == CacheKey.make("run", **fields).text
    assert shuffled.digest == CacheKey.make("run", **fields).digest


@given(inputs)
def test_a_key_is_ascii_json_that_can_be_read_back(fields: dict[str, Any]) -> None:
    key = CacheKey.make("run", **fields)
    assert key.text.isascii()
    assert json.loads(key.text) == dict(key.inputs)


@given(inputs, inputs)
def test_keys_are_equal_only_where_their_inputs_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = CacheKey.make("run", **one), CacheKey.make("run", **other)
    assert (first.digest == second.digest) == (first.text == second.text)
    assert CacheKey.make("copy", **one).digest != first.digest


def test_what_is_not_set_is_left_out_but_zero_is_set() -> None:
    assert CacheKey.make("run", a=None, b="", c=[], d=()).text == CacheKey.make("run").text
    assert CacheKey.make("run", epoch=0).text != CacheKey.make("run").text


def test_a_step_that_left_nothing_does_not_change_the_stack() -> None:
    assert stacked("below", "") == "below"
    assert stacked(EMPTY, "a") != stacked(stacked(EMPTY, "a"), "a") != stacked(EMPTY, "aa")
    assert stacked(stacked(EMPTY, "a"), "b") != stacked(stacked(EMPTY, "b"), "a")


RUN = RunOp(args=("/bin/sh", "-c", "make"), env=(("A", "1"), ("B", "2")), platform=AMD64)
COPY = CopyOp(parts=(CopyPart(patterns=("a",)),), dest="/d/")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Everything that a step has around it; a key looks at its epoch alone."""
    return Site(
        store=Store(tmp_path / "store"),
        snapshots=OverlaySnapshotter(tmp_path, tmp_path),
        executor=SandboxExecutor(tmp_path),
        images=Bases(),  # type: ignore[arg-type]  # nothing is extracted for a key
        context=Context(root=tmp_path, name="."),
        scratch=tmp_path,
        progress=silent,
        now=lambda: "",
        stop=lambda stop: None,
    )


def step(site: Site, op: Op, below: str = "stack:x") -> Step:
    return Step(site, Node(number=1, op=op, inputs=(0,), title="RUN"), [Result(content=below)])


@pytest.mark.parametrize(
    "changes",
    [
        {"args": ("/bin/sh", "-c", "make all")},
        {"env": (("A", "1"), ("B", "3"))},
        {"env": (("A", "1"),)},
        {"cwd": "/w"},
        {"user": "me"},
        {"network": "none"},
        {"platform": ARM64},
        {"platform": Platform("linux", "amd64", "v3")},
        {"script": InlineFile(name="EOT", content="#!/bin/sh\n")},
        {"security": "insecure"},
        {"mounts": (RunMount(kind="cache", target="/c"),)},
    ],
)
def test_all_that_a_process_can_see_changes_the_key_of_its_run(site: Site, changes: dict[str, Any]) -> None:
    assert run_key(step(site, RUN), RUN) != run_key(step(site, RUN), replace(RUN, **changes))


def test_what_is_below_and_the_epoch_change_the_key_of_a_run(site: Site) -> None:
    key = run_key(step(site, RUN), RUN)
    assert run_key(step(site, RUN, "stack:y"), RUN) != key
    assert run_key(step(replace(site, epoch=0), RUN), RUN) != key


def test_proxies_do_not_change_the_key_of_a_run(site: Site) -> None:
    hidden = replace(RUN, hidden_env=(("HTTP_PROXY", "http://user:secret@host"),))
    assert run_key(step(site, hidden), hidden) == run_key(step(site, RUN), RUN)


MOUNT = RunMount(kind="secret", target="/run/secrets/k", id="k")


def key_with(site: Site, *mounts: RunMount, **bound: object) -> CacheKey:
    op = replace(RUN, mounts=mounts)
    return run_key(step(site, op), op, **bound)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "ssh"},
        {"target": "/k"},
        {"id": "other"},
        {"env": "K"},
        {"mode": 0},
        {"uid": 1},
        {"gid": 1},
        {"required": True},
        {"readonly": True},
        {"size": 1},
    ],
)
def test_what_a_process_sees_of_a_mount_changes_the_key(site: Site, changes: dict[str, Any]) -> None:
    assert key_with(site, MOUNT) != key_with(site, replace(MOUNT, **changes))


@pytest.mark.parametrize("changes", [{"id": "other"}, {"sharing": "locked"}, {"source": "/s", "input": 1}])
def test_what_a_cache_is_called_and_begins_as_does_not(site: Site, changes: dict[str, Any]) -> None:
    cache = RunMount(kind="cache", target="/c", id="/c")
    assert key_with(site, cache) == key_with(site, replace(cache, **changes))


def test_what_the_caller_gives_is_in_no_key_but_the_names_of_hosts(site: Site) -> None:
    options = RunOptions(
        secret_values={"k": "SECRET"},
        secret_files={"f": "/SECRET"},
        agents={"default": ("/SECRET",)},
        shm_bytes=1,
        rlimits=(Rlimit(kind="RLIMIT_NOFILE", soft=1, hard=1),),
    )
    given = replace(site, run_options=options)
    assert key_with(given, MOUNT) == key_with(site, MOUNT)
    assert "SECRET" not in key_with(given, MOUNT).text
    keys = [
        key_with(replace(site, run_options=RunOptions(hosts=hosts)))
        for hosts in ((), (("db", "10.0.0.1"),), (("db", "10.0.0.2"),), (("other", "10.0.0.1"),))
    ]
    assert keys[1] == keys[2]
    assert len({key.digest for key in keys}) == 3


def test_a_bind_mount_is_known_quickly_only_where_its_source_has_a_name(site: Site) -> None:
    def quick(mount: RunMount, content: str = "stack:source") -> CacheKey | None:
        op = replace(RUN, mounts=(mount,))
        inputs = [Result(content="stack:x"), Result(content=content)]
        return quick_run_key(Step(site, Node(number=1, op=op, inputs=(0, 1), title="RUN"), inputs), op)

    stage = RunMount(kind="bind", target="/b", input=1, readonly=True)
    assert quick(replace(stage, input=0)) is None, "a context is known by its files"
    assert quick(stage, content="") is None, "so is a named folder"
    keys = [quick(stage), quick(stage, "stack:other"), quick(replace(stage, source="/s"))]
    assert None not in keys
    assert len({key.digest for key in keys if key}) == 3
    assert quick_run_key(step(site, RUN), RUN) == run_key(step(site, RUN), RUN)


def test_what_a_bind_mount_shows_changes_the_key(site: Site) -> None:
    bind = RunMount(kind="bind", target="/b", readonly=True)
    assert key_with(site, bind, content=["blake3:1"]) != key_with(site, bind, content=["blake3:2"])


@pytest.mark.parametrize(
    "changes",
    [
        {"dest": "/d"},
        {"chown": "me"},
        {"chmod": "644"},
        {"parts": (CopyPart(patterns=("a",), unpack=True),)},
        {"inline": (InlineFile(name="f", content="new"),)},
        {"link": True},
        {"parents": True},
    ],
)
def test_where_how_and_what_is_copied_changes_the_key_of_a_copy(site: Site, changes: dict[str, Any]) -> None:
    changed = replace(COPY, **changes)
    assert copy_key(step(site, COPY), COPY, parts="s") != copy_key(step(site, COPY), changed, parts="s")


def test_what_is_below_is_no_part_of_the_key_of_a_linked_copy(site: Site) -> None:
    linked = replace(COPY, link=True)
    assert copy_key(step(site, COPY, "stack:y"), COPY) != copy_key(step(site, COPY), COPY)
    assert copy_key(step(site, linked, "stack:y"), linked) == copy_key(step(site, linked), linked)
