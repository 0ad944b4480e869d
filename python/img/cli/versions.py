"""`img version`."""

from __future__ import annotations

from img.cli import clicks as click
from img.cli.common import print_json, verb
from img.version import describe, facts


@verb("version", short="Show the version information.", example="img version --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version_command(as_json: bool) -> None:
    """Show the version information."""
    if as_json:
        print_json(facts())
    else:
        click.echo(describe(), nl=False)
