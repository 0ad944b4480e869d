"""`img save`, `load` and `unpack`: images as archives, and as plain folders."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from img.cli import clicks as click
from img.cli.common import find_globals, show_warnings, spool_stdin, stdin_bytes, verb
from img.cli.render import renderer
from img.cli.transfer import compression_options, progress

if TYPE_CHECKING:
    from img.engine import Compression
    from img.exporter import Form
    from img.progress import Progress


@verb(
    "save",
    short="Save images to an archive.",
    example="img save -o app.tar me/app\nimg save --format oci me/app | ssh host img load",
)
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o", "-output", "--output", default="", metavar="FILE", help="File to write; default: standard output."
)
@click.option(
    "--format", "-format", "form", default="docker",
    type=click.Choice(["docker", "oci", "docker-archive", "oci-archive"]), help="Form of the archive.",
)  # fmt: skip
@compression_options
@progress
def save_command(
    names: tuple[str, ...],
    output: str,
    form: str,
    compression: Compression | None,
    level: int | None,
    force: bool,
    progress: str,
) -> None:
    """Save images to one archive that docker, podman, skopeo and img can load."""
    from img.cli.report import check_place
    from img.engine import Engine

    if output:
        check_place(output, "--output")
    if not output and sys.stdout.isatty():
        raise click.UsageError("an archive is nothing for a terminal: name a file with -o FILE.")
    kind: Form = "docker-archive" if form.startswith("docker") else "oci-archive"
    said: Any = {"compression": compression, "level": level, "force": force}
    # Beside an archive that goes on to another program, a log has no place.
    mode = progress if progress != "auto" or output or sys.stderr.isatty() else "warnings"
    options = find_globals()
    with renderer(mode, debug=options.debug) as show, Engine(options.settings(), show) as engine:
        if not output:
            engine.save(names, sys.stdout.buffer, form=kind, **said)
            return
        # Written beside its place and renamed: a failure leaves no half archive under the name.
        partial = f"{output}.{os.getpid()}.part"
        try:
            with open(partial, "wb") as file:
                engine.save(names, file, form=kind, **said)
            os.replace(partial, output)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)


@verb("load", short="Load images from an archive.", example="img load -i app.tar\nimg load < app.tar")
@click.option(
    "-i",
    "-input",
    "--input",
    "source",
    default="",
    metavar="FILE",
    help="File to read; default: standard input.",
)
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print names alone.")
@progress
def load_command(source: str, quiet: bool, progress: str) -> None:
    """Load images from a docker archive or an OCI archive, compressed or not, or an OCI layout's folder."""
    import tempfile

    from img.engine import Engine

    options = find_globals()
    mode = "warnings" if quiet and progress == "auto" else progress
    with ExitStack() as held:
        show = held.enter_context(renderer(mode, debug=options.debug))
        engine = held.enter_context(Engine(options.settings(), show))
        if source in ("", "-"):
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="img-"))
            source = _spool(folder, show)
        names = engine.load(source)
    for name in names:
        click.echo(name if quiet else f"Loaded image: {name}")


def _spool(folder: str, show: Progress) -> str:
    """Standard input as a file, with progress; of a pipe nobody knows how much is to come."""
    from img.progress import Meter

    meter = Meter(show, "load", "standard input", stdin_bytes())
    path = spool_stdin(folder, meter.at)
    meter.finished("read", os.path.getsize(path))
    return path


@verb(
    "unpack", short="Write an image's root filesystem into a folder.", example="img unpack -o rootfs me/app"
)
@click.argument("name", metavar="IMAGE")
@click.option(
    "-o", "-output", "--output", default="rootfs", metavar="DIR", help="New folder. Default: ./rootfs"
)
@click.option(
    "--owners/--no-owners",
    default=None,
    help="Give files to whom the image says, or all to you. Default: only root keeps owners.",
)
def unpack_command(name: str, output: str, owners: bool | None) -> None:
    """Write an image's root filesystem into a new folder.

    As an ordinary user every file is yours unless --owners is given: then files belong to your
    subordinate ids, as the image says, and only a process in your user namespace can change them.
    """
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        engine.unpack(name, output, owners=owners)
    click.echo(f"Successfully unpacked rootfs for {name} to: {output}", err=True)
