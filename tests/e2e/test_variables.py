"""ARG and ENV: who sees what, from where."""

from __future__ import annotations

import pytest

from tests.conftest import Context
from tests.support.command import Img

pytestmark = pytest.mark.once


def test_an_arg_before_from_names_the_base_and_must_be_declared_again_to_be_seen(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"ARG BASE={busybox_image}\nARG V=outer\nFROM $BASE\n"
        'RUN echo "[$V]" > /before\nARG V\nRUN echo "[$V]" > /after\n'
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    assert (image.text("before"), image.text("after")) == ("[]\n", "[outer]\n")


def test_a_build_arg_beats_the_default_and_leaves_no_trace_in_the_environment(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nARG V=1\nRUN echo $V > /v\nLABEL v=$V\n"})
    img.build(context, "-build-arg", "V=2")
    image = img.image()
    assert image.text("v") == "2\n"
    assert image.config["Labels"] == {"v": "2"}
    assert not any(line.startswith("V=") for line in image.config["Env"])


def test_env_beats_arg_of_the_same_name(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nARG V=1\nENV V=env\nRUN echo $V > /v\n"})
    img.build(context, "--build-arg", "V=arg")
    assert img.image().text("v") == "env\n"


def test_defaults_alternatives_and_escapes_of_variables(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nENV SET=yes EMPTY=\n"
        "LABEL a=${SET:-no} b=${UNSET:-no} c=${SET:+alt} d=x${UNSET:+alt}x e=\\$SET f='$SET' g=\"$SET\"\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    assert img.image().config["Labels"] == {
        "a": "yes", "b": "no", "c": "alt", "d": "xx", "e": "$SET", "f": "$SET", "g": "yes",
    }  # fmt: skip


def test_one_env_instruction_expands_with_the_values_before_it(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nENV A=old\nENV A=new B=$A\n"}))
    assert {"A=new", "B=old"} <= set(img.image().config["Env"])


def test_the_platform_arguments_are_there_when_asked_for(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nARG TARGETOS\nARG TARGETPLATFORM\nRUN echo $TARGETOS $TARGETPLATFORM > /p\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    system, platform = image.text("p").split()
    assert system == "linux"
    assert platform.startswith(f"linux/{image.document['architecture']}")


def test_a_proxy_argument_is_seen_by_run_without_being_declared_and_changes_no_cache_key(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo $HTTP_PROXY > /p\n"})
    img.build(context, "--build-arg", "HTTP_PROXY=http://one.invalid")
    assert img.image().text("p") == "http://one.invalid\n"
    img.build(context, "--build-arg", "HTTP_PROXY=http://two.invalid")
    assert img.image().text("p") == "http://one.invalid\n"


def test_a_build_arg_that_nothing_declares_is_said(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n"})
    outcome = img.ok("build", "-t", "t", "--build-arg", "NOBODY=1", context)
    assert "NOBODY" in outcome.text
