"""`img history`: the group of verbs about what was built; alone it lists builds, before an image its lines.

docker's `history` shows an image's lines, and ours the builds: a word that is no verb here is an image.
What one build left is shown by `history_inspect`, what its steps wrote by `logs`.
"""

from __future__ import annotations

import fnmatch
from datetime import datetime
from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import (
    ago,
    find_globals,
    format_option,
    group,
    human_size,
    human_time,
    one_line,
    print_rows,
    show_warnings,
    table,
    verb,
)
from img.cli.go import GoGroup

if TYPE_CHECKING:
    from img.engine import Engine
    from img.oci import Image
    from img.store import BuildRow

VERBS: dict[str, tuple[str, str]] = {
    "image": ("history", "Show how an image came about, line by line."),
    "inspect": ("history_inspect", "Show one build: its steps, their times, and why they ran."),
    "ls": ("history", "List builds, newest first."),
    "rm": ("history", "Remove records of builds."),
}
_STATUSES = ("running", "done", "failed", "interrupted", "killed")


class HistoryGroup(GoGroup):
    """`img history [FLAGS]` is `img history ls`, and `img history IMAGE` is `img history image`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts in the verb that is left out."""
        first = args[0] if args else ""
        if first not in ("-h", "-help", "--help", "help") and first not in self.verbs:
            args = ["image" if first and not first.startswith("-") else "ls", *args]
        return super().parse_args(ctx, args)


history_command = group(
    "history",
    kind=HistoryGroup,
    verbs=VERBS,
    short="Show the builds of this store, or how an image came about.\n\n"
    "Alone it lists the builds (`ls`); with the name of an image it shows that image's lines (`image`). "
    "A BUILD is an ID or its beginning, the name of an image for the newest build of it, ^N for the Nth "
    "before the newest, or nothing for the newest.",
    example="img history\nimg history -n 5 --filter status=failed\nimg history inspect me/app\n"
    "img history me/app",
)


# ---- builds --------------------------------------------------------------------------------------


@verb(
    "ls",
    short="List builds, newest first.",
    example="img history ls -n 10\nimg history ls --filter status=failed --format '{id} {name}'",
)
@click.option("-n", "--last", "count", type=click.IntRange(min=1), default=None, metavar="N",
              help="Show the newest N alone.")  # fmt: skip
@click.option(
    "-f", "-filter", "--filter", "filters", multiple=True, metavar="CONDITION",
    help="Show only what fits: status=STATUS, name=PATTERN, context=PATTERN, dockerfile=PATTERN, "
    "image=DIGEST, id=PREFIX; may be repeated.",
)  # fmt: skip
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print IDs alone.")
@format_option
def ls_command(count: int | None, filters: tuple[str, ...], quiet: bool, template: str) -> None:
    """List builds, newest first: ID, name, status, age, duration, and how many steps came from the cache."""
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        found = engine.store.builds.all()
    found = [row for row in found if all(_fits(row, condition) for condition in filters)][:count]
    if quiet:
        for row in found:
            click.echo(row.id)
        return
    if print_rows([_fields(row) for row in found], template):
        return
    table(
        ("BUILD", "NAME", "STATUS", "STARTED", "DURATION", "CACHED"),
        [
            (
                row.id,
                row.name,
                row.status,
                ago(row.started),
                human_time(row.seconds),
                f"{row.cached}/{row.steps}" if row.steps else "-",
            )
            for row in found
        ],
    )


def _fields(row: BuildRow) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "names": list(row.names),
        "status": row.status,
        "started": row.started,
        "seconds": row.seconds,
        "steps": row.steps,
        "cached": row.cached,
        "context": row.context,
        "dockerfile": row.dockerfile,
        "image": row.image,
    }


def _fits(row: BuildRow, condition: str) -> bool:
    """Tells whether a build fits one condition."""
    name, _, value = condition.partition("=")
    if name == "status":
        if value not in _STATUSES:
            raise click.UsageError(f"-f: status is one of {', '.join(_STATUSES)}, not {value!r}.")
        return row.status == value
    if name == "id":
        return row.id.startswith(value)
    if name == "name":
        return any(fnmatch.fnmatchcase(text, value) for text in (row.name, *row.names))
    if name in ("context", "dockerfile", "image"):
        return fnmatch.fnmatchcase(str(getattr(row, name)), value)
    raise click.UsageError(
        f"-f: {name!r} is no condition; there are context, dockerfile, id, image, name, status."
    )


@verb("rm", short="Remove records of builds.", example="img history rm ^1\nimg history rm --all")
@click.argument("builds", nargs=-1, metavar="BUILD...")
@click.option("-a", "-all", "--all", "everything", is_flag=True, help="Remove all but those that run.")
def rm_command(builds: tuple[str, ...], everything: bool) -> None:
    """Remove records of builds, and the logs of their steps. Images and the build cache stay."""
    from img.engine import Engine

    if everything == bool(builds):
        raise click.UsageError("say which: one or several BUILD, or --all.")
    with Engine(find_globals().settings(), show_warnings) as engine:
        store = engine.store.builds
        rows = {row.id: row for row in map(store.find, builds)}
        if everything:
            rows = {row.id: row for row in store.all() if row.status != "running"}
        freed = 0
        for row in rows.values():
            freed += store.remove(row)
            click.echo(row.id)
    click.echo(f"Freed: {human_size(freed)}", err=True)


# ---- an image ------------------------------------------------------------------------------------


@verb(
    "image",
    short="Show how an image came about, line by line.",
    example="img history image me/app\nimg history me/app --no-trunc",
)
@click.argument("name", metavar="IMAGE")
@click.option("--no-trunc", is_flag=True, help="Print whole lines and IDs.")
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print digests of layers alone.")
@format_option
def image_command(name: str, no_trunc: bool, quiet: bool, template: str) -> None:
    """Show how an image came about, newest line first: layer, age, instruction, and size of the layer."""
    from img.engine import Engine
    from img.errors import ImageNotFound

    with Engine(find_globals().settings(), show_warnings) as engine:
        try:
            rows = _lines(engine, engine.store.names.get(name))
        except ImageNotFound as error:
            error.hint = _meant(engine, name) or error.hint
            raise
    if quiet:
        for row in rows:
            click.echo(row["layer"] or "<none>")
        return
    if print_rows(rows, template):
        return
    table(
        ("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"),
        [
            (
                _short(str(row["layer"]), no_trunc) or "-",
                _age(str(row["created"])),
                one_line(str(row["created_by"]), None if no_trunc else 60),
                human_size(float(str(row["size"]))),
                str(row["comment"]),
            )
            for row in rows
        ],
    )


def _meant(engine: Engine, word: str) -> str:
    """What a word that names no image was meant to be, where that can be told."""
    import difflib

    if like := difflib.get_close_matches(word, VERBS, n=1, cutoff=0.6):
        return f"did you mean img history {like[0]}?"
    row = engine.store.builds.match(word)
    return f"{word} is a build: img history inspect {word}" if row is not None else ""


def _lines(engine: Engine, image: Image) -> list[dict[str, object]]:
    """The lines of an image, newest first. Sizes are of the plain tar where the layer is here."""
    layers = iter(image.layers)
    below: list[str] = []
    rows: list[dict[str, object]] = []
    for line in image.config.history:
        row: dict[str, object] = {
            "layer": "",
            "created": line.created,
            "created_by": line.created_by,
            "size": 0,
            "comment": line.comment,
        }
        layer = None if line.empty_layer else next(layers, None)
        if layer is not None:
            known = engine.store.layers.find(layer.diff_id, below)
            row.update(layer=layer.diff_id, size=known.tar_bytes if known else layer.size)
            below.append(layer.diff_id)
        rows.append(row)
    # An image without a history still has layers.
    rows.extend(
        {"layer": x.diff_id, "created": "", "created_by": "", "size": x.size, "comment": ""} for x in layers
    )
    return rows[::-1]


def _short(digest: str, whole: bool) -> str:
    return digest if whole else digest.removeprefix("sha256:")[:12]


def _age(created: str) -> str:
    try:
        return ago(datetime.fromisoformat(created[:19] + "+00:00").timestamp())
    except ValueError:
        return ""
