"""`img images`, `tag`, `rm`, `inspect`: the names in the store, and what they point at."""

from __future__ import annotations

from datetime import datetime

from img.cli import clicks as click
from img.cli.common import (
    ago,
    find_globals,
    format_option,
    human_size,
    print_rows,
    show_warnings,
    table,
    verb,
)
from img.cli.reaching import registry_options


@verb("images", short="List images.", example="img images\nimg images --format '{name}:{tag} {id}'")
@click.option("-q", "-quiet", "--quiet", is_flag=True, help="Print IDs alone.")
@click.option("--no-trunc", is_flag=True, help="Print whole IDs.")
@format_option
def images_command(quiet: bool, no_trunc: bool, template: str) -> None:
    """List images: name, tag, ID, age, and size in bytes as a registry would store it. A name of several
    platforms has one line, for this machine's; --json and --format tell them all.
    """
    from img.engine import Engine
    from img.oci import Reference

    rows = []
    with Engine(find_globals().settings(), show_warnings) as engine:
        for row in engine.store.names.all():
            names = engine.store.names
            image = None if row.bare else names.load(row.manifest)
            platforms = [each.platform for each in names.images_of(row)] if image else []
            name = Reference.parse(row.name) if row.named else None
            tag = (name.tag or "<none>") if name else "<none>"
            rows.append(
                {
                    "name": name.familiar_name if name else "<none>",
                    "tag": tag,
                    "id": row.config,
                    "digest": row.manifest,
                    "created": image.config.created if image else "",
                    "size": image.size if image else 0,
                    "platforms": ",".join(dict.fromkeys(str(platform) for platform in platforms)),
                    "index": row.index,
                }
            )
    if quiet:
        for line in rows:
            click.echo(line["id"])
        return
    if print_rows(rows, template):
        return
    table(
        ("NAME", "TAG", "IMAGE ID", "CREATED", "SIZE"),
        [
            (
                str(r["name"]),
                str(r["tag"]),
                str(r["id"]) if no_trunc else str(r["id"])[7:19],
                _age(str(r["created"])),
                human_size(float(str(r["size"]))),
            )
            for r in rows
        ],
    )


def _age(created: str) -> str:
    try:
        return ago(datetime.fromisoformat(created[:19] + "+00:00").timestamp())
    except ValueError:
        return ""


@verb("tag", short="Give an image one more name.", example="img tag me/app registry.example.org/me/app:1.0")
@click.argument("source")
@click.argument("target")
def tag_command(source: str, target: str) -> None:
    """Give the image SOURCE the name TARGET as well."""
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        engine.tag(source, target)
    click.echo(f"Successfully tagged {source} as {target}", err=True)


@verb("rm", short="Remove images.", example="img rm me/app")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
def rm_command(names: tuple[str, ...]) -> None:
    """Remove names, and what was theirs alone. What the build cache needs stays until img prune."""
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        result = engine.remove(names)
    for name in names:
        click.echo(f"Successfully removed {name}", err=True)
    click.echo(f"Freed: {human_size(result.freed_bytes)}", err=True)


@verb(
    "inspect",
    short="Show an image's config.",
    example="img inspect me/app\nimg inspect --format '{architecture}' me/app",
)
@click.argument("name", metavar="NAME[:TAG]")
@click.option("--manifest", is_flag=True, help="Show the manifest in place of the config.")
@click.option(
    "--platform", "-platform", default="", metavar="OS/ARCH", help="Of an index, which image is shown."
)
@format_option
@registry_options
def inspect_command(name: str, manifest: bool, platform: str, template: str) -> None:
    """Show an image's OCI config as JSON. A name with a prefix is looked up there, and nothing is pulled:
    docker://NAME in its registry, oci:PATH:REF in a layout, as img copy has them.
    """
    import json

    from img.engine import Engine
    from img.oci.location import has_prefix

    with Engine(find_globals().settings(), show_warnings) as engine:
        if has_prefix(name):
            found = engine.look(name, platform=platform)
            raw = (found.manifest if platform else found.root) if manifest else found.config
        else:
            image = engine.store.names.get(name)
            raw = image.manifest.raw if manifest else image.config_raw
    document = json.loads(raw)
    if template and template != "json":
        print_rows([document], template)
        return
    click.echo(json.dumps(document, indent=4, ensure_ascii=False))
