"""`add_variants`: further images of a list, the same ones compressed in another way (`--add-compression`).

`Engine.push_list` calls it before the list leaves. A variant is another manifest over the same config; its
entry is the image's own with the mark of containers' tools. Those that only they can read who know zstd come
last: who looks at nothing but platforms takes the first that fits.
Source: containers/image, the annotation `io.github.containers.compression.zstd`; podman-manifest-push(1),
"--add-compression".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from img.engine.requests import Compression
from img.errors import UsageError
from img.oci import Descriptor, Image, Index
from img.oci.descriptor import DOCKER_LIST, OCI_LAYER_ZSTD
from img.oci.manifest import ZSTD, is_zstd
from img.values import replace

if TYPE_CHECKING:
    from img.engine.pushing import Pusher, Shipment

ADDABLE: tuple[Compression, ...] = ("gzip", "zstd")
"""The compressions that a list can tell apart."""


def add_variants(
    shipment: Shipment,
    wanted: Sequence[Compression],
    pusher: Pusher,
    open_pusher: Callable[[Compression], Pusher],
) -> Shipment:
    """Sends what a list lacks of its images in these compressions; gives the list with them, not sent yet.

    An image is what its layers will be when they leave: zstd where one of them is. There is one variant for
    each platform, or for each set of annotations of one; an image that no compression changes gets none.

    Args:
        pusher: What will send the list.
        open_pusher: Makes one that compresses every layer so.
    Raises:
        UsageError: the list leaves in Docker's form, or a compression cannot be told. As `Pusher.deposit`.
    """
    index = shipment.listed
    if index is None or not (wanted or any(map(is_zstd, index.manifests))):
        return shipment
    unknown = [form for form in wanted if form not in ADDABLE]
    if unknown:
        raise UsageError(f"a list tells {' and '.join(ADDABLE)} apart, and no {unknown[0]}")
    if wanted and index.media_type == DOCKER_LIST:
        raise UsageError(
            "Docker's lists cannot say how an image is compressed", hint="push an OCI index: --format oci"
        )
    index = _with_marks(index, {i.digest: _form(pusher.forms.media_types(i)) for i in shipment.images})
    for form in dict.fromkeys(wanted):
        lacking = _lacking(index, shipment.images, form)
        made = open_pusher(form).deposit([image for image, _ in lacking], shipment.name) if lacking else ()
        for (image, entry), variant in zip(lacking, made, strict=True):
            if variant.digest != image.digest:
                index = index.with_manifest(_entry(entry, variant, form))
    index = index.with_entries(sorted(index.manifests, key=is_zstd))
    images = tuple(image for image in shipment.images if index.find(image.digest))
    return replace(shipment, images=images, listed=index)


def _lacking(index: Index, images: Sequence[Image], form: Compression) -> list[tuple[Image, Descriptor]]:
    """The images of an index, with their entries, that it has in no such form: one of all that are alike."""
    found: list[tuple[Image, Descriptor]] = []
    done: set[str] = set()
    for image in images:
        entry = index.find(image.digest)
        if entry is None or entry.digest in done:
            continue
        alike = index.variants(entry)
        done.update(each.digest for each in alike)
        if not any(is_zstd(each) == (form == "zstd") for each in alike):
            found.append((image, entry))
    return found


def _form(media_types: Sequence[str]) -> Compression:
    return "zstd" if OCI_LAYER_ZSTD in media_types else "gzip"


def _with_marks(index: Index, forms: Mapping[str, Compression]) -> Index:
    """The same index, whose entries say how their images leave; of variants that leave alike, the first."""
    entries: list[Descriptor] = []
    for entry in index.manifests:
        form = forms.get(entry.digest)
        said = _marked(entry, form) if form else entry
        changed = is_zstd(entry) and not is_zstd(said)
        if not (changed and index.with_entries(entries).variants(said)):
            entries.append(said)
    return index.with_entries(entries)


def _entry(like: Descriptor, image: Image, form: Compression) -> Descriptor:
    point = image.manifest.descriptor
    return replace(_marked(like, form), media_type=point.media_type, digest=point.digest, size=point.size)


def _marked(entry: Descriptor, form: Compression) -> Descriptor:
    notes = {name: value for name, value in entry.annotations.items() if name != ZSTD}
    return replace(entry, annotations={**notes, ZSTD: "true"} if form == "zstd" else notes)
