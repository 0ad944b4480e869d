"""`img copy`: an image from one place to others, as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from img.cli import clicks as click
from img.cli.common import find_globals, print_json, verb
from img.cli.reaching import registry_options
from img.cli.render import renderer
from img.cli.transfer import compression_options, progress

if TYPE_CHECKING:
    from img.engine import Compression
    from img.engine.copying import CopyResult, Format
    from img.oci.location import Location

EXAMPLE = """\
img copy alpine registry.example.com/mirror/alpine
img copy --platform linux/arm64 alpine oci-archive:alpine.tar
img copy oci:layout:1.0 HOST/app:1.0 HOST/app:latest
img copy img:me/app docker-archive:app.tar:me/app:1"""


@verb("copy", short="Copy an image between registries, archives, layouts and the store.", example=EXAMPLE)
@click.argument("source", metavar="SOURCE")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--platform", "-platform", "platforms", multiple=True, metavar="OS/ARCH",
    help="Of an index, copy only the image for this platform; several: an index of those.",
)  # fmt: skip
@click.option("-a", "--all", "-all", "everything", is_flag=True, help="Copy all of an index (the default).")
@click.option(
    "--multi-arch", "-multi-arch", type=click.Choice(["all", "system"]), default="all", show_default=False,
    help="Of an index, copy all (the default), or only the image for this machine.",
)  # fmt: skip
@click.option(
    "-f", "--format", "-format", "form", type=click.Choice(["oci", "docker", "v2s2"]), default=None,
    help="Rewrite the manifests in this form; their digests change. v2s2 is docker.",
)  # fmt: skip
@compression_options
@click.option("--preserve-digests", is_flag=True, help="Fail rather than change a digest.")
@click.option(
    "--with-referrers", "referrers", is_flag=True,
    help="Copy signatures, SBOMs and whatever else refers to the image.",
)  # fmt: skip
@click.option(
    "--foreign-layers", "--allow-nondistributable-artifacts", "foreign", is_flag=True,
    help="Copy layers as well whose makers want them to be had from elsewhere.",
)  # fmt: skip
@click.option(
    "--digest-file", "-digest-file", "--digestfile", "-digestfile", "digest_file", metavar="FILE",
    help="Write the digest to this file.",
)  # fmt: skip
@click.option(
    "--src-tls-verify", "-src-tls-verify", "source_tls", type=click.BOOL, is_flag=False, flag_value="true",
    default="true", metavar="true|false", help="Insist on TLS with the source's registry. Default: true.",
)  # fmt: skip
@click.option(
    "--dest-tls-verify", "-dest-tls-verify", "target_tls", type=click.BOOL, is_flag=False, flag_value="true",
    default="true", metavar="true|false", help="Insist on TLS with the targets' registries. Default: true.",
)  # fmt: skip
@click.option(
    "--src-creds", "-src-creds", "source_creds", metavar="USER[:PASSWORD]",
    help="Credentials for the source's registry, as --creds REGISTRY=… has them.",
)  # fmt: skip
@click.option(
    "--dest-creds", "-dest-creds", "target_creds", metavar="USER[:PASSWORD]",
    help="Credentials for the targets' registries.",
)  # fmt: skip
@click.option("-q", "--quiet", "-quiet", is_flag=True, help="Print the digest alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@registry_options
@progress
def copy_command(
    source: str,
    targets: tuple[str, ...],
    platforms: tuple[str, ...],
    everything: bool,
    multi_arch: str,
    form: Format | Literal["v2s2"] | None,
    compression: Compression | None,
    level: int | None,
    force: bool,
    preserve_digests: bool,
    referrers: bool,
    foreign: bool,
    digest_file: str | None,
    source_tls: bool,
    target_tls: bool,
    source_creds: str | None,
    target_creds: str | None,
    quiet: bool,
    as_json: bool,
    progress: str,
) -> None:
    """Copy an image without unpacking it, all its platforms included; prints its digest.

    A place is a registry's NAME (docker://NAME), oci:PATH[:REF], oci-archive:PATH[:REF],
    docker-archive:PATH[:NAME], dir:PATH, or img:NAME for the store.
    """
    from img.engine import Engine
    from img.engine.copying import CopyRequest
    from img.oci.location import Location

    if everything and platforms:
        raise click.UsageError("--all and --platform contradict each other.")
    if multi_arch == "system":
        if everything or platforms:
            raise click.UsageError("--multi-arch=system is one platform: give no --all and no --platform.")
        platforms = ("local",)
    request = CopyRequest(
        source=source,
        targets=targets,
        platforms=tuple(word for value in platforms for word in value.split(",") if word),
        form="docker" if form == "v2s2" else form or "",
        compression=compression,
        level=level,
        force=force,
        preserve_digests=preserve_digests,
        referrers=referrers,
        foreign=foreign,
    )
    places = [Location.parse(source), *(Location.parse(target) for target in targets)]
    plain = _registries(places[:1]) if not source_tls else []
    plain += _registries(places[1:]) if not target_tls else []
    options = find_globals()
    for sides, creds in ((places[:1], source_creds), (places[1:], target_creds)):
        if creds:
            options.creds += tuple(f"{registry}={creds}" for registry in _registries(sides))
    with (
        renderer("quiet" if quiet else progress, debug=options.debug) as show,
        Engine(options.settings(insecure=plain), show) as engine,
    ):
        if not quiet:
            click.echo(f"Copying {places[0].familiar}...", err=True)
        result = engine.copy(request)
    if digest_file:
        with open(digest_file, "w", encoding="ascii") as file:
            file.write(result.digest)
    if as_json:
        print_json(_fields(result))
        return
    if not quiet:
        click.echo(_summary(places[1:], result), err=True)
    click.echo(result.digest)


def _registries(places: list[Location]) -> list[str]:
    return [place.reference.registry for place in places if place.transport == "docker" and place.reference]


def _fields(result: CopyResult) -> dict[str, Any]:
    from img.values import asdict

    return asdict(result)


def _summary(targets: list[Location], result: CopyResult) -> str:
    """One line: where it is now."""
    about = f", with {result.referrers} about it" if result.referrers else ""
    return f"Successfully copied to {', '.join(target.familiar for target in targets)}{about}"
