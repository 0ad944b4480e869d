"""`img cache explain`: why a step of a build ran, or what it was found by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import find_globals, print_json, show_warnings, verb
from img.cli.render.explained import explained_lines
from img.values import asdict

if TYPE_CHECKING:
    from img.engine import Explained


@verb(
    "explain",
    short="Say why steps of a build ran.",
    example="img cache explain Dockerfile:3\nimg cache explain 'RUN make' --build ^1\n"
    "img cache explain 2 --json",
)
@click.argument("step", metavar="[STEP]", default="")
@click.option(
    "--build", default="", metavar="BUILD",
    help="An ID or its beginning, the name of an image, or ^N for the Nth before the newest; by default "
    "the newest build that has ended.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(step: str, build: str, as_json: bool) -> None:
    """Say what the cache keys of a build's steps were compared with, and how they differed.

    STEP is its number, its line as in Dockerfile:3 or :3, or a part of its text; several steps may have
    that. Without it, every instruction is told of.
    """
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        found = engine.explain(step, build)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        click.echo(f"{one.number}  {f'{one.where}: ' if one.where else ''}{one.text}")
        for line in _lines(one):
            click.echo(f"   {line}")


def _lines(one: Explained) -> list[str]:
    if one.step is not None:
        return explained_lines(one.step)
    if one.kind == "config":
        return ["It changes the config alone: nothing runs for it, and it has no cache key."]
    if one.keyless:
        return ["It brings in what steps read, and has no cache key of its own."]
    return ["The build did not come to this step."]
