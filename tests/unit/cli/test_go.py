"""Flags in the forms of Go's flag package, of docker, and of neither."""

from __future__ import annotations

from typing import Any

import click
import pytest
from img.cli.common import Globals, find_globals, verb
from img.cli.go import GoGroup

SEEN: dict[str, Any] = {}


@verb("build", short="Builds.", example="img build .")
@click.argument("path")
@click.option("-t", "-tag", "--tag", "tags", multiple=True)
@click.option("-build-arg", "--build-arg", "build_args", multiple=True)
@click.option("-no-cache", "--no-cache", is_flag=True)
@click.option("-q", "-quiet", "--quiet", is_flag=True)
@click.option(
    "--pull", "-pull", is_flag=False, flag_value="always", default="missing",
    type=click.Choice(["missing", "always", "never"]),
)  # fmt: skip
def build_command(**flags: Any) -> None:
    """Keeps what it was given."""
    SEEN.update(flags, globals=find_globals())


class Group(GoGroup):
    """The group, over this file's verb."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return build_command if cmd_name == "build" else None


@click.group(cls=Group, verbs={"build": ("build", "Builds."), "images": ("images", "Lists.")})
@click.option("-d", "-debug", "--debug", is_flag=True)
@click.option("-s", "-state", "--state", default="")
@click.pass_context
def main(ctx: click.Context, debug: bool, state: str) -> None:
    """The program."""
    ctx.obj = Globals(state=state, debug=debug)


def seen(line: str) -> dict[str, Any]:
    """What the verb gets from a command line."""
    SEEN.clear()
    main.main(line.split(), prog_name="img", standalone_mode=False)
    return dict(SEEN)


def complaint(line: str) -> str:
    """What a command line is refused with."""
    with pytest.raises(click.UsageError) as caught:
        seen(line)
    return caught.value.format_message()


@pytest.mark.parametrize("flag", ["-t name", "-t=name", "-tname", "-tag name", "-tag=name", "--tag=name"])
def test_a_value_may_follow_in_every_form(flag: str) -> None:
    assert seen(f"build {flag} .")["tags"] == ("name",)
    assert seen(f"build . {flag}")["tags"] == ("name",)


@pytest.mark.parametrize("flag", ["-build-arg K=V=W", "-build-arg=K=V=W", "--build-arg K=V=W"])
def test_only_the_first_equals_sign_parts_a_flag_from_its_value(flag: str) -> None:
    assert seen(f"build {flag} .")["build_args"] == ("K=V=W",)


@pytest.mark.parametrize(
    ("flag", "on"),
    [("-no-cache", True), ("--no-cache", True), ("-no-cache=true", True), ("--no-cache=1", True),
     ("--no-cache=false", False), ("-no-cache=F", False), ("", False)],
)  # fmt: skip
def test_a_switch_may_say_true_or_false(flag: str, on: bool) -> None:
    assert seen(f"build {flag} .")["no_cache"] is on


def test_a_switch_that_says_anything_else_is_refused() -> None:
    assert complaint("build --no-cache=maybe .") == "--no-cache takes true or false, not 'maybe'."


@pytest.mark.parametrize(
    ("line", "policy", "path"),
    [
        ("build --pull .", "always", "."),
        ("build -pull .", "always", "."),
        ("build . --pull", "always", "."),
        ("build --pull -t a .", "always", "."),
        ("build --pull=never .", "never", "."),
        ("build --pull never .", "never", "."),
        ("build .", "missing", "."),
    ],
)
def test_a_flag_with_a_value_that_may_be_left_out_takes_no_path_for_it(
    line: str, policy: str, path: str
) -> None:
    given = seen(line)
    assert (given["pull"], given["path"]) == (policy, path)


def test_a_value_may_look_like_a_flag_and_a_path_may_follow_two_dashes() -> None:
    assert seen("build -t -x .")["tags"] == ("-x",)
    assert seen("build -- -t")["path"] == "-t"
    assert seen("build -")["path"] == "-"


@pytest.mark.parametrize(
    ("line", "debug", "state"),
    [
        ("-d build .", True, ""),
        ("-d=true build .", True, ""),
        ("-debug=false build .", False, ""),
        ("--debug=true build .", True, ""),
        ("build -debug .", True, ""),
        ("build -debug=false .", False, ""),
        ("-state /x build .", False, "/x"),
        ("-s=/x build .", False, "/x"),
        ("--state=/x build . -d", True, "/x"),
        ("--state images build .", False, "images"),
        ("build -s /y .", False, "/y"),
        ("-s /x build -s /y .", False, "/y"),
    ],
)
def test_global_flags_stand_before_the_verb_or_after_it(line: str, debug: bool, state: str) -> None:
    found = seen(line)["globals"]
    assert (found.debug, found.state) == (debug, state)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--taag", "No such flag: --taag. Did you mean --tag?"),
        ("-bild-arg=K=V", "No such flag: -bild-arg. Did you mean --build-arg?"),
        ("--nothing-like-it", "No such flag: --nothing-like-it."),
        ("-no-cach", "No such flag: -no-cach. Did you mean --no-cache?"),
    ],
)
def test_an_unknown_flag_is_named_whole_with_the_near_one(flag: str, said: str) -> None:
    assert complaint(f"build {flag} .") == said


def test_switches_of_one_letter_may_stand_together() -> None:
    given = seen("build -dq .")
    assert given["quiet"] and given["globals"].debug


def test_an_unknown_verb_is_named_with_the_near_one() -> None:
    assert "Did you mean 'img images'?" in complaint("image")
    assert complaint("xyzzy").startswith("'xyzzy' is not an img command.\nSee")
