"""`img tags` and `img delete`: the names that a registry has, and how they go."""

from __future__ import annotations

import re
from collections.abc import Sequence

from img.cli import clicks as click
from img.cli.common import (
    find_globals,
    format_option,
    print_json,
    print_rows,
    show_warnings,
    table,
    verb,
)
from img.cli.reaching import registry_options

_WORD = re.compile(r"\d+|[A-Za-z]+")
_BEFORE = ("dev", "pre", "alpha", "a", "beta", "b", "rc")
"""Words after a version that come before it."""


@verb(
    "tags",
    short="List the tags of a repository in a registry.",
    example="img tags alpine\nimg tags --filter '3.*' --sort version alpine\nimg tags --digests HOST/me/app",
)
@click.argument("name", metavar="NAME")
@click.option(
    "--filter",
    "-filter",
    "filters",
    multiple=True,
    metavar="GLOB",
    help="Only tags that a glob such as '3.*' fits.",
)
@click.option(
    "--sort", type=click.Choice(["registry", "name", "version"]), default="registry",
    help="Order: as the registry has them (default), by name, or by version (1.9 before 1.10).",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(min=1), default=None, metavar="N", help="At most so many, the first ones."
)
@click.option("--digests", is_flag=True, help="Ask for the digest of each as well.")
@format_option
@registry_options
def tags_command(
    name: str,
    filters: tuple[str, ...],
    sort: str,
    limit: int | None,
    digests: bool,
    template: str,
) -> None:
    """List the tags of a registry's repository, all pages. The names in oci:PATH, oci-archive:PATH and
    docker-archive:PATH are listed likewise, and the tags in the store of img:NAME.
    """
    from img.engine import Engine
    from img.oci.location import Location

    place = Location.parse(name)
    if digests and place.transport != "docker":
        raise click.UsageError("--digests asks a registry.")
    with Engine(find_globals().settings(), show_warnings) as engine:
        tags = chosen(engine.tags(name), filters, sort)[:limit]
        found = engine.tag_digests(name, tags) if digests else {}
    tags = [tag for tag in tags if tag in found] if digests else tags
    repository = place.reference.familiar_name if place.reference else str(place)
    rows = [
        {
            "name": repository,
            "tag": tag,
            "reference": f"{repository}:{tag}",
            **({"digest": found[tag]} if digests else {}),
        }
        for tag in tags
    ]
    if print_rows(rows, template):
        return
    if digests:
        table(("TAG", "DIGEST"), [(tag, found[tag]) for tag in tags])
        return
    for tag in tags:
        click.echo(tag)


def chosen(tags: Sequence[str], filters: Sequence[str], sort: str) -> list[str]:
    """The tags that any glob fits, in their order."""
    from fnmatch import fnmatchcase

    kept = [tag for tag in tags if not filters or any(fnmatchcase(tag, glob) for glob in filters)]
    if sort == "registry":
        return kept
    return sorted(kept, key=version_key if sort == "version" else None)


def version_key(tag: str) -> tuple[list[tuple[int, int, str]], str]:
    """Orders tags as people count: 1.9 before 1.10, 1.0-rc1 before 1.0, and that before 1.0-alpine."""
    parts: list[tuple[int, int, str]] = []
    for number, word in enumerate(_WORD.findall(tag)):
        if word.isdigit():
            parts.append((3, int(word), ""))
        elif number and word.lower() in _BEFORE:
            parts.append((0, _BEFORE.index(word.lower()), word))
        elif word != "v" or number:
            parts.append((2, 0, word))
    return [*parts, (1, 0, "")], tag


@verb(
    "delete",
    short="Delete images from a registry.",
    example="img delete HOST/me/app:old\nimg delete --force HOST/me/app@sha256:…",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME[:TAG|@DIGEST]...")
@click.option("-f", "--force", "-force", is_flag=True, help="Delete other tags of the same manifest, too.")
@click.option("--tag-only", is_flag=True, help="Delete the tags alone, and leave the manifests.")
@click.option("--json", "as_json", is_flag=True, help="Print what went as JSON.")
@registry_options
def delete_command(names: tuple[str, ...], force: bool, tag_only: bool, as_json: bool) -> None:
    """Delete names from registries, and the manifests that they stand for. Names in the store stay: img rm
    removes those. Where another tag stands for the same manifest, only the tag goes, if the registry can do
    that.
    """
    from img.engine import Engine
    from img.values import asdict

    if force and tag_only:
        raise click.UsageError("--force and --tag-only contradict each other.")
    with Engine(find_globals().settings(), show_warnings) as engine:
        gone = engine.delete_remote(names, force=force, tag_only=tag_only)
    if as_json:
        print_json([asdict(one) for one in gone])
        return
    for one in gone:
        others = len(one.tags) - 1
        more = f", with {others} other tag{'s' if others > 1 else ''}" if one.manifest and others > 0 else ""
        what = one.digest if one.manifest else f"the tag alone, and not {one.digest}"
        click.echo(f"Successfully deleted {one.name} ({what}{more})", err=True)
