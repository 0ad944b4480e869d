"""Planning what touches the config alone: each line costs the same, and a stage's draft is its own."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from img.builder.draft import ConfigDraft
from img.oci import ImageConfig, Platform

from tests.unit.builder.planning import Bases, base, plan

PLATFORM = Platform("linux", "amd64")


def _opcodes_of_planning(text: str) -> int:
    """How many operations of the interpreter it takes: the same number every time."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        plan(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "line", ["ENV V{n}=x", "LABEL l{n}=x", "EXPOSE {n}", "VOLUME /v{n}", "ARG A{n}=x", "ONBUILD RUN {n}"]
)
def test_a_line_costs_the_same_however_many_stand_before_it(line: str) -> None:
    def cost(count: int) -> int:
        numbers = range(100, 100 + count)
        return _opcodes_of_planning("FROM busybox\n" + "".join(line.format(n=n) + "\n" for n in numbers))

    cost(10)  # what is compiled at its first use is compiled
    few, some, many = cost(10), cost(60), cost(110)
    assert many - some <= (some - few) * 1.02


def test_a_stage_changes_nothing_of_the_one_that_it_is_built_on() -> None:
    lines = "ENV A=1\nLABEL a=1\nEXPOSE 1\nVOLUME /1\n"
    graph = plan(f"FROM busybox AS a\n{lines}FROM a\n{lines.replace('1', '2')}FROM a\nENV B=3\n")
    run = graph.targets[0].config.run
    assert run["Env"][-2:] == ["A=1", "B=3"] and run["Labels"] == {"a": "1"}
    assert run["ExposedPorts"] == {"1/tcp": {}} and run["Volumes"] == {"/1": {}}


def test_what_no_instruction_adds_to_stays_as_the_base_has_it() -> None:
    variables = ["PATH=/bin", "A=1", "A=2", "B"]
    odd = base(Env=variables, ExposedPorts={"9/tcp": {}, "10/tcp": {}})
    run = plan("FROM odd\nLABEL a=b\n", bases=Bases({"odd": odd})).targets[0].config.run
    assert run["Env"] == variables and list(run["ExposedPorts"]) == ["9/tcp", "10/tcp"]


def test_the_config_that_a_draft_begins_with_and_those_it_gave_stay_as_they_are() -> None:
    begun = ImageConfig.scratch(PLATFORM).with_run(Env=["A=1"], OnBuild=["RUN a"])
    draft = ConfigDraft(begun)
    draft.add("Env", {"B": "2"})
    draft.add_trigger("RUN b")
    first = draft.finished()
    draft.add("Env", {"A": "3"})
    draft.add_trigger("RUN c")
    assert begun.run == {"Env": ["A=1"], "OnBuild": ["RUN a"]}
    assert first.run == {"Env": ["A=1", "B=2"], "OnBuild": ["RUN a", "RUN b"]}
    assert draft.finished().run == {"Env": ["A=3", "B=2"], "OnBuild": ["RUN a", "RUN b", "RUN c"]}
