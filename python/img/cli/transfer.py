"""`img pull` and `img push`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import find_globals, human_size, print_json, verb
from img.cli.reaching import registry_options
from img.cli.render import renderer

if TYPE_CHECKING:
    from img.engine import Compression, PullPolicy

insecure = click.option(
    "--insecure-registry", "-insecure-registry", "insecure", is_flag=True,
    help="Speak plain HTTP to the registry (loopback always may).",
)  # fmt: skip
progress = click.option(
    "--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto",
    help="How progress is shown on standard error.",
)  # fmt: skip


compression = click.option(
    "--compression", "-compression", "compression", type=click.Choice(["gzip", "zstd", "none"]), default=None,
    help="How layers that were built here are compressed. Default: gzip, or as they were before.",
)  # fmt: skip
compression_level = click.option(
    "--compression-level", "-compression-level", "level", type=int, default=None, metavar="N",
    help="Level: 1 to 9 for gzip (default 4), 1 to 22 for zstd (default 2).",
)  # fmt: skip
force_compression = click.option(
    "--force-compression", "-force-compression", "force", is_flag=True,
    help="Compress layers that were pulled as well; their digests change.",
)  # fmt: skip
annotation_option = click.option(
    "--annotation", "-annotation", "annotations", multiple=True, metavar="[PLACE[PLATFORM]:]NAME=VALUE",
    help="Annotate the manifest, or what PLACE says: manifest, index, manifest-descriptor.",
)  # fmt: skip
foreign_layers = click.option(
    "--allow-nondistributable-artifacts", "-allow-nondistributable-artifacts", "foreign", is_flag=True,
    help="Send layers as well whose makers allow no copies; else their URLs stand for them.",
)  # fmt: skip


def registry_of(name: str) -> str:
    """The registry that a name is of."""
    from img.oci import Reference

    return Reference.parse(name).registry


@verb(
    "pull",
    short="Pull an image from a registry.",
    example="img pull alpine:3.20\nimg pull --platform linux/arm64 alpine",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("--platform", "-platform", default="", metavar="OS/ARCH", help="Platform of the image.")
@click.option(
    "--policy", type=click.Choice(["always", "missing", "newer", "never"]), default="always",
    help="When to ask the registry: always (default), missing, newer, never.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@insecure
@registry_options
@progress
def pull_command(
    name: str, platform: str, policy: PullPolicy, as_json: bool, insecure: bool, progress: str
) -> None:
    """Pull an image and extract its layers."""
    from img.engine import Engine
    from img.oci import Reference
    from img.values import asdict

    reference = Reference.parse(name)
    options = find_globals()
    settings = options.settings(insecure=[reference.registry] if insecure else [])
    with renderer(progress, debug=options.debug) as show, Engine(settings, show) as engine:
        click.echo(f"Pulling {reference.familiar}...", err=True)
        result = engine.pull(name, platform=platform, policy=policy)
    if as_json:
        print_json(asdict(result))
        return
    click.echo(f"Snapshot ref: {result.snapshot}")
    click.echo(f"Size: {human_size(result.size)}")


@verb(
    "push",
    short="Push an image to a registry.",
    example="img push registry.example.org/me/app:1.0\nimg push --compression zstd HOST/app:1 HOST/app:2",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME[:TAG]...")
@compression
@compression_level
@force_compression
@annotation_option
@foreign_layers
@click.option("--json", "as_json", is_flag=True, help="Print the digests as JSON.")
@insecure
@registry_options
@progress
def push_command(
    names: tuple[str, ...],
    compression: Compression | None,
    level: int | None,
    force: bool,
    annotations: tuple[str, ...],
    foreign: bool,
    as_json: bool,
    insecure: bool,
    progress: str,
) -> None:
    """Push images under their own names, all at once; prints the digest of each."""
    from img.engine import Engine

    options = find_globals()
    settings = options.settings(insecure=[registry_of(n) for n in names] if insecure else [])
    with renderer(progress, debug=options.debug) as show, Engine(settings, show) as engine:
        click.echo(f"Pushing {', '.join(names)}...", err=True)
        digests = engine.push_all(
            names,
            compression=compression,
            level=level,
            force=force,
            foreign=foreign,
            annotations=annotations,
        )
        for name in digests:
            click.echo(f"Successfully pushed {name}", err=True)
    if as_json:
        print_json(digests)
        return
    for digest in digests.values():
        click.echo(digest)
