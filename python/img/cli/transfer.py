"""`img pull` and `img push`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from img.cli import clicks as click
from img.cli.common import find_globals, human_size, print_json, verb, words
from img.cli.reaching import registry_options
from img.cli.render import renderer

if TYPE_CHECKING:
    from img.engine import Compression, ManifestFormat, PullPolicy, PullResult

F = TypeVar("F", bound=Callable[..., Any])

progress = click.option(
    "--progress", type=click.Choice(["auto", "plain", "tty", "json", "quiet"]), default="auto",
    help="How progress is shown on standard error.",
)  # fmt: skip


_COMPRESSION = (
    click.option(
        "--compression", "-compression", "compression", type=click.Choice(["gzip", "zstd", "none"]),
        default=None,
        help="How layers that were built here are compressed. Default: gzip, or as they were before.",
    ),
    click.option(
        "--compression-level", "-compression-level", "level", type=int, default=None, metavar="N",
        help="Level: 1 to 9 for gzip (default 4), 1 to 22 for zstd (default 2).",
    ),
    click.option(
        "--force-compression", "-force-compression", "force", is_flag=True,
        help="Compress layers that were pulled as well; their digests change.",
    ),
)  # fmt: skip
annotation_option = click.option(
    "--annotation", "-annotation", "annotations", multiple=True, metavar="[PLACE[PLATFORM]:]NAME=VALUE",
    help="Annotate the manifest, or what PLACE says: manifest, index, manifest-descriptor.",
)  # fmt: skip
foreign_layers = click.option(
    "--allow-nondistributable-artifacts", "-allow-nondistributable-artifacts", "foreign", is_flag=True,
    help="Send layers as well whose makers allow no copies; else their URLs stand for them.",
)  # fmt: skip


def compression_options(function: F) -> F:
    """Adds what says how layers leave: `compression`, `level` and `force`."""
    for option in reversed(_COMPRESSION):
        function = option(function)
    return function


def registry_of(name: str) -> str:
    """The registry that a name is of."""
    from img.oci import Reference

    return Reference.parse(name.removeprefix("docker://")).registry


@verb(
    "pull",
    short="Pull images from a registry.",
    example="img pull alpine:3.20\nimg pull --platform linux/arm64 alpine debian\n"
    "img pull --all-platforms --no-extract alpine",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME[:TAG|@DIGEST]...")
@click.option("-a", "-all-tags", "--all-tags", is_flag=True, help="Pull every tag of the repositories.")
@click.option(
    "--platform", "-platform", "platforms", multiple=True, metavar="OS/ARCH",
    help="Platform of the image; may be repeated.",
)  # fmt: skip
@click.option(
    "--all-platforms",
    "-all-platforms",
    is_flag=True,
    help="Pull all that a name stands for, for any platform.",
)
@click.option("--no-extract", "-no-extract", is_flag=True, help="Keep layers as they come; unpack none.")
@click.option(
    "--policy", "--pull", type=click.Choice(["always", "missing", "newer", "never"]), default="always",
    help="When to ask the registry: always (default), missing, newer, never.",
)  # fmt: skip
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print image IDs alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@registry_options
@progress
def pull_command(
    names: tuple[str, ...],
    all_tags: bool,
    platforms: tuple[str, ...],
    all_platforms: bool,
    no_extract: bool,
    policy: PullPolicy,
    quiet: bool,
    as_json: bool,
    progress: str,
) -> None:
    """Pull images, all at once, and extract the layers of each. What img copy takes for a place
    (oci:PATH:REF and its kin) is pulled from there.
    """
    from img.engine import Engine
    from img.values import asdict

    options = find_globals()
    settings = options.settings()
    with renderer("quiet" if quiet else progress, debug=options.debug) as show:
        for name in names if not quiet else ():
            click.echo(f"Pulling {_shown(name, all_tags=all_tags)}...", err=True)
        with Engine(settings, show) as engine:
            results = engine.pull_all(
                names, all_tags=all_tags, platforms=words(platforms), all_platforms=all_platforms,
                extract=not no_extract, policy=policy,
            )  # fmt: skip
    if as_json:
        rows = [asdict(result) for result in results]
        print_json(rows[0] if len(names) == 1 and not all_tags else rows)
        return
    for result in results:
        if quiet:
            click.echo(result.id)
        else:
            _show_pulled(result, several=len(results) > 1)


def _shown(name: str, *, all_tags: bool) -> str:
    """A place or a name as people write it; of all tags, the repository alone."""
    from img.oci.location import Location

    place = Location.parse(name)
    if all_tags and place.reference is not None:
        return place.reference.familiar_name
    return place.familiar


def _show_pulled(result: PullResult, *, several: bool) -> None:
    """What came of one name; the first img's two lines are the last."""
    from img.oci import Reference

    if several:
        click.echo(f"Pulled: {Reference.parse(result.reference).familiar}")
    click.echo(f"Digest: {result.index or result.digest}")
    click.echo(f"Snapshot ref: {result.snapshot}" if result.snapshot else f"Image ID: {result.id}")
    click.echo(f"Size: {human_size(result.size)}")


@verb(
    "push",
    short="Push images to a registry.",
    example="img push registry.example.org/me/app:1.0\nimg push --compression zstd HOST/app:1 HOST/app:2\n"
    "img push --all-tags --format docker HOST/app",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME[:TAG|@DIGEST]...")
@click.option("-a", "-all-tags", "--all-tags", is_flag=True, help="Push every tag of the repositories.")
@click.option(
    "--format", "-format", "form", type=click.Choice(["oci", "docker"]), default=None,
    help="Documents of the image. Default: those that it has.",
)  # fmt: skip
@compression_options
@click.option(
    "--digest-file", "--digestfile", "digest_file", metavar="FILE", default="",
    help="Write the digest here; of several names, NAME@DIGEST in a line each.",
)  # fmt: skip
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print digests alone, and no progress.")
@annotation_option
@foreign_layers
@click.option("--json", "as_json", is_flag=True, help="Print the digests as JSON.")
@registry_options
@progress
def push_command(
    names: tuple[str, ...],
    all_tags: bool,
    form: ManifestFormat | None,
    compression: Compression | None,
    level: int | None,
    force: bool,
    digest_file: str,
    quiet: bool,
    annotations: tuple[str, ...],
    foreign: bool,
    as_json: bool,
    progress: str,
) -> None:
    """Push images under their own names, all at once; prints the digest of each."""
    from img.cli.report import check_file, write_file
    from img.engine import Engine
    from img.errors import without_password

    if digest_file:
        check_file(digest_file, "--digest-file")
    options = find_globals()
    settings = options.settings()
    with (
        renderer("quiet" if quiet else progress, debug=options.debug) as show,
        Engine(settings, show) as engine,
    ):
        if not quiet:
            click.echo(f"Pushing {', '.join(map(without_password, names))}...", err=True)
        digests = engine.push_all(
            names,
            all_tags=all_tags,
            form=form,
            compression=compression,
            level=level,
            force=force,
            foreign=foreign,
            annotations=annotations,
        )
        for name in digests if not quiet else ():
            click.echo(f"Successfully pushed {name}", err=True)
    if digest_file:
        alone = len(digests) == 1 and not all_tags
        lines = [digest if alone else f"{_full(name)}@{digest}\n" for name, digest in digests.items()]
        write_file(digest_file, "".join(lines))
    if as_json:
        print_json(digests)
        return
    for digest in digests.values():
        click.echo(digest)


def _full(name: str) -> str:
    """A name in full, with its tag and without its digest."""
    from img.oci import Reference
    from img.values import replace

    return str(replace(Reference.parse(name), digest=""))
