"""`img referrers`: what a registry has about an image: signatures, attestations, and other artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import format_option, human_size, print_json, print_rows, table, verb
from img.cli.manifest_lists import open_engine
from img.cli.reaching import registry_options

if TYPE_CHECKING:
    from img.engine.referring import Referrer
    from img.oci import Reference


@verb(
    "referrers",
    short="List what a registry has about an image.",
    example="img referrers HOST/app:1\nimg referrers --tree --platform linux/arm64 HOST/app:1\n"
    "img referrers --artifact-type application/spdx+json --format '{digest}' HOST/app@sha256:…",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option(
    "--artifact-type", "-artifact-type", "artifact_type", default="", metavar="TYPE",
    help="Only those that are this.",
)  # fmt: skip
@click.option("--tree", "-tree", is_flag=True, help="Show what is about them, too, and so on.")
@click.option(
    "--depth", "-depth", type=click.IntRange(min=1), default=None, metavar="N",
    help="So many levels of a tree (default 10).",
)  # fmt: skip
@click.option(
    "--platform", "-platform", default="", metavar="OS/ARCH",
    help="What is about the image for this platform, not about the index that names it.",
)  # fmt: skip
@format_option
@registry_options
def referrers_command(
    name: str, artifact_type: str, tree: bool, depth: int | None, platform: str, template: str
) -> None:
    """List the manifests of the repository that name an image as their subject: what each is, its digest,
    size, and annotations. A registry that keeps no such lists is read by the tag that clients write.
    """
    from img.engine.referring import MAX_DEPTH

    tree = tree or depth is not None or template == "tree"
    levels = (depth or MAX_DEPTH) if tree else 1
    with open_engine() as engine:
        subject, found = engine.referrers(name, artifact_type=artifact_type, platform=platform, depth=levels)
    if template == "json" and tree:
        print_json([each.to_json() for each in found])
    elif template not in ("", "tree", "table"):
        print_rows(_rows(found, subject), template)
    elif tree:
        _show_tree(found, subject)
    else:
        _show_table(found, subject)


def _rows(found: tuple[Referrer, ...], subject: Reference) -> list[dict[str, object]]:
    """A row for each, parents first; what is below one has rows of its own."""
    from img.engine.referring import flat

    rows = []
    for each, about, depth in flat(found, subject.digest):
        fields = {key: value for key, value in each.to_json().items() if key != "referrers"}
        rows.append({**fields, "subject": about, "depth": depth})
    return rows


def _show_table(found: Sequence[Referrer], subject: Reference) -> None:
    click.echo(f"{len(found)} about {subject.familiar}", err=True)
    if not found:
        return
    table(
        ("ARTIFACT TYPE", "DIGEST", "SIZE", "ANNOTATIONS"),
        [
            (_plain(each.kind), each.entry.digest, human_size(each.entry.size), " ".join(_notes(each)))
            for each in found
        ],
    )


def _show_tree(found: Sequence[Referrer], subject: Reference) -> None:
    click.echo(subject.familiar)
    for line in _branches(found):
        click.echo(line)


def _branches(found: Sequence[Referrer], before: str = "") -> Iterator[str]:
    """The lines of a tree: one for each manifest, and one for each of its annotations."""
    for number, each in enumerate(found, 1):
        last = number == len(found)
        below = before + ("    " if last else "│   ")
        entry = each.entry
        beyond = "" if each.referrers is not None else "  …"
        yield (
            f"{before}{'└── ' if last else '├── '}{_plain(each.kind)}  {entry.digest}"
            f"  {human_size(entry.size)}{beyond}"
        )
        beside = below + ("│   " if each.referrers else "    ")
        for note in _notes(each):
            yield f"{beside}{note}"
        yield from _branches(each.referrers or (), below)


def _notes(each: Referrer) -> list[str]:
    return [_plain(f"{key}={value}") for key, value in sorted(each.entry.annotations.items())]


def _plain(text: str) -> str:
    """Text that others wrote, without what could fool a terminal."""
    from img.registry.faults import clean

    return clean(text)
