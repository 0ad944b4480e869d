"""`img manifest create|add|annotate|remove|push|rm`: lists of images, put together and sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from img.cli import clicks as click
from img.cli.common import find_globals, human_size, pairs, show_warnings, verb, words
from img.cli.reaching import registry_options
from img.cli.render import renderer
from img.cli.transfer import compression_options, foreign_layers, progress

if TYPE_CHECKING:
    from img.engine import Compression, Engine, ManifestFormat
    from img.engine.lists import EntryChange

F = TypeVar("F", bound=Callable[..., Any])

_ENTRY = (
    click.option("--os", "-os", "os_", default="", metavar="OS", help="Operating system of the image."),
    click.option(
        "--arch", "-arch", "--architecture", "architecture", default="", metavar="ARCH",
        help="Architecture of the image, as Go calls it.",
    ),
    click.option("--variant", "-variant", default="", metavar="VARIANT", help="Variant of the architecture."),
    click.option("--os-version", default="", metavar="VERSION", help="Version of the operating system."),
    click.option(
        "--os-features", multiple=True, metavar="NAME[,NAME]", help="What of the system the image needs."
    ),
    click.option(
        "--features", multiple=True, metavar="NAME[,NAME]", help="What of the processor the image needs."
    ),
)  # fmt: skip


def entry_options(function: F) -> F:
    """Adds what may be said of one image in a list."""
    for option in reversed(_ENTRY):
        function = option(function)
    return function


all_option = click.option(
    "--all",
    "-all",
    "everything",
    is_flag=True,
    help="Take images of all platforms that a name stands for.",
)


def open_engine() -> Engine:
    """The engine of a verb that shows no progress but warnings."""
    from img.engine import Engine

    return Engine(find_globals().settings(), show_warnings)


def _change(options: dict[str, Any], annotations: Sequence[str]) -> EntryChange:
    from img.engine.lists import EntryChange

    return EntryChange(
        os=options["os_"],
        architecture=options["architecture"],
        variant=options["variant"],
        os_version=options["os_version"],
        os_features=words(options["os_features"]),
        features=words(options["features"]),
        annotations=pairs(annotations, "--annotation", bare=False),
    )


@verb(
    "create",
    short="Make a list of images.",
    example="img manifest create HOST/app:1 HOST/app:1-amd64 HOST/app:1-arm64\n"
    "img manifest create --amend HOST/app:1 HOST/app:1-riscv64",
)
@click.argument("name", metavar="LIST")
@click.argument("images", nargs=-1, metavar="[IMAGE...]")
@click.option("--amend", "-a", "-amend", is_flag=True, help="Add to a list that is there already.")
@all_option
@click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Annotate the list itself."
)
@registry_options
def create_command(
    name: str,
    images: tuple[str, ...],
    amend: bool,
    everything: bool,
    annotations: tuple[str, ...],
) -> None:
    """Make a list of images, which are in the store, or else in their registries (docker://NAME: always
    there). Nothing but their manifests and configs is fetched. Prints the list's digest.
    """
    said = pairs(annotations, "--annotation", bare=False)
    with open_engine() as engine:
        digest = engine.lists().create(name, images, amend=amend, everything=everything, annotations=said)
    click.echo(digest)


@verb(
    "add",
    short="Add an image to a list.",
    example="img manifest add HOST/app:1 HOST/app:1-armv7 --arch arm --variant v7\n"
    "img manifest add --all HOST/app:1 docker://HOST/other:1",
)
@click.argument("name", metavar="LIST")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@all_option
@entry_options
@click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Annotate the image in the list."
)
@registry_options
def add_command(
    name: str,
    images: tuple[str, ...],
    everything: bool,
    annotations: tuple[str, ...],
    **options: Any,
) -> None:
    """Add images to a list. Where a name stands for several platforms, the one that --os, --arch and
    --variant say is taken, else this machine's, or with --all every one. An image takes the place of
    the one of its platform. Prints the list's digest.
    """
    change = _change(options, annotations)
    digest = ""
    with open_engine() as engine:
        for image in images:
            digest = engine.lists().add(name, image, change, everything=everything)
    click.echo(digest)


@verb(
    "annotate",
    short="Change what a list says of an image, or of itself.",
    example="img manifest annotate HOST/app:1 HOST/app:1-armv7 --arch arm --variant v7\n"
    "img manifest annotate --index --annotation org.opencontainers.image.version=1.0 HOST/app:1",
)
@click.argument("name", metavar="LIST")
@click.argument("image", required=False, default="", metavar="[IMAGE|DIGEST]")
@entry_options
@click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE",
    help="Annotate the image in the list; with --index, or without an image, the list itself.",
)  # fmt: skip
@click.option("--index", "whole", is_flag=True, help="Annotate the list itself.")
@click.option("--subject", default="", metavar="NAME", help="The manifest that the list is about.")
@registry_options
def annotate_command(
    name: str,
    image: str,
    annotations: tuple[str, ...],
    whole: bool,
    subject: str,
    **options: Any,
) -> None:
    """Change what a list says of an image, named as it was added or by its digest, or of itself. Prints
    the list's digest.
    """
    of_list = whole or not image
    change = _change(options, () if of_list else annotations)
    said = pairs(annotations, "--annotation", bare=False) if of_list else {}
    with open_engine() as engine:
        digest = engine.lists().annotate(name, image, change, annotations=said, subject=subject)
    click.echo(digest)


@verb(
    "remove",
    short="Take images out of a list.",
    example="img manifest remove HOST/app:1 sha256:0f1c",
)
@click.argument("name", metavar="LIST")
@click.argument("images", nargs=-1, required=True, metavar="DIGEST|IMAGE...")
@registry_options
def remove_command(name: str, images: tuple[str, ...]) -> None:
    """Take images out of a list, by digest, by its beginning, or by name. Prints the list's digest."""
    with open_engine() as engine:
        digest = engine.lists().remove(name, images)
    click.echo(digest)


@verb(
    "push",
    short="Push a list, and the images in it.",
    example="img manifest push HOST/app:1\nimg manifest push --rm --format docker HOST/app:1 OTHER/app:1\n"
    "img manifest push --add-compression zstd HOST/app:1",
)
@click.argument("name", metavar="LIST")
@click.argument("dest", required=False, default="", metavar="[NAME]")
@click.option("--all", "-all", "everything", is_flag=True, help="The images in it leave, too: always so.")
@click.option(
    "--format", "-format", "form", type=click.Choice(["oci", "docker", "v2s2"]), default=None,
    help="As what the list leaves: oci (an index) or docker (a list). Default: as what it was made.",
)  # fmt: skip
@click.option(
    "--rm", "--purge", "-p", "purge", is_flag=True, help="Remove the list from the store when it was pushed."
)
@click.option(
    "--digest-file",
    "-digestfile",
    "--digestfile",
    default="",
    metavar="FILE",
    help="Write the digest there.",
)
@compression_options
@click.option(
    "--add-compression", "-add-compression", "added", multiple=True, metavar="gzip|zstd",
    help="Have each image in the list compressed like this as well; may be repeated.",
)  # fmt: skip
@foreign_layers
@registry_options
@progress
def push_command(
    name: str,
    dest: str,
    everything: bool,
    form: str | None,
    purge: bool,
    digest_file: str,
    compression: Compression | None,
    level: int | None,
    force: bool,
    added: tuple[str, ...],
    foreign: bool,
    progress: str,
) -> None:
    """Push a list under its own name, or another. Blobs that the repository lacks are mounted from
    elsewhere in its registry, or copied; then come the manifests, and the list under its tag at the
    very end. Prints the list's digest.

    With --add-compression the list names each image once more, compressed in that way; clients that
    know nothing of it take the one of gzip, which comes first.
    """
    from img.engine import Engine

    forms: dict[str | None, ManifestFormat | None] = {"oci": "oci", "docker": "docker", "v2s2": "docker"}
    options = find_globals()
    to = dest.removeprefix("docker://") or name
    settings = options.settings()
    with renderer(progress, debug=options.debug) as show, Engine(settings, show) as engine:
        digest = engine.push_list(
            name,
            dest="" if to == name else to,
            form=forms.get(form),
            compression=compression,
            level=level,
            force=force,
            add=_compressions(added),
            foreign=foreign,
        )
        if purge:
            engine.remove([name])
    if digest_file:
        with open(digest_file, "w", encoding="ascii") as file:
            file.write(digest + os.linesep)
    click.echo(digest)


def _compressions(said: tuple[str, ...]) -> list[Compression]:
    """What `--add-compression` names, also as `A,B`."""
    from img.engine.variants import ADDABLE

    known: dict[str, Compression] = {form: form for form in ADDABLE}
    try:
        return [known[word] for word in words(said)]
    except KeyError as error:
        raise click.UsageError(f"--add-compression takes gzip or zstd, not {error.args[0]}.") from None


@verb("rm", short="Remove lists.", example="img manifest rm HOST/app:1")
@click.argument("names", nargs=-1, required=True, metavar="LIST...")
def rm_command(names: tuple[str, ...]) -> None:
    """Remove lists, and what was theirs alone; the images in them keep names of their own."""
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        lists = engine.lists()
        for name in names:
            lists.index(name)
        result = engine.remove(names)
    for name in names:
        click.echo(f"Successfully removed {name}", err=True)
    click.echo(f"Freed: {human_size(result.freed_bytes)}", err=True)
