"""What `img build` leaves for other programs: `--iidfile`, `--metadata-file`, and its last lines.

`build` calls `check_files` before anything is built, so that a long build does not end in a mistyped
path, and `write_files` once it has succeeded. A build that fails leaves neither file.
Source: docker buildx build, "--iidfile" and "--metadata-file", whose field names these are.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from img.cli import clicks as click
from img.cli.common import print_json
from img.values import asdict

if TYPE_CHECKING:
    from img.engine import BuildResult
    from img.store import Store

_FILES = {"iidfile": "--iidfile", "metadata_file": "--metadata-file"}


def check_files(flags: dict[str, Any]) -> None:
    """Sees that both files can be written, and takes away what an earlier build wrote there.

    Raises:
        click.UsageError: the folder is not there, or the name is a folder's.
    """
    for name, flag in _FILES.items():
        if flags[name]:
            check_file(flags[name], flag)


def check_place(path: str, flag: str) -> None:
    """Sees that a file can be written there.

    Raises:
        click.UsageError: the folder is not there, or the name is a folder's.
    """
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise click.UsageError(f"{flag}: there is no folder {folder}.")
    if os.path.isdir(path):
        raise click.UsageError(f"{flag}: {path} is a folder.")


def check_file(path: str, flag: str) -> None:
    """As `check_place`, for a result; takes away what an earlier command wrote there.

    Raises:
        click.UsageError: as `check_place`.
    """
    check_place(path, flag)
    if os.path.isfile(path):
        # What fails must not look as if it had given an earlier image.
        os.unlink(os.path.realpath(path))


def write_files(result: BuildResult, flags: dict[str, Any], store: Store) -> None:
    """Writes the files that were asked for."""
    if flags["iidfile"]:
        write_file(flags["iidfile"], result.id)
    if flags["metadata_file"]:
        text = json.dumps(metadata(result, store), indent=2, sort_keys=True)
        write_file(flags["metadata_file"], text + "\n")


def metadata(result: BuildResult, store: Store) -> dict[str, Any]:
    """What `--metadata-file` holds: docker's fields, ours, and those of the result."""
    # Of several targets, what stands at the top is the last one's.
    pushed = next((result.pushed[tag] for tag in result.tags if tag in result.pushed), result.digest)
    data: dict[str, Any] = {
        "containerimage.config.digest": result.id,
        "containerimage.descriptor": descriptor(store, pushed),
        "containerimage.digest": pushed,
        "image.name": ",".join(result.tags),
        **asdict(result),
    }
    targets = dict.fromkeys(image.target for image in result.images)
    if len(targets) > 1:
        data["img.targets"] = {target: _of_target(target, result, store) for target in targets}
    if result.build:
        data["img.build.ref"] = result.build
        data["img.build.record"] = str(store.builds.folder(result.build) / "build.json")
    return data


def _of_target(target: str, result: BuildResult, store: Store) -> dict[str, Any]:
    """docker's fields of one target, where there are several: those of `metadata` are the last one's."""
    images = [image for image in result.images if image.target == target]
    digest = images[0].digest
    if images[0].tags:
        row = store.names.row(images[0].tags[0])
        digest = result.pushed.get(images[0].tags[0]) or row.index or row.manifest
    return {
        "containerimage.config.digest": images[0].id,
        "containerimage.descriptor": descriptor(store, digest),
        "containerimage.digest": digest,
        "image.name": ",".join(images[0].tags),
    }


def descriptor(store: Store, digest: str) -> dict[str, Any]:
    """The descriptor of a manifest or an index, as docker writes it; an image's has its platform."""
    from img.oci import ImageConfig, Manifest, parse

    document = parse(store.blobs.read(digest), where=digest)
    data: dict[str, Any] = document.descriptor.to_json()
    if isinstance(document, Manifest):
        config = ImageConfig.from_bytes(store.blobs.read(document.config.digest))
        data["platform"] = config.platform.to_json()
        if config.created:
            data["annotations"] = {"org.opencontainers.image.created": config.created}
    return data


def show(result: BuildResult, flags: dict[str, Any], mode: str) -> None:
    """Says what was built, in the forms that were asked for."""
    if flags["as_json"]:
        print_json(asdict(result))
    elif flags["quiet"]:
        for image in result.images:
            click.echo(image.id)
    if mode in ("auto", "plain", "tty"):
        names = [tag.rpartition("=")[2] for tag in flags["tags"]]
        names += dict.fromkeys(image.id for image in result.images if not image.tags)
        verb = "Built and pushed" if result.pushed else "Built"
        print(f"{verb} image: {', '.join(names)}", file=sys.stderr)


def write_file(path: str, text: str) -> None:
    """Writes a small file whole or not at all; a pipe or a device is written into, never replaced."""
    real = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        return
    partial = f"{real}.{os.getpid()}.part"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, real)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
