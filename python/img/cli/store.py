"""`img store`: the group of verbs about the store itself."""

from __future__ import annotations

from img.cli import clicks as click
from img.cli.common import find_globals, group, human_size, print_json, table, verb
from img.cli.render import renderer
from img.cli.transfer import progress
from img.values import asdict

VERBS: dict[str, tuple[str, str]] = {
    "check": ("store", "Look for damage in the store, and take it away."),
}
"""As `img.cli.VERBS`: name -> (module below `img.cli`, line of help)."""

store_command = group(
    "store",
    verbs=VERBS,
    short="Look after the store.",
    example="img store check --quick",
)


@verb(
    "check",
    short="Look for damage in the store, and take it away.",
    example="img store check\nimg store check --quick\nimg store check --repair",
)
@click.option(
    "--quick", is_flag=True, help="Digest documents alone; look only whether blobs and layers are there."
)
@click.option(
    "--repair", is_flag=True, help="Take away what is wrong: it is made or fetched again when it is needed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the defects as JSON.")
@progress
def check_command(quick: bool, repair: bool, as_json: bool, progress: str) -> int:
    """Read all that the store keeps, and say what is not as it says; exit code 5 where something is wrong.

    Blobs are digested, layers packed and digested again, names, records and the database looked at. Other
    commands may run meanwhile. What dead processes left does no harm, and is told as well.
    """
    from img.engine import Engine

    options = find_globals()
    with (
        renderer(progress, debug=options.debug) as show,
        Engine(options.settings(), show) as engine,
    ):
        report = engine.check_store(quick=quick, repair=repair)
    if as_json:
        print_json({**asdict(report), "sound": report.sound})
        return 0 if report.sound or repair else 5
    if report.defects:
        table(
            ("KIND", "WHAT", "PROBLEM", "REMEDY"),
            [(f.kind, f.name, f.problem, f.remedy) for f in report.defects],
        )
    counts = {"name": report.images, "blob": report.blobs, "layer": report.layers, "record": report.records}
    seen = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items())
    read = f"{human_size(report.bytes)} digested" if report.bytes else "nothing digested"
    click.echo(f"{_verdict(len(report.defects), report.sound, repair)}: {seen}; {read}")
    return 0 if report.sound or repair else 5


def _verdict(count: int, sound: bool, repaired: bool) -> str:
    if not count:
        return "sound"
    if repaired:
        return f"{count} repaired"
    return f"sound, with {count} left over" if sound else f"{count} wrong"
