"""`img ls`, `du` and `prune`: what the store holds, and how to get it back."""

from __future__ import annotations

from img.cli import clicks as click
from img.cli.common import (
    ago,
    find_globals,
    format_option,
    human_size,
    print_json,
    print_rows,
    show_warnings,
    table,
    verb,
)
from img.cli.render import renderer
from img.cli.transfer import progress
from img.values import asdict


@verb(
    "ls",
    short="List image layers and snapshots.",
    example="img ls\nimg ls -f reclaimable=true --format '{id} {size}'",
)
@click.option(
    "-f", "-filter", "--filter", "filters", multiple=True, metavar="CONDITION",
    help="Show only what fits: id=PREFIX, diff_id=DIGEST, reclaimable=true|false, "
    "mutable=true|false; a bare word is an ID.",
)  # fmt: skip
@format_option
def ls_command(filters: tuple[str, ...], template: str) -> None:
    """List layers and snapshots: ID (* is mutable), whether prune --all would free it, size, last use."""
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        rows: list[dict[str, object]] = [
            {
                "id": record.snapshot,
                "diff_id": record.diff_id,
                "mutable": False,
                "reclaimable": reclaimable,
                "size": record.tar_bytes,
                "last_accessed": record.used,
            }
            for record, reclaimable in engine.layers()
        ]
        rows.extend(
            {
                "id": path.name,
                "diff_id": "",
                "mutable": True,
                "reclaimable": False,
                "size": 0,
                "last_accessed": path.stat().st_mtime,
            }
            for path in engine.store.work.live()
            if path.exists() and any(path.iterdir())
        )
    rows = [row for row in rows if all(_fits(row, condition) for condition in filters)]
    if print_rows(rows, template):
        return
    table(
        ("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"),
        [
            (
                f"{r['id']}{'*' if r['mutable'] else ''}",
                str(r["reclaimable"]).lower(),
                human_size(float(str(r["size"]))),
                ago(float(str(r["last_accessed"]))),
            )
            for r in rows
        ],
    )
    if not filters:
        reclaimable = sum(int(str(r["size"])) for r in rows if r["reclaimable"])
        click.echo(f"Reclaimable:    {human_size(reclaimable)}")
        click.echo(f"Total:          {human_size(sum(int(str(r['size'])) for r in rows))}")


def _fits(row: dict[str, object], condition: str) -> bool:
    """Tells whether a row fits one condition."""
    name, operator, value = condition.partition("==" if "==" in condition else "=")
    if not operator:
        name, value = "id", condition
    if name not in row:
        raise click.UsageError(f"-f: {name!r} is no condition; there are {', '.join(sorted(row))}.")
    field = row[name]
    if isinstance(field, bool):
        return str(field).lower() == value.lower()
    if name in ("id", "diff_id"):
        text = str(field)
        return text.startswith(value.rstrip("*")) or text.removeprefix("sha256:").startswith(value)
    return str(field) == value


@verb("du", short="Show what the store holds on disk, in real bytes.", example="img du\nimg du --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def du_command(as_json: bool) -> None:
    """Show what the store holds on disk: blocks as the file system counts them."""
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        usage = engine.usage()
    if as_json:
        print_json(asdict(usage))
        return
    table(
        ("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"),
        [
            (
                str(row["id"]),
                str(row["reclaimable"]).lower(),
                human_size(float(str(row["bytes"]))),
                ago(float(str(row["last_used"]))),
            )
            for row in usage.layers
        ],
    )
    if usage.cache_mounts:
        click.echo("")
        table(
            ("CACHE MOUNT", "RECLAIMABLE", "SIZE", "LAST ACCESSED"),
            [
                (
                    str(row["id"]),
                    str(row["reclaimable"]).lower(),
                    human_size(float(str(row["bytes"]))),
                    ago(float(str(row["last_used"]))),
                )
                for row in usage.cache_mounts
            ],
        )
    for label, count in (
        ("Layers", usage.layers_bytes),
        ("Cache mounts", usage.cache_mounts_bytes),
        ("Blobs", usage.blobs_bytes),
        ("Logs", usage.logs_bytes),
        ("In progress", usage.work_bytes),
        ("Other", usage.other_bytes),
        ("Reclaimable", usage.reclaimable_bytes),
        ("Total", usage.total_bytes),
    ):
        click.echo(f"{label + ':':<16}{human_size(count)}")


@verb("prune", short="Free what nothing needs any more.", example="img prune\nimg prune --all")
@click.option(
    "-a",
    "-all",
    "--all",
    "everything",
    is_flag=True,
    help="Leave named images only: the build cache goes, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@progress
def prune_command(everything: bool, as_json: bool, progress: str) -> None:
    """Free what no image, no cache policy and no running process needs.

    The cache policy keeps what a build used within the last seven days, and the records of builds of
    that time.
    """
    from img.engine import Engine

    options = find_globals()
    with (
        renderer(progress, debug=options.debug) as show,
        Engine(options.settings(), show) as engine,
    ):
        result = engine.prune(everything=everything)
    if as_json:
        print_json(asdict(result))
        return
    if result.layers:
        table(
            ("ID", "SIZE", "LAST ACCESSED"),
            [
                (str(r["id"]), human_size(float(str(r["bytes"]))), ago(float(str(r["last_used"]))))
                for r in result.layers
            ],
        )
    click.echo(f"Reclaimed:      {human_size(result.freed_bytes)}")
