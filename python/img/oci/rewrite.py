"""`rewrite_manifest` and `rewrite_index`: a document of which something changed, and nothing else.

Who pushes, copies or annotates an image turns its documents here: into OCI's form or Docker's (schema 2: the
same blobs under other media types), onto blobs that were compressed anew, or both. Fields that nobody here
knows stay, and so does the order of all: whichever way an image took, the same change gives the same digest.
Where nothing has to change, the very document is given back. An image's ID, the digest of its config, never
changes here.
Source: OCI image-spec v1.1, media-types.md, "Compatibility Matrix"; Docker image manifest version 2, schema
2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from img.errors import Unsupported
from img.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_OF,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_OF,
    Descriptor,
)
from img.oci.manifest import ABOUT, Index, Manifest, dump, load_object, parse

Form = Literal["oci", "docker"]

_NOT_DOCKERS = ("annotations", "subject", "artifactType")
"""What no document of Docker's says."""


def form_of(document: Manifest | Index) -> Form:
    """The form that a document has."""
    return "docker" if document.media_type in (DOCKER_MANIFEST, DOCKER_LIST) else "oci"


def refuse_zstd(where: str, media_types: Iterable[str]) -> None:
    """Refuses layers for which Docker's form has no media type.

    Raises:
        Unsupported: one of them is zstd.
    """
    if any(media_type.endswith("+zstd") for media_type in media_types):
        raise Unsupported(
            "zstd in Docker's manifests",
            where,
            hint="add --compression gzip --force-compression, or leave it in OCI's form",
        )


def in_form(document: Manifest | Index, form: Form) -> Manifest | Index:
    """A document in a form; the very same where it is in that already.

    Raises:
        Unsupported: as `rewrite_manifest`.
    """
    if isinstance(document, Index):
        return rewrite_index(document, form=form)
    return rewrite_manifest(document, form=form)


def rewrite_manifest(
    manifest: Manifest,
    *,
    form: Form | None = None,
    layers: Sequence[Descriptor] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A manifest in another form, with other layers, or with more annotations.

    Args:
        form: None keeps its own, unless that has no word for its layers. An artifact stays as it is: neither
            form is more its own. What Docker's cannot say is left out on the way there.
        layers: As many as it has, base first. One that is another blob gets a descriptor of its own: what was
            said of the old one's bytes is not true of it.
        annotations: Are added, or take the place of those of these names. They need OCI's form.
    Raises:
        Unsupported: Docker's form is asked for, and a layer is zstd.
    """
    data = cast("dict[str, Any]", load_object(manifest.raw, manifest.digest))
    blobs = manifest.layers if layers is None else tuple(layers)
    pairs = list(zip(data["layers"], blobs, strict=True))
    others = any(entry["digest"] != blob.digest for entry, blob in pairs)
    data["layers"] = [e if e["digest"] == blob.digest else blob.to_json() for e, blob in pairs]
    if annotations:
        data["annotations"] = {**_notes(data), **annotations}
    turned = _turned(manifest, form, blobs)
    if manifest.is_image and (form is not None or others):
        for entry in (data["config"], *data["layers"]):
            entry["mediaType"] = _word(turned, entry["mediaType"])
    if (form_of(manifest), turned) == ("oci", "docker"):
        _leave_out(data)
    media_type = DOCKER_MANIFEST if turned == "docker" else OCI_MANIFEST
    return cast("Manifest", _written(manifest, data, media_type))


def _turned(manifest: Manifest, form: Form | None, blobs: Iterable[Descriptor]) -> Form:
    """The form that a manifest gets."""
    own = form_of(manifest)
    if not manifest.is_image:
        return own
    media_types = [blob.media_type for blob in blobs]
    if form == "docker":
        refuse_zstd(manifest.digest, media_types)
    if form is None and own == "docker" and any(name.endswith("+zstd") for name in media_types):
        return "oci"
    return form or own


def rewrite_index(
    index: Index, *, form: Form | None = None, entries: Mapping[str, Descriptor] | None = None
) -> Index:
    """An index in another form, or of which manifests were written anew.

    Args:
        form: None keeps its own. What Docker's cannot say of the whole is left out on the way there; what is
            said of entries stays, since nobody is disturbed by it and attestations are found by it.
        entries: What stands for manifests now, by the digests that those had. Media type, digest and size
            change, annotations are added, and what was about the old manifest is about the new one.
    """
    data = cast("dict[str, Any]", load_object(index.raw, index.digest))
    new = entries or {}
    for entry in data["manifests"]:
        made = new.get(entry["digest"])
        if made is not None:
            entry.update(mediaType=made.media_type, digest=made.digest, size=made.size)
            entry.pop("data", None)
            if made.annotations:
                entry["annotations"] = {**_notes(entry), **made.annotations}
        about = new.get(str(_notes(entry).get(ABOUT)))
        if about is not None:
            entry["annotations"][ABOUT] = about.digest
    turned = form or form_of(index)
    if (form_of(index), turned) == ("oci", "docker"):
        _leave_out(data)
    return cast("Index", _written(index, data, DOCKER_LIST if turned == "docker" else OCI_INDEX))


def _word(form: Form, media_type: str) -> str:
    return (DOCKER_OF if form == "docker" else OCI_OF).get(media_type, media_type)


def _notes(data: dict[str, Any]) -> dict[str, Any]:
    notes = data.get("annotations")
    return notes if isinstance(notes, dict) else {}


def _leave_out(data: dict[str, Any]) -> None:
    for name in _NOT_DOCKERS:
        data.pop(name, None)


def _written(old: Manifest | Index, data: dict[str, Any], media_type: str) -> Manifest | Index:
    """The document of changed data; the old one where it is the same."""
    if media_type == old.media_type and data == load_object(old.raw, old.digest):
        return old
    # Where the old one did not name its own type, the new one does first.
    data = data if "mediaType" in data else {"mediaType": "", **data}
    data["mediaType"] = media_type
    return parse(dump(data), where="a document that was written anew")
