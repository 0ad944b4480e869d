"""`img artifact`: files in a registry that are no image: pushed, attached to an image, and pulled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import find_globals, group, pairs, print_json, verb
from img.cli.reaching import registry_options
from img.cli.render import renderer
from img.cli.transfer import progress
from img.values import asdict

if TYPE_CHECKING:
    from img.engine.artifacts import Artifact, ArtifactRequest

VERBS: dict[str, tuple[str, str]] = {
    "attach": ("artifact", "Push files about an image."),
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
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@verb(
    "push",
    short="Push files under a name.",
    example="img artifact push HOST/model:1 weights.bin card.md:text/markdown\n"
    "img artifact push --artifact-type application/vnd.example.model HOST/model:1 weights.bin",
)
@click.argument("name", metavar="NAME[:TAG]")
@click.argument("files", nargs=-1, metavar="[FILE[:TYPE]...]")
@_type
@click.option("--subject", default="", metavar="NAME", help="What it is about, in its repository.")
@_annotations
@_json
@registry_options
@progress
def push_command(
    name: str,
    files: tuple[str, ...],
    artifact_type: str,
    subject: str,
    annotations: tuple[str, ...],
    as_json: bool,
    progress: str,
) -> None:
    """Push files as one artifact; prints its digest. A file's name in it is its path, where that is below
    this folder, else the last part of it; its media type is application/octet-stream unless it is given.
    """
    request = _request(files, artifact_type, subject, annotations)
    _push(name, request, as_json=as_json, progress=progress)


@verb(
    "attach",
    short="Push files about an image.",
    example="img artifact attach --artifact-type application/spdx+json HOST/app:1 sbom.json",
)
@click.argument("subject", metavar="NAME[:TAG|@DIGEST]")
@click.argument("files", nargs=-1, metavar="[FILE[:TYPE]...]")
@_type
@_annotations
@_json
@registry_options
@progress
def attach_command(
    subject: str,
    files: tuple[str, ...],
    artifact_type: str,
    annotations: tuple[str, ...],
    as_json: bool,
    progress: str,
) -> None:
    """Push files as an artifact whose subject is an image, beside it and without a tag: img referrers lists
    it. Prints its digest.
    """
    request = _request(files, artifact_type, subject, annotations)
    _push("", request, as_json=as_json, progress=progress)


def _request(
    files: tuple[str, ...], artifact_type: str, subject: str, annotations: tuple[str, ...]
) -> ArtifactRequest:
    from img.engine.artifacts import ArtifactRequest

    return ArtifactRequest(
        files=files,
        artifact_type=artifact_type,
        subject=subject,
        annotations=pairs(annotations, "--annotation", bare=False),
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
    example="img artifact pull -o sboms HOST/app@sha256:…",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("-o", "-output", "--output", required=True, metavar="DIR", help="Folder to write them to.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@_json
@registry_options
@progress
def pull_command(name: str, output: str, overwrite: bool, as_json: bool, progress: str) -> None:
    """Fetch the files of an artifact into a folder; prints their paths. None gets its name before all of
    them are there, and right.
    """
    from img.engine import Engine

    options = find_globals()
    settings = options.settings()
    with renderer(progress, debug=options.debug) as show, Engine(settings, show) as engine:
        paths = engine.pull_artifact(name, output, overwrite=overwrite)
    if as_json:
        print_json(paths)
        return
    for path in paths:
        click.echo(path)
