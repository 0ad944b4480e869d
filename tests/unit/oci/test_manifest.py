"""`Manifest`, `Index` and `Image`: documents as they came, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from img.errors import InvalidDocument, Unsupported
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, parse
from img.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    sha256,
)

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
ARM6, ARM7 = Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7")


def descriptor(name: str, platform: Platform | None = None, media_type: str = OCI_LAYER) -> Descriptor:
    return Descriptor(media_type=media_type, digest=sha256(name.encode()), size=len(name), platform=platform)


def document(**changes: Any) -> bytes:
    data = {
        "schemaVersion": 2,
        "config": descriptor("config", media_type=OCI_CONFIG).to_json(),
        "layers": [descriptor("one").to_json()],
    }
    return json.dumps({**data, **changes}, indent=3).encode()


def test_the_digest_is_over_the_bytes_as_they_came() -> None:
    raw = document()
    manifest = parse(raw)
    assert isinstance(manifest, Manifest)
    assert manifest.raw == raw
    assert manifest.digest == sha256(raw)
    assert manifest.descriptor.size == len(raw)


def test_a_written_manifest_reads_back_as_itself() -> None:
    made = Manifest.make(descriptor("c", media_type=OCI_CONFIG), [descriptor("a")], annotations={"k": "v"})
    assert parse(made.raw) == made


def test_a_documents_own_media_type_counts_more_than_the_one_it_was_sent_with() -> None:
    assert parse(document(mediaType=DOCKER_MANIFEST), OCI_MANIFEST).media_type == DOCKER_MANIFEST
    assert parse(document(), DOCKER_MANIFEST + "; charset=utf-8").media_type == DOCKER_MANIFEST
    assert isinstance(parse(b'{"manifests": []}', "text/plain"), Index)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": None},
        {"layers": {}},
        {"config": None},
        {"config": {"mediaType": "a", "digest": "md5:1", "size": 1}},
        {"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": -1}]},
        {"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": True}]},
        {"layers": [{"mediaType": "a", "digest": "sha256:../../etc/passwd", "size": 1}]},
        {"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}]},
        {"mediaType": OCI_INDEX},
    ],
)
def test_a_manifest_that_lacks_what_is_trusted_later_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument):
        parse(document(**changes))


def test_dockers_first_schema_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        parse(b'{"schemaVersion": 1, "fsLayers": []}')


def test_an_index_gives_the_exact_variant_before_one_that_also_runs() -> None:
    index = Index.make([descriptor("any", Platform("linux", "arm")), descriptor("7", ARM7)])
    chosen = index.choose(ARM7)
    assert chosen is not None and chosen.platform == ARM7


def test_an_index_without_a_fitting_platform_gives_nothing_and_names_what_it_has() -> None:
    attestation = descriptor("proof", Platform("unknown", "unknown"))
    index = parse(Index.make([descriptor("a", AMD64), descriptor("6", ARM6), attestation]).raw, DOCKER_LIST)
    assert isinstance(index, Index)
    assert index.choose(ARM64) is None
    assert index.choose(ARM7) is None
    assert index.platforms == (AMD64, ARM6)


def test_an_image_with_other_labels_has_the_same_layers_under_another_id() -> None:
    layer = descriptor("one")
    image = Image.make(ImageConfig(platform=AMD64, diff_ids=(layer.digest,)), (layer,))
    changed = image.with_labels(team="infra").with_env(A="1")
    assert (changed.config.labels, changed.config.env) == ({"team": "infra"}, {"A": "1"})
    assert changed.layers == image.layers
    assert changed.chain_id == image.chain_id
    assert changed.id != image.id
    assert changed.id == sha256(changed.config_raw) == changed.manifest.config.digest
    assert image.config.labels == {}


def test_an_image_without_layers_has_no_chain_and_no_size() -> None:
    image = Image.make(ImageConfig.scratch(AMD64), ())
    assert (image.chain_id, image.size, image.layers) == ("", 0, ())
