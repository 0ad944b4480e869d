"""Several targets and platforms in one graph, and which of its nodes run whatever the cache knows."""

from __future__ import annotations

import pytest
from img.builder import BuildGraph, PlanOptions, plan_together
from img.builder.ahead import Ahead
from img.builder.fresh import fresh_nodes
from img.dockerfile import parse
from img.errors import UsageError
from img.oci import Image, Platform

from tests.unit.builder.planning import AMD64, ARM64, Bases, base, plan


def together(
    text: str, *targets: str, platforms: tuple[Platform, ...] = (AMD64,), bases: Bases | None = None
) -> BuildGraph:
    known = bases or Bases({"busybox": base(Env=["PATH=/bin"]), "other": base(Env=["PATH=/o"])})
    wanted = [
        PlanOptions(platform=platform, build_platform=AMD64, target=target, platform_given=True)
        for target in targets or ("",)
        for platform in platforms
    ]
    return plan_together(parse(text.encode()), wanted, known.resolve)


def titles(graph: BuildGraph) -> list[str]:
    return [node.shown for node in graph.nodes]


def test_targets_share_their_stages_and_each_base_is_asked_for_once() -> None:
    bases = Bases({"busybox": base()})
    text = "FROM busybox AS c\nRUN c\nFROM c AS a\nRUN a\nFROM busybox AS b\nCOPY --from=c /x /x\n"
    graph = together(text, "a", "b", bases=bases)
    assert titles(graph) == [
        "FROM busybox:latest",
        "RUN [/bin/sh -c c]",
        "RUN [/bin/sh -c a]",
        "RUN [copy /src-0/x /dest/x]",
    ]
    assert [(target.stage, target.node) for target in graph.targets] == [("a", 2), ("b", 3)]
    assert len(bases.asked) == 1


def test_what_does_not_depend_on_the_platform_is_one_node() -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM busybox AS tools\nRUN tools\n"
        "FROM busybox\nARG TARGETARCH\nRUN make\nCOPY --from=tools /t /t\n"
    )
    graph = together(text, platforms=(AMD64, ARM64))
    assert titles(graph).count("RUN [/bin/sh -c tools]") == 1
    makes = [title for title in titles(graph) if "make" in title]
    assert makes == ["RUN [/bin/sh -c make] (linux/amd64)", "RUN [/bin/sh -c make] (linux/arm64)"]
    assert [str(target.config.platform) for target in graph.targets] == ["linux/amd64", "linux/arm64"]


def test_a_node_that_several_platforms_share_is_of_none() -> None:
    graph = together("FROM scratch\nCOPY a /a\n", platforms=(AMD64, ARM64))
    assert [node.platform for node in graph.nodes] == [None, None]
    assert [node.label for node in graph.nodes] == ["", ""]
    assert [node.platform for node in plan("FROM scratch\nCOPY a /a\n").nodes] == [AMD64, AMD64]


def test_what_one_target_takes_is_no_remark_on_another() -> None:
    text = "FROM busybox AS a\nARG X\nRUN x\nFROM busybox AS b\nRUN b\n"
    wanted = [PlanOptions(platform=AMD64, target=target, build_args={"X": "1", "Y": "2"}) for target in "ab"]
    graph = plan_together(parse(text.encode()), wanted, Bases({"busybox": base()}).resolve)
    assert graph.warnings == ("build arguments that no ARG takes: Y",)


def test_a_finding_of_several_platforms_is_told_once() -> None:
    graph = together("FROM busybox\nRUN echo $UNKNOWN\nENV a=$NOBODY\n", platforms=(AMD64, ARM64))
    assert [found.rule for found in graph.findings].count("UndefinedVar") == 1


# ---- what runs whatever the cache knows ---------------------------------------------------------------

TEXT = (
    "FROM busybox AS first\nRUN one\nENV A=1\nRUN two \\\n  and more\n"
    "FROM busybox AS second\nCOPY <<f /f\nbody\nf\nWORKDIR /w\nFROM first\nCOPY --from=second /f /f\n"
)


def fresh(**asked: object) -> set[str]:
    graph = plan(TEXT)
    numbers = fresh_nodes(graph, parse(TEXT.encode()), **asked)  # type: ignore[arg-type]
    return {graph.nodes[number].title.partition(" ")[2] or "" for number in numbers}


ONE, TWO = "[/bin/sh -c one]", "[/bin/sh -c two   and more]"
HEREDOC, LAST = "[copy <<f /dest/f]", "[copy /src-0/f /dest/f]"
FOLDER = "/w"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, set()),
        ({"everything": True}, {ONE, TWO, HEREDOC, FOLDER, LAST}),
        ({"stages": ("",)}, {ONE, TWO, HEREDOC, FOLDER, LAST}),
        ({"stages": ("FIRST",)}, {ONE, TWO}),
        ({"stages": ("1", "2")}, {HEREDOC, FOLDER, LAST}),
        ({"steps": ("5",)}, {TWO}),
        ({"steps": ("8",)}, {HEREDOC}),
        ({"steps": ("and more",)}, {TWO}),
        ({"steps": ("RUN on",)}, {ONE}),
        ({"steps": ("--from=second",)}, {LAST}),
        ({"stages": ("second",), "steps": ("2",)}, {ONE, HEREDOC, FOLDER}),
    ],
)
def test_nodes_are_chosen_by_stage_by_line_and_by_text(asked: dict[str, object], expected: set[str]) -> None:
    assert fresh(**asked) == expected


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"stages": ("frist",)}, "did you mean first?"),
        ({"steps": ("3",)}, "name a line of a RUN"),
        ({"steps": ("RUN onne",)}, "did you mean RUN one?"),
        ({"steps": ("",)}, "name a line of a RUN"),
    ],
)
def test_what_fits_nothing_is_a_mistake(asked: dict[str, object], hint: str) -> None:
    with pytest.raises(UsageError) as error:
        fresh(**asked)
    assert hint in error.value.hint


# ---- bases that are brought early ---------------------------------------------------------------------


class Shelf:
    """Remembers which images were asked for early."""

    def __init__(self) -> None:
        self.asked: list[Image] = []

    def extract(self, image: Image) -> tuple[()]:
        raise AssertionError("nobody reads here")

    def bring_early(self, image: Image) -> None:
        self.asked.append(image)

    def end_early(self) -> None:
        """Nothing is under way for long."""


@pytest.mark.parametrize(
    ("last", "asked"),
    [
        ("COPY --from=b /x /x\n", True),
        ("ENV A=1\nCOPY --from=b /x /x\n", True),
        ("COPY --link --from=b /x /x\nENV A=1\n", False),
        ("COPY --link --from=b /x /x\nRUN x\n", True),
        ("RUN independent\n", False),
    ],
)
def test_a_base_is_brought_where_what_follows_a_miss_reads_it(last: str, asked: bool) -> None:
    graph = together(f"FROM busybox AS b\nRUN b\nFROM other\n{last}")
    shelf = Shelf()
    ahead = Ahead(graph, shelf)
    for node in graph.nodes:
        if node.title == "RUN [/bin/sh -c b]":
            ahead.missed(node)
    ahead.close()
    assert [image.config.env["PATH"] for image in shelf.asked] == (["/o"] if asked else [])
