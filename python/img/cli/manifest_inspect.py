"""`img manifest inspect` and `ls`: the documents themselves, and which lists the store has."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import ago, find_globals, format_option, print_rows, show_warnings, table, verb
from img.cli.manifest_lists import open_engine
from img.cli.reaching import registry_options

if TYPE_CHECKING:
    from img.oci import Descriptor, Index, Manifest


@verb(
    "inspect",
    short="Show a list, or the manifest or index that a registry has.",
    example="img manifest inspect HOST/app:1\nimg manifest inspect --raw docker://HOST/app:1 | sha256sum",
)
@click.argument("name", metavar="NAME")
@click.option("-v", "-verbose", "--verbose", is_flag=True, help="Show the manifests in an index as well.")
@click.option("--raw", is_flag=True, help="Print the very bytes, whose sha256 is the digest.")
@registry_options
def inspect_command(name: str, verbose: bool, raw: bool) -> None:
    """Show a list of the store, or else the manifest or index that a registry has (docker://NAME:
    always that), as JSON.
    """
    from img.oci import Index

    with open_engine() as engine:
        lists = engine.lists()
        document = lists.inspect(name)
        found: list[Mapping[str, object]] = []
        if verbose and isinstance(document, Index):
            found = [_verbose(name, entry, each) for entry, each in lists.members(name, document)]
    if raw:
        sys.stdout.buffer.write(document.raw)
        return
    shown: object = json.loads(document.raw)
    if verbose:
        shown = found if isinstance(document, Index) else _verbose(name, document.descriptor, document)
    click.echo(json.dumps(shown, indent=3, ensure_ascii=False))


def _verbose(name: str, entry: Descriptor, document: Manifest | Index) -> dict[str, object]:
    """One manifest with what points at it, under the names that docker has for them."""
    from img.oci import Index, Reference
    from img.oci.descriptor import DOCKER_MANIFEST

    reference = Reference.parse(name.removeprefix("docker://"))
    kind = "SchemaV2Manifest" if document.media_type == DOCKER_MANIFEST else "OCIManifest"
    return {
        "Ref": str(reference.with_digest(entry.digest)),
        "Descriptor": entry.to_json(),
        "OCIIndex" if isinstance(document, Index) else kind: json.loads(document.raw),
    }


@verb("ls", short="List the lists of the store.", example="img manifest ls\nimg manifest ls --json")
@format_option
def ls_command(template: str) -> None:
    """List names that stand for several images: their digests, and the platforms in them."""
    from img.engine import Engine
    from img.oci import Reference

    rows = []
    with Engine(find_globals().settings(), show_warnings) as engine:
        names = engine.store.names
        for row in names.all():
            index = names.list_of(row)
            if index is not None and row.named:
                rows.append(
                    {
                        "name": Reference.parse(row.name).familiar,
                        "digest": index.digest,
                        "media_type": index.media_type,
                        "images": len(index.manifests),
                        "platforms": ",".join(str(platform) for platform in index.platforms),
                        "updated": row.updated,
                    }
                )
    if print_rows(rows, template):
        return
    table(
        ("NAME", "DIGEST", "IMAGES", "PLATFORMS", "CHANGED"),
        [
            (
                str(row["name"]),
                str(row["digest"])[7:19],
                str(row["images"]),
                str(row["platforms"]) or "-",
                ago(float(str(row["updated"]))),
            )
            for row in rows
        ],
    )
