"""`img cache mounts`: the folders of RUN --mount=type=cache, listed, carried about and removed by hand."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import AbstractContextManager

from img.cli import clicks as click
from img.cli.common import (
    ago,
    find_globals,
    format_option,
    group,
    human_size,
    print_json,
    print_rows,
    show_warnings,
    spool_stdin,
    table,
    verb,
)
from img.cli.render import renderer
from img.progress import Progress
from img.values import asdict

VERBS: dict[str, tuple[str, str]] = {
    "export": ("cache_mounts", "Write a cache mount to a file or into a shared cache."),
    "import": ("cache_mounts", "Make or replace a cache mount from an archive or a shared cache."),
    "ls": ("cache_mounts", "List cache mounts."),
    "rm": ("cache_mounts", "Remove cache mounts."),
}
"""As `img.cli.VERBS`: name -> (module below `img.cli`, line of help)."""

mounts_command = group(
    "mounts",
    verbs=VERBS,
    short="List, export, import and remove cache mounts.",
    example="img cache mounts ls\nimg cache mounts export /root/.cache/pip -o pip.tar.zst",
)


@verb(
    "ls",
    short="List cache mounts.",
    example="img cache mounts ls\nimg cache mounts ls --format '{id} {bytes}'",
)
@format_option
def ls_command(template: str) -> None:
    """List the folders of RUN --mount=type=cache: id, name, options, real bytes, last use, and who is busy.

    A cache with another owner, mode or seed is another cache, and a private one may have several copies:
    each has a name, whose beginning stands for it where the id alone would not do.
    """
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        mounts = engine.cache_mounts()
    if print_rows([asdict(mount) for mount in mounts], template):
        return
    table(
        ("ID", "NAME", "OPTIONS", "SIZE", "LAST USED", "BUSY"),
        [
            (
                mount.id,
                _short(mount.name),
                mount.shape or "-",
                human_size(mount.bytes),
                ago(mount.last_used),
                "yes" if mount.busy else "no",
            )
            for mount in mounts
        ],
    )


@verb(
    "export",
    usage="[OPTIONS] ID",
    short="Write a cache mount to a file or into a shared cache.",
    example="img cache mounts export /root/.cache/pip -o pip.tar.zst\n"
    "img cache mounts export /root/.npm --to type=registry,ref=localhost:5000/cache",
)
@click.argument("name", metavar="ID")
@click.option(
    "-o", "-output", "--output", metavar="FILE",
    help="Write a .tar.zst file; - is standard output, which is also the default where it is no terminal.",
)  # fmt: skip
@click.option("-to", "--to", metavar="SPEC", default="", help="Write into a shared cache, as --cache-to.")
def export_command(name: str, output: str | None, to: str) -> None:
    """Write a cache mount as a .tar.zst file, which tar reads, or into a shared cache beside what is there.

    A build may use the cache meanwhile, unless it wants it alone (sharing=locked or private): that waits.
    """
    from img.cli.report import check_place
    from img.engine import Engine

    if to and output is not None:
        raise click.UsageError("-o and --to are two places: give one.")
    if not to and output in (None, "-") and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal: give a file with -o FILE, or --to type=…")
    if output is not None and output != "-":
        check_place(output, "--output")
    with _shown() as show, Engine(find_globals().settings(), show) as engine:
        if to:
            engine.export_cache_mount(name, to=to, cwd=os.getcwd())
        elif output is None or output == "-":
            sys.stdout.flush()
            engine.export_cache_mount(name, out=sys.stdout.buffer)
        else:
            # Written beside its place and renamed: a failure leaves no half archive under the name.
            partial = f"{output}.{os.getpid()}.part"
            try:
                with open(partial, "wb") as file:
                    engine.export_cache_mount(name, out=file)
                os.replace(partial, output)
            finally:
                if os.path.exists(partial):
                    os.unlink(partial)


@verb(
    "import",
    usage="[OPTIONS] ID [FILE|-]",
    short="Make or replace a cache mount from an archive or a shared cache.",
    example="img cache mounts import /root/.cache/pip pip.tar.zst\n"
    "img cache mounts import /root/.npm --from type=registry,ref=localhost:5000/cache",
)
@click.argument("name", metavar="ID")
@click.argument("archive", metavar="[FILE|-]", required=False)
@click.option(
    "-from", "--from", "source", metavar="SPEC", default="", help="Read a shared cache, as --cache-from."
)
@click.option(
    "-uid", "--uid", type=click.IntRange(0), default=0, help="The mount's uid=, as the Dockerfile has it."
)
@click.option(
    "-gid", "--gid", type=click.IntRange(0), default=0, help="The mount's gid=, as the Dockerfile has it."
)
@click.option(
    "-mode", "--mode", metavar="OCTAL", default="", help="The mount's mode=, as the Dockerfile has it."
)
def import_command(name: str, archive: str | None, source: str, uid: int, gid: int, mode: str) -> None:
    """Make a cache mount from an archive (tar; zstd, gzip, bzip2 or xz around it), or replace one.

    The next build that mounts a cache with this id, owner and mode finds it. One that a build is using is
    not replaced.
    """
    from img.engine import Engine

    if bool(source) == (archive is not None):
        raise click.UsageError("give an archive (- is standard input), or --from type=…")
    bits = _octal(mode)
    with tempfile.TemporaryDirectory(prefix="img-") as folder:
        path = spool_stdin(folder) if archive == "-" else archive
        with _shown() as show, Engine(find_globals().settings(), show) as engine:
            made = engine.import_cache_mount(
                name,
                archive=os.path.abspath(path) if path else "",
                source=source,
                cwd=os.getcwd(),
                uid=uid,
                gid=gid,
                mode=bits,
            )
    click.echo(made)


@verb(
    "rm",
    usage="[OPTIONS] ID...",
    short="Remove cache mounts.",
    example="img cache mounts rm /root/.cache/pip\nimg cache mounts rm --all",
)
@click.argument("names", metavar="ID...", nargs=-1)
@click.option("-a", "-all", "--all", "everything", is_flag=True, help="Remove all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rm_command(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove every copy of the cache mounts that are named. Where a build uses one of them, none goes."""
    from img.engine import Engine

    if bool(names) == everything:
        raise click.UsageError("name cache mounts, or give --all.")
    with Engine(find_globals().settings(), show_warnings) as engine:
        gone = engine.remove_cache_mounts(names, everything=everything)
    if as_json:
        print_json([asdict(mount) for mount in gone])
        return
    for mount in gone:
        click.echo(f"{mount.id} {_short(mount.name)}")
    click.echo(f"Reclaimed:      {human_size(sum(mount.bytes for mount in gone))}")


def _shown() -> AbstractContextManager[Progress]:
    return renderer("auto", debug=find_globals().debug)


def _short(name: str) -> str:
    """As much of a copy's name as tells it from others."""
    key, _, number = name.partition(".")
    return f"{key[:12]}.{number}" if number != "0" else key[:12]


def _octal(text: str) -> int | None:
    if not text:
        return None
    if not 0 < len(text) <= 5 or any(digit not in "01234567" for digit in text) or int(text, 8) > 0o7777:
        raise click.UsageError(f"--mode takes permission bits in octal, as 0700, not {text!r}.")
    return int(text, 8)
