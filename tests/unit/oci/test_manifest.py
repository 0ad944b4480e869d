"""`Manifest`, `Index` and `Image`: documents as they came, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from img.errors import InvalidDocument, Unsupported
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, parse
from img.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    sha256,
)
from img.oci.manifest import ZSTD

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


@pytest.mark.parametrize(
    ("raw", "announced"),
    [
        (b'{"schemaVersion": 1, "fsLayers": []}', ""),
        (b'{"schemaVersion": 1}', DOCKER_MANIFEST),
        (b'{"fsLayers": []}', "application/json"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws; charset=utf-8"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+json"),
    ],
)
def test_dockers_first_schema_is_refused_by_name(raw: bytes, announced: str) -> None:
    with pytest.raises(Unsupported, match="schema 1") as caught:
        parse(raw, announced)
    assert "push the image again" in caught.value.hint


def test_what_could_be_read_as_either_is_neither() -> None:
    """CVE-2021-41190: verified as one, used as the other."""
    with pytest.raises(InvalidDocument, match="both"):
        parse(document(manifests=[]))
    with pytest.raises(InvalidDocument, match="both"):
        parse(b'{"mediaType": "%s", "manifests": [], "layers": []}' % OCI_INDEX.encode())
    with pytest.raises(InvalidDocument, match="says that it is"):
        parse(document(mediaType=OCI_MANIFEST), OCI_INDEX)
    with pytest.raises(InvalidDocument, match="says that it is"):
        parse(b'{"mediaType": "%s", "manifests": []}' % DOCKER_LIST.encode(), DOCKER_MANIFEST)


def test_a_subject_an_artifact_type_and_a_whole_platform_read_back() -> None:
    subject = descriptor("s", media_type=OCI_MANIFEST)
    empty = descriptor("{}", media_type=OCI_EMPTY)
    artifact = Manifest.make(empty, [empty], artifact_type="a/b", subject=subject, annotations={"k": "v"})
    assert parse(artifact.raw) == artifact
    assert (artifact.kind, artifact.is_image) == ("a/b", False)
    assert json.loads(artifact.raw)["artifactType"] == "a/b"
    platform = Platform("windows", "amd64", "", "10.0.1", ("win32k",), ("sse4",))
    index = Index.make([descriptor("w", platform)], subject=subject, artifact_type="c/d")
    assert parse(index.raw) == index
    assert index.choose(Platform("windows", "amd64")) == index.manifests[0]
    hostile: tuple[Any, ...] = ("x", [], {"digest": "sha256:1"})
    for bad in hostile:
        with pytest.raises(InvalidDocument):
            parse(document(subject=bad))


def test_what_is_an_image_is_told_by_its_config_and_its_layers() -> None:
    layer, config = descriptor("l"), descriptor("c", media_type=OCI_CONFIG)
    assert Manifest.make(config, [layer]).is_image
    assert Manifest.make(config, []).is_image
    assert Manifest.make(descriptor("c", media_type="application/octet-stream"), [layer]).is_image
    assert not Manifest.make(descriptor("c", media_type="application/vnd.cncf.helm.config"), []).is_image
    assert not Manifest.make(config, [descriptor("l", media_type="application/vnd.in-toto+json")]).is_image


def test_an_index_is_changed_by_making_another() -> None:
    one, two = descriptor("1", AMD64), descriptor("2", ARM64)
    index = Index.make([one], annotations={"k": "v"}, media_type=DOCKER_LIST)
    assert index.with_manifest(two).manifests == (one, two)
    again = replace(one, annotations={"new": "note"})
    assert index.with_manifest(two).with_manifest(again).manifests == (again, two)
    assert index.with_manifest(two).without(one.digest).manifests == (two,)
    assert index.without(two.digest) is index, "its bytes stay"
    assert index.with_annotations({"l": "w"}).annotations == {"k": "v", "l": "w"}
    assert index.with_annotations({}).media_type == OCI_INDEX
    assert index.with_subject(two).subject == two
    assert parse(index.with_subject(two).raw) == index.with_subject(two)


def test_a_docker_list_that_could_not_say_all_is_not_made() -> None:
    plain = Index.make([descriptor("1", AMD64)])
    docker = plain.with_media_type(DOCKER_LIST)
    assert (docker.media_type, docker.manifests) == (DOCKER_LIST, plain.manifests)
    assert docker.with_media_type(OCI_INDEX).raw == plain.raw
    for index in (
        plain.with_annotations({"k": "v"}),
        plain.with_subject(descriptor("s")),
        Index.make([descriptor("1")]),
        Index.make([replace(descriptor("1", AMD64), annotations={"k": "v"})]),
    ):
        with pytest.raises(Unsupported, match="a docker manifest list with"):
            index.with_media_type(DOCKER_LIST)


def test_an_index_gives_the_exact_variant_before_one_that_also_runs() -> None:
    index = Index.make([descriptor("any", Platform("linux", "arm")), descriptor("7", ARM7)])
    chosen = index.choose(ARM7)
    assert chosen is not None and chosen.platform == ARM7


def test_of_variants_of_one_image_the_first_is_for_everybody_and_zstd_for_who_unpacks() -> None:
    mark = {ZSTD: "true"}
    wide = descriptor("any", Platform("linux", "arm"))
    plain, narrow = descriptor("7", ARM7), descriptor("6", ARM6)
    index = Index.make(
        [wide, plain, narrow, replace(descriptor("z"), platform=wide.platform, annotations=mark)]
    )
    assert index.choose(ARM7) == index.choose_zstd(ARM7) == plain, "a platform that fits better goes before"
    zstd = replace(descriptor("7z", ARM7), annotations=mark)
    index = index.with_manifest(zstd)
    assert (index.choose(ARM7), index.choose_zstd(ARM7)) == (plain, zstd)
    assert index.variants(plain) == index.variants(zstd) == [plain, zstd]
    assert index.variants(narrow) == [narrow]
    assert index.platforms == (wide.platform, ARM7, ARM6)
    other = replace(zstd, annotations={ZSTD: "false", "flavour": "small"})
    assert index.with_entries([plain, other]).choose_zstd(ARM7) == plain
    assert index.with_entries([plain, other]).variants(other) == [other]


def test_an_index_gives_the_nearest_lesser_variant_where_it_has_no_other() -> None:
    names = ("v4", "v2", "v1")
    index = Index.make(
        [descriptor(v, Platform("linux", "amd64", v)) for v in names] + [descriptor("6", ARM6)]
    )
    assert index.choose(ARM7) == index.manifests[3]
    assert index.choose(Platform("linux", "amd64", "v3")) == index.manifests[1]


def test_an_index_without_a_fitting_platform_gives_nothing_and_names_what_it_has() -> None:
    attestation = descriptor("proof", Platform("unknown", "unknown"))
    index = parse(Index.make([descriptor("a", AMD64), descriptor("6", ARM6), attestation]).raw, DOCKER_LIST)
    assert isinstance(index, Index)
    assert index.choose(ARM64) is None
    assert index.choose(Platform("linux", "arm", "v5")) is None
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
