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
from img.builder.graph import CopyOp, CopyPart, InlineFile, Node, Op, RunOp
from img.builder.key import EMPTY, CacheKey, stacked
from img.builder.perform import Step, copy_key, run_key
from img.builder.site import Result, Site
from img.context import Context
from img.executor import SandboxExecutor
from img.oci import Platform
from img.progress import silent
from img.snapshot import OverlaySnapshotter
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
