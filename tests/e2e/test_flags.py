"""Flags in Go's style and in docker's, help, and what a mistyped word gets."""

from __future__ import annotations

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img

pytestmark = pytest.mark.once

VERBS = (
    "build", "ls", "pull", "version", "images", "push", "tag", "rm", "save", "load", "unpack", "inspect",
    "du", "prune", "cache",
)  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        ["-build-arg", "V=2", "-t", "t", "-target", "s", "-f", "Other"],
        ["-build-arg=V=2", "-t=t", "-target=s", "-f=Other"],
        ["--build-arg", "V=2", "--tag", "t", "--target", "s", "--file", "Other"],
        ["--build-arg=V=2", "--tag=t", "--target=s", "--file=Other"],
        ["-d", "-build-arg", "V=2", "-tag", "t", "-target", "s", "-file", "Other"],
        ["--no-cache=false", "--build-arg", "V=2", "-t", "t", "--target", "s", "-fOther"],
    ],
    ids=["go", "go-equals", "docker", "docker-equals", "go-long", "mixed"],
)
def test_both_styles_mean_the_same(flags: list[str], img: Img, make_context: Context) -> None:
    dockerfile = "FROM scratch AS s\nARG V=1\nLABEL v=$V\nCOPY a /a\nFROM scratch\nCOPY a /b\n"
    context = make_context({"Other": dockerfile, "a": ""})
    img.ok("build", *flags, ".", cwd=context)
    image = img.image("t")
    assert image.config["Labels"] == {"v": "2"}
    assert "a" in image.tree


def test_flags_may_follow_the_path(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": ""})
    img.ok("build", context, "-t", "late")
    assert "a" in img.image("late").tree


@pytest.mark.parametrize("args", [[], ["help"], ["--help"], ["-h"]])
def test_img_alone_and_help_list_every_verb(args: list[str], img: Img) -> None:
    outcome = img.ok(*args)
    assert all(f"\n  {verb} " in outcome.text for verb in VERBS), str(outcome)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, img: Img) -> None:
    text = img.ok(verb, "--help").text
    assert "Example:" in text, text
    assert f"  img {verb}" in text, text
    assert text == img.ok("help", verb).text


def test_a_group_alone_lists_its_verbs(img: Img) -> None:
    assert img.ok("cache").text == img.ok("cache", "--help").text
    assert "img cache [OPTIONS] COMMAND" in img.ok("cache").text


def test_a_mistyped_verb_of_a_group_is_named_with_its_group(img: Img) -> None:
    assert "'explian' is not an img cache command" in img.fails(2, "cache", "explian").stderr


@pytest.mark.parametrize(("typed", "meant"), [("biuld", "build"), ("pul", "pull"), ("image", "images")])
def test_a_mistyped_verb_suggests_the_near_one(typed: str, meant: str, img: Img) -> None:
    outcome = img.fails(2, typed)
    assert typed in outcome.stderr
    assert meant in outcome.stderr


def test_a_mistyped_flag_is_named_whole(img: Img) -> None:
    outcome = img.fails(2, "build", "-buildarg", "a=b", ".")
    assert "-buildarg" in outcome.stderr


def test_the_state_folder_can_come_from_the_environment(
    img: Img, make_img: MakeImg, busybox_image: str
) -> None:
    img.ok("pull", busybox_image)
    other = make_img()
    listed = other.ok("images", env={"IMG_STATE": str(img.state)})
    flagged = img.ok("images")
    assert "busybox" in flagged.stdout
    assert "busybox" not in listed.stdout, "--state on the command line beats the environment"
