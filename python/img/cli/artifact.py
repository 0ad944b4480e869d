"""`img artifact`: files in a registry that are no image: pushed, attached to an image, and pulled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from img.cli import clicks as click
from img.cli.common import (
    find_globals,
    format_option,
    group,
    human_size,
    pairs,
    print_json,
    print_rows,
    show_warnings,
    table,
    verb,
)
from img.cli.reaching import registry_options
from img.cli.render import renderer
from img.cli.transfer import progress
from img.values import asdict

if TYPE_CHECKING:
    from img.engine.artifacts import Artifact, ArtifactRequest

VERBS: dict[str, tuple[str, str]] = {
    "attach": ("artifact", "Push files about an image."),
    "ls": ("artifact", "List the files of an artifact."),
    "pull": ("artifact", "Fetch the files of an artifact."),
    "push": ("artifact", "Push files under a name."),
}
"""As `img.cli.VERBS`: name -> (module below `img.cli`, line of help)."""

artifact_command = group(
    "artifact",
    verbs=VERBS,
    short="Keep files in a registry that are no image.",
    example="img artifact attach --artifact-type application/spdx+json HOST/app:1 sbom.json",
)

_type = click.option(
    "--artifact-type", "-artifact-type", "artifact_type", default="", metavar="TYPE",
    help="What the artifact is, as a media type.",
)  # fmt: skip
_annotations = click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Annotate the artifact."
)
_annotation_file = click.option(
    "--annotation-file", "annotation_file", default="", metavar="FILE",
    help="Annotate by a JSON file: $manifest, $config and names of files, each with its annotations.",
)  # fmt: skip
_config = click.option(
    "--config", "config", default="", metavar="FILE[:TYPE]", help="Give the artifact this file as its config."
)
_platform = click.option(
    "--platform", "-platform", default="", metavar="OS/ARCH",
    help="The artifact for this platform, of a name that stands for several.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@verb(
    "push",
    short="Push files under a name.",
    example="img artifact push HOST/model:1,latest weights.bin card.md:text/markdown\n"
    "img artifact push --artifact-type application/vnd.example.site HOST/site:1 public",
)
@click.argument("name", metavar="NAME[:TAG[,TAG...]]")
@click.argument("files", nargs=-1, metavar="[PATH[:TYPE]...]")
@_type
@click.option("--subject", default="", metavar="NAME", help="What it is about, in its repository.")
@_annotations
@_annotation_file
@_config
@_json
@registry_options
@progress
def push_command(name: str, files: tuple[str, ...], as_json: bool, progress: str, **said: Any) -> None:
    """Push files, and folders, each packed into one file, as one artifact; prints its digest. A file's name
    in it is its path, where that is below this folder, else the last part of it; its media type is
    application/octet-stream unless it is given. A folder is packed as oras does it, and unpacked by a pull;
    no time in it is later than SOURCE_DATE_EPOCH, or than 1970 where that is not set.
    """
    _push(name, _request(files, **said), as_json=as_json, progress=progress)


@verb(
    "attach",
    short="Push files about an image.",
    example="img artifact attach --artifact-type application/spdx+json HOST/app:1 sbom.json",
)
@click.argument("subject", metavar="NAME[:TAG|@DIGEST]")
@click.argument("files", nargs=-1, metavar="[PATH[:TYPE]...]")
@_type
@click.option(
    "--platform", "-platform", default="", metavar="OS/ARCH",
    help="About the image for this platform, not about the index that names it.",
)  # fmt: skip
@_annotations
@_annotation_file
@_config
@_json
@registry_options
@progress
def attach_command(files: tuple[str, ...], as_json: bool, progress: str, **said: Any) -> None:
    """Push files as an artifact whose subject is an image, beside it and without a tag: img referrers lists
    it. Prints its digest.
    """
    _push("", _request(files, **said), as_json=as_json, progress=progress)


def _request(files: tuple[str, ...], annotations: tuple[str, ...], **said: Any) -> ArtifactRequest:
    from img.engine.artifacts import ArtifactRequest
    from img.engine.requests import epoch_of

    return ArtifactRequest(
        files=files,
        annotations=pairs(annotations, "--annotation", bare=False),
        epoch=epoch_of(os.environ.get("SOURCE_DATE_EPOCH", "")) or 0,
        **said,
    )


def _push(name: str, request: ArtifactRequest, *, as_json: bool, progress: str) -> None:
    from img.engine import Engine

    options = find_globals()
    settings = options.settings()
    with renderer(progress, debug=options.debug) as show, Engine(settings, show) as engine:
        pushed: Artifact = engine.push_artifact(name, request, cwd=os.getcwd())
    if as_json:
        print_json(asdict(pushed))
        return
    click.echo(f"Successfully pushed {pushed.name}", err=True)
    click.echo(pushed.digest)


@verb(
    "pull",
    short="Fetch the files of an artifact.",
    example="img artifact pull -o sboms HOST/app@sha256:…\nimg artifact pull --include '*.md' HOST/model:1",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option(
    "-o", "-output", "--output", default=".", metavar="DIR",
    help="Folder to write them to (default: this one).",
)  # fmt: skip
@click.option(
    "--include", "-include", "include", multiple=True, metavar="GLOB",
    help="Only files whose names a glob such as 'docs/*' fits; may be repeated.",
)  # fmt: skip
@_platform
@click.option("--config", default="", metavar="FILE", help="Write the artifact's config to this file.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@_json
@registry_options
@progress
def pull_command(
    name: str, output: str, include: tuple[str, ...], as_json: bool, progress: str, **said: Any
) -> None:
    """Fetch the files of an artifact into a folder; prints their paths. Packed folders are unpacked. None
    gets its name before all of them are there, and right.
    """
    from img.engine import Engine
    from img.engine.retrieving import ArtifactWish

    options = find_globals()
    settings = options.settings()
    wish = ArtifactWish(include=include, **said)
    with renderer(progress, debug=options.debug) as show, Engine(settings, show) as engine:
        paths = engine.pull_artifact(name, output, wish)
    if as_json:
        print_json(paths)
        return
    for path in paths:
        click.echo(path)


@verb(
    "ls",
    short="List the files of an artifact.",
    example="img artifact ls HOST/model:1\nimg artifact ls --format '{name} {digest}' HOST/model:1",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@_platform
@format_option
@registry_options
def ls_command(name: str, platform: str, template: str) -> None:
    """List the files of an artifact: their names, media types and sizes; a packed folder's name ends in /.
    img manifest inspect shows the manifest itself.
    """
    from img.engine import Engine
    from img.engine.retrieving import files_of
    from img.registry.faults import clean

    with Engine(find_globals().settings(), show_warnings) as engine:
        files = files_of(engine.artifact(name, platform))
    if print_rows(files, template):
        return
    table(
        ("NAME", "TYPE", "DIGEST", "SIZE"),
        [
            (
                clean(str(file["name"])) + ("/" if file["packed"] else ""),
                clean(str(file["media_type"])),
                str(file["digest"])[7:19],
                human_size(int(str(file["size"]))),
            )
            for file in files
        ],
    )
