"""`img cache explain`: why a step of the last build ran, or what it was found by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from img.cli.common import find_globals, print_json, verb
from img.cli.render.explained import explained_lines
from img.values import asdict

if TYPE_CHECKING:
    from img.engine import Explained


@verb(
    "explain",
    short="Say why steps of the last build ran.",
    example="img cache explain Dockerfile:3\nimg cache explain 'RUN make'\nimg cache explain 2 --json",
)
@click.argument("step", metavar="[STEP]", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(step: str, as_json: bool) -> None:
    """Say what the cache keys of the last build's steps were compared with, and how they differed.

    STEP is its number, its line as in Dockerfile:3, or a part of its text; several steps may have that.
    Without it, every step is told of.
    """
    from img.engine import Engine

    with Engine(find_globals().settings()) as engine:
        found = engine.explain(step)
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
    if one.keyless:
        return ["It changes the config alone: nothing runs for it, and it has no cache key."]
    return ["The build ended before it came to this step."]
