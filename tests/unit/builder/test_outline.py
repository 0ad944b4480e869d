"""What a Dockerfile offers: its targets, and what the build of one takes. Nothing is resolved for it."""

from __future__ import annotations

from typing import Any

import pytest
from img.builder import PlanOptions
from img.builder.outline import Outline, OutlineArg, OutlineMount, Target, list_targets, make_outline
from img.dockerfile import parse
from img.errors import DockerfileError

TEXT = """\
# V is what everything is built from
ARG V=12
ARG UNUSED=1

# build makes the program
FROM debian:$V AS build
# FLAGS are for the compiler
ARG FLAGS="-O2 $V"
ARG V
RUN --mount=type=secret,id=token,required --mount=type=ssh make
RUN --mount=type=secret,id=token --mount=type=cache,target=/c --mount=type=secret,source=/run/x/other make
FROM debian:$V AS other
ARG OTHER
# a plain comment
FROM scratch AS final
COPY --from=build /a /a
"""


def outline(text: str = TEXT, **options: Any) -> Outline:
    return make_outline(parse(text.encode()), PlanOptions(**options))


def test_the_outline_has_what_the_target_and_the_stages_below_it_take() -> None:
    found = outline()
    assert (found.name, found.description) == ("final", "")
    assert found.args == (
        OutlineArg(name="V", value="12", description="is what everything is built from", line=2),
        OutlineArg(name="FLAGS", value="-O2 ", description="are for the compiler", line=8),
    )
    assert found.secrets == (
        OutlineMount(name="token", required=True, line=10),
        OutlineMount(name="other", line=11),
    )
    assert found.ssh == (OutlineMount(name="default", line=10),)
    assert found.caches == (OutlineMount(name="/c", line=11),)


def test_another_target_takes_other_things() -> None:
    assert [arg.name for arg in outline(target="other").args] == ["V", "OTHER"]
    assert outline(target="other").args[-1].value is None
    assert outline(target="build").description == "makes the program"


def test_what_the_caller_gives_is_the_value() -> None:
    values = {arg.name: arg.value for arg in outline(build_args={"V": "13", "FLAGS": "-g"}).args}
    assert values == {"V": "13", "FLAGS": "-g"}


def test_what_is_automatic_is_told_only_where_it_is_given() -> None:
    text = "ARG TARGETOS\nFROM scratch\nARG TARGETOS\nARG TARGETARCH\nARG TARGETVARIANT=v9\nARG HTTP_PROXY\n"
    assert [arg.name for arg in outline(text).args] == ["TARGETOS", "TARGETVARIANT", "HTTP_PROXY"]
    assert "TARGETARCH" in {arg.name for arg in outline(text, build_args={"TARGETARCH": "s390x"}).args}


def test_an_unknown_target_is_an_error_with_the_near_one() -> None:
    with pytest.raises(DockerfileError) as caught:
        outline(target="buidl")
    assert caught.value.hint == "did you mean build?"


def test_a_stage_that_is_mounted_is_needed() -> None:
    text = "FROM a AS x\nARG X=1\nFROM a AS y\nRUN --mount=type=bind,from=x,target=/x ls\n"
    assert [arg.name for arg in outline(text).args] == ["X"]


def test_a_stage_on_a_stage_has_its_arguments() -> None:
    text = "FROM a AS x\nARG X=1\nENV E=2\nFROM x\nARG Y=$X$E\n"
    assert [(arg.name, arg.value) for arg in outline(text).args] == [("X", "1"), ("Y", "12")]


def test_the_targets_are_listed_in_order_with_the_one_that_is_meant() -> None:
    text = "ARG B=a\n# x is first\nFROM --platform=linux/arm64 $B AS x\nFROM x\n"
    assert list_targets(parse(text.encode()), PlanOptions()) == (
        Target(name="x", description="is first", base="a", platform="linux/arm64", line=3),
        Target(name="", default=True, base="x", line=4),
    )
