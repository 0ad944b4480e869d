"""`img referrers`: what a registry has about an image: signatures, attestations, and other artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import format_option, human_size, print_rows, table, verb
from img.cli.manifest_lists import open_engine
from img.cli.reaching import registry_options

if TYPE_CHECKING:
    from img.oci import Descriptor


@verb(
    "referrers",
    short="List what a registry has about an image.",
    example="img referrers HOST/app:1\n"
    "img referrers --artifact-type application/spdx+json --format '{digest}' HOST/app@sha256:…",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option(
    "--artifact-type", "-artifact-type", "artifact_type", default="", metavar="TYPE",
    help="Only those that are this.",
)  # fmt: skip
@format_option
@registry_options
def referrers_command(name: str, artifact_type: str, template: str) -> None:
    """List the manifests of the repository that name an image as their subject: what each is, its digest,
    size, and annotations. A registry that keeps no such lists is read by the tag that clients write.
    """
    with open_engine() as engine:
        reference, found = engine.lists().referrers(name, artifact_type=artifact_type)
    if print_rows([_row(entry) for entry in found], template):
        return
    click.echo(f"{len(found)} about {reference.familiar}", err=True)
    if not found:
        return
    table(
        ("ARTIFACT TYPE", "DIGEST", "SIZE", "ANNOTATIONS"),
        [
            (
                entry.artifact_type or entry.media_type,
                entry.digest,
                human_size(entry.size),
                " ".join(f"{key}={value}" for key, value in sorted(entry.annotations.items())),
            )
            for entry in found
        ],
    )


def _row(entry: Descriptor) -> dict[str, object]:
    return {
        "artifact_type": entry.artifact_type,
        "media_type": entry.media_type,
        "digest": entry.digest,
        "size": entry.size,
        "annotations": dict(entry.annotations),
    }
