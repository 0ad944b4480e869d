"""Which stages are planned, what they stand on, and what they pass on."""

from __future__ import annotations

import pytest
from img.builder import PlanOptions, needed_bases
from img.builder.graph import SourceOp
from img.dockerfile import parse
from img.errors import DockerfileError, NotFound

from .planning import AMD64, ARM64, Bases, base, copies, node_of, plan, runs, shown, sources

THREE = """FROM busybox AS tools
RUN tools
FROM other AS unneeded
RUN unneeded
FROM busybox AS last
COPY --from=tools /x /x
RUN last
"""


def test_a_stage_that_the_target_does_not_need_is_not_planned_and_its_base_not_asked_for() -> None:
    bases = Bases({"busybox": base()})
    graph = plan(THREE, bases)
    assert bases.asked == [("busybox:latest", AMD64)]
    assert not any("unneeded" in title for title in shown(graph))
    assert [run.args[-1] for run in runs(graph)] == ["tools", "last"]


@pytest.mark.parametrize("target", ["tools", "TOOLS", "0"])
def test_a_target_is_a_stages_name_in_any_case_or_its_number(target: str) -> None:
    graph = plan(THREE, target=target)
    assert [run.args[-1] for run in runs(graph)] == ["tools"]
    assert graph.targets[0].node == graph.nodes[-1].number


def test_an_unknown_target_is_an_error_with_the_near_one() -> None:
    with pytest.raises(DockerfileError, match="no stage 'tool'") as caught:
        plan(THREE, target="tool")
    assert "tools" in caught.value.hint


def test_a_base_that_two_stages_share_is_asked_for_once() -> None:
    bases = Bases({"busybox": base()})
    graph = plan(THREE, bases)
    assert len(bases.asked) == 1
    assert sources(graph) == ["docker.io/library/busybox:latest"]


def test_the_same_base_for_two_platforms_is_two_bases() -> None:
    bases = Bases({"busybox": base()})
    text = "FROM --platform=linux/arm64 busybox AS a\nFROM busybox\nCOPY --from=a /x /x\n"
    plan(text, bases)
    assert sorted(str(platform) for _, platform in bases.asked) == ["linux/amd64", "linux/arm64"]


def test_inputs_come_before_what_stands_on_them() -> None:
    graph = plan(THREE)
    assert [node.number for node in graph.nodes] == list(range(len(graph.nodes)))
    assert all(number < node.number for node in graph.nodes for number in node.inputs)
    copy = node_of(graph, "RUN [copy")
    assert copy.inputs == (0, node_of(graph, "tools]").number)


def test_independent_stages_do_not_stand_on_each_other() -> None:
    text = "FROM busybox AS a\nRUN one\nFROM busybox AS b\nRUN two\nFROM scratch\n"
    graph = plan(text + "COPY --from=a /x /x\nCOPY --from=b /y /y\n")
    assert node_of(graph, "one]").inputs == node_of(graph, "two]").inputs == (0,)


def test_a_stage_on_a_stage_carries_its_config_and_its_history_on() -> None:
    graph = plan("FROM busybox AS a\nENV A=1\nRUN one\nFROM a\nUSER me\nRUN two\n")
    assert graph.targets[0].config.env["A"] == "1"
    assert [line.created_by.split()[0] for line in graph.targets[0].history] == ["ENV", "RUN", "USER", "RUN"]
    assert runs(graph)[1].user == "me"
    assert runs(graph)[0].user == ""


def test_of_a_stage_that_is_only_copied_from_nothing_else_comes_along() -> None:
    graph = plan("FROM busybox AS a\nLABEL a=1\nENV A=1\nUSER me\nFROM busybox\nCOPY --from=a /x /x\n")
    assert (graph.targets[0].config.labels, graph.targets[0].config.user) == ({}, "")
    assert "A" not in graph.targets[0].config.env
    assert len(graph.targets[0].history) == 1


def test_a_later_stage_hides_an_earlier_one_and_an_image_of_its_name() -> None:
    text = "FROM busybox AS a\nRUN one\nFROM busybox AS a\nRUN two\nFROM a\n"
    assert [run.args[-1] for run in runs(plan(text))] == ["two"]


def test_a_stage_may_bear_the_name_of_the_image_that_it_is_made_of() -> None:
    graph = plan("FROM busybox AS busybox\nRUN one\nFROM busybox\nRUN two\n")
    assert [run.args[-1] for run in runs(graph)] == ["one", "two"]


def test_copy_from_takes_a_stage_by_number_a_stage_by_name_or_an_image() -> None:
    bases = Bases({"busybox": base(), "tools": base()})
    graph = plan(
        "FROM busybox AS A\nRUN one\nFROM scratch\n"
        "COPY --from=0 /x /x\nCOPY --from=a /x /x\nCOPY --from=tools:2 /x /x\n",
        bases,
    )
    stage = node_of(graph, "one]").number
    froms = [node.inputs[1] for node in graph.nodes if "RUN [copy" in node.title]
    assert froms[:2] == [stage, stage]
    image = graph.nodes[froms[2]].op
    assert isinstance(image, SourceOp) and image.name == "docker.io/library/tools:2"


@pytest.mark.parametrize("name", ["1", "me", "ME"])
def test_copy_from_its_own_stage_is_an_error_at_its_flag(name: str) -> None:
    with pytest.raises(DockerfileError, match="me takes from itself") as caught:
        plan(f"FROM busybox\nFROM busybox AS me\nCOPY --from={name} /x /x\n")
    assert (caught.value.line, caught.value.column) == (3, 13)


@pytest.mark.parametrize("name", ["2", "-1", "9" * 5000])
def test_copy_from_a_number_that_no_stage_has_is_an_error_even_where_nothing_needs_it(name: str) -> None:
    with pytest.raises(DockerfileError, match=f"there is no stage {name}") as caught:
        plan(f"FROM busybox\nCOPY --from={name} /x /x\nFROM busybox\n")
    assert caught.value.line == 2
    assert "numbered from 0 to 1" in caught.value.hint


@pytest.mark.parametrize("name", ["later", "1"])
def test_copy_from_a_later_stage_is_refused_and_shows_both(name: str) -> None:
    text = f"FROM busybox AS first\nCOPY --from={name} /x /y\nFROM busybox AS later\nRUN one\n"
    with pytest.raises(DockerfileError, match=f"the stage {name} comes only later") as caught:
        plan(text, target="first")
    assert (caught.value.line, caught.value.column) == (2, 13)
    assert "Dockerfile:3: FROM busybox AS later" in str(caught.value)


def test_stages_that_need_each_other_are_an_error_with_every_line_of_the_circle() -> None:
    text = (
        "FROM busybox AS a\nCOPY --from=c /x /x\nFROM busybox AS b\nRUN --mount=from=a,target=/a x\n"
        "FROM b AS c\nFROM busybox\n"
    )
    with pytest.raises(DockerfileError, match="need each other: a -> c -> b -> a") as caught:
        plan(text)
    assert (caught.value.line, caught.value.column) == (2, 13)
    assert caught.value.also == ("Dockerfile:5: FROM b AS c", "Dockerfile:4: RUN --mount=from=a,target=/a x")


def test_a_trigger_of_the_base_that_closes_a_circle_is_an_error_at_from() -> None:
    bases = Bases({"busybox": base(), "trigger": base(OnBuild=["COPY --from=b /x /x"])})
    with pytest.raises(DockerfileError, match="takes from itself") as caught:
        plan("FROM busybox AS a\nFROM trigger AS b\nRUN x\n", bases)
    assert caught.value.line == 2


def test_hundreds_of_stages_on_each_other_are_planned() -> None:
    text = "FROM busybox AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nENV A{n % 7}={n}\n" for n in range(1500))
    assert plan(text).targets[0].config.env["A1"] == "1499"


def test_a_variable_in_copy_from_is_that_of_the_head_and_is_said_once() -> None:
    bases = Bases({"busybox": base(), "tools": base()})
    text = (
        "ARG FROM=tools\nARG N=0\nFROM busybox AS one\nRUN one\nFROM busybox\nARG FROM=busybox\n"
        "COPY --from=$FROM:2 /x /x\nCOPY --from=${N} /x /x\n"
    )
    graph = plan(text, bases)
    assert ("tools:2", AMD64) in bases.asked
    assert [line.split(": ")[0] for line in graph.warnings] == ["Dockerfile:7", "Dockerfile:8"]
    wanted = needed_bases(parse(text.encode()), PlanOptions(platform=AMD64, build_platform=AMD64))
    assert {reference.familiar for reference, _ in wanted} == {"busybox:latest", "tools:2"}


def test_a_variable_in_copy_from_without_a_value_is_an_error() -> None:
    with pytest.raises(DockerfileError, match="--from=\\$X is empty") as caught:
        plan("FROM busybox\nARG X=1\nCOPY --from=$X /x /x\n")
    assert (caught.value.line, caught.value.column) == (3, 13)


def test_of_stages_with_one_name_the_last_before_it_is_meant() -> None:
    text = "FROM busybox AS a\nRUN one\nFROM a AS b\nCOPY --from=A /x /x\nFROM busybox AS a\nRUN two\n"
    graph = plan(text, target="b")
    copy = node_of(graph, "RUN [copy")
    assert copy.inputs == (node_of(graph, "one]").number,) * 2


def test_a_base_that_cannot_be_had_is_the_registrys_error() -> None:
    with pytest.raises(NotFound):
        plan("FROM nowhere\n")


def test_a_base_that_is_no_name_is_an_error_at_its_line() -> None:
    with pytest.raises(DockerfileError, match="is no image") as caught:
        plan("FROM busybox\nFROM Not/A/Name\n")
    assert caught.value.line == 2


def test_scratch_has_a_path_and_a_folder_to_work_in_and_nothing_else() -> None:
    graph = plan("FROM scratch\n")
    assert set(graph.targets[0].config.run) == {"Env", "WorkingDir"}
    assert graph.targets[0].config.env["PATH"].endswith(":/bin")
    assert graph.targets[0].config.platform == AMD64
    assert graph.targets[0].history == ()


def test_a_base_for_another_platform_is_used_and_said() -> None:
    graph = plan("FROM busybox\n", Bases({"busybox": base(ARM64)}))
    assert graph.targets[0].config.platform == ARM64
    (found,) = (f for f in graph.findings if f.level == "warning")
    assert found.message == "busybox is for linux/arm64, not for linux/amd64"


def test_triggers_of_the_base_run_right_after_from_and_are_gone_from_the_image() -> None:
    bases = Bases({"busybox": base(OnBuild=["COPY . /src", "RUN make"])})
    graph = plan("FROM busybox\nRUN test\n", bases)
    assert [run.args[-1] for run in runs(graph)] == ["make", "test"]
    assert copies(graph)[0].dest == "/src"
    assert graph.targets[0].config.words("OnBuild") is None
    assert len(graph.targets[0].history) == 3


def test_a_trigger_of_this_image_is_only_written_down() -> None:
    graph = plan("FROM busybox\nONBUILD RUN make $V\n")
    assert graph.targets[0].config.words("OnBuild") == ("RUN make $V",)
    assert runs(graph) == []


def test_a_trigger_of_an_earlier_stage_runs_in_the_stage_that_stands_on_it() -> None:
    graph = plan("FROM busybox AS a\nONBUILD RUN late\nRUN early\nFROM a\n")
    assert [run.args[-1] for run in runs(graph)] == ["early", "late"]
    assert graph.targets[0].config.words("OnBuild") is None


def test_a_trigger_that_is_no_instruction_is_an_error_at_from() -> None:
    bases = Bases({"busybox": base(OnBuild=["FROM evil"])})
    with pytest.raises(DockerfileError, match="trigger") as caught:
        plan("# one\nFROM busybox\n", bases)
    assert caught.value.line == 2


def test_the_bases_that_a_target_needs_are_known_before_any_is_there() -> None:
    text = (
        "ARG V=3\nFROM busybox:$V AS a\nFROM unneeded AS u\n"
        "FROM --platform=linux/arm64 other AS b\nCOPY --from=a /x /x\nCOPY --from=tools /y /y\nFROM b\n"
    )
    wanted = needed_bases(parse(text.encode()), PlanOptions(platform=AMD64, build_platform=AMD64))
    assert {(reference.familiar, str(platform)) for reference, platform in wanted} == {
        ("busybox:3", "linux/amd64"),
        ("other:latest", "linux/arm64"),
        ("tools:latest", "linux/amd64"),
    }


def test_scratch_is_for_the_target_whatever_its_from_asks_for() -> None:
    assert plan("FROM --platform=linux/arm64 scratch\n").targets[0].config.platform == AMD64


def test_the_image_is_for_the_platform_that_the_caller_gave_and_else_for_its_bases() -> None:
    text = "FROM --platform=linux/arm64 busybox\n"
    bases = Bases({"busybox": base(ARM64)})
    assert plan(text, bases).targets[0].config.platform == ARM64
    assert plan(text, bases, platform_given=True).targets[0].config.platform == AMD64


def test_a_stage_on_a_stage_is_for_the_platform_of_that_one() -> None:
    bases = Bases({"busybox": base(ARM64)})
    graph = plan("FROM --platform=linux/arm64 busybox AS a\nFROM --platform=linux/amd64 a\nRUN x\n", bases)
    assert runs(graph)[0].platform == ARM64


@pytest.mark.parametrize("platform", ["$NONE", "${TARGETOSVERSION}"])
def test_a_platform_that_expands_to_nothing_is_an_error(platform: str) -> None:
    with pytest.raises(DockerfileError, match="platform is empty") as caught:
        plan(f"FROM --platform={platform} busybox\n")
    assert caught.value.column == len("FROM --platform=") + 1


def test_an_image_that_cannot_be_had_hints_at_the_stage_that_may_be_meant() -> None:
    with pytest.raises(NotFound) as caught:
        plan("FROM busybox AS builder\nFROM busybox\nCOPY --from=bulider /x /x\n")
    assert caught.value.hint == "did you mean the stage builder?"
