"""Documents that are written anew: what changes, what must not, and that one way is as good as another."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.errors import Unsupported
from img.oci import Descriptor, Index, Manifest, parse, sha256
from img.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from img.oci.manifest import ABOUT
from img.oci.rewrite import form_of, in_form, rewrite_index, rewrite_manifest

pytestmark = pytest.mark.once

T = TypeVar("T", Manifest, Index)


def entry(word: str, media_type: str, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(word.encode()), "size": len(word), **more}


def manifest(**more: object) -> Manifest:
    """OCI's, with a gzip layer and a plain one."""
    data = {"schemaVersion": 2, "config": entry("c", OCI_CONFIG)}
    data["layers"] = [entry("gz", OCI_LAYER_GZIP, annotations={"l": "1"}), entry("tar", OCI_LAYER)]
    return read({**data, **more}, Manifest)


def read(data: object, kind: type[T]) -> T:
    document = parse(json.dumps(data).encode(), OCI_MANIFEST if kind is Manifest else OCI_INDEX)
    assert isinstance(document, kind)
    return document


def descriptor(word: str, media_type: str = OCI_LAYER_GZIP) -> Descriptor:
    return Descriptor.from_json(entry(word, media_type), where=word)


names = st.text(min_size=1, max_size=6).filter(lambda name: name not in ("manifests", "fsLayers"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
unknown = st.dictionaries(names.map(lambda name: f"x-{name}"), values, max_size=3)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Of both forms and of mixed ones, the fields in any order, unknown ones in every object."""
    layers = draw(st.lists(st.sampled_from([OCI_LAYER, OCI_LAYER_GZIP, DOCKER_LAYER_GZIP]), max_size=4))
    kind = draw(st.sampled_from([OCI_MANIFEST, DOCKER_MANIFEST, ""]))
    data = {
        "schemaVersion": 2,
        **({"mediaType": kind} if kind else {}),
        "config": entry("c", draw(st.sampled_from([OCI_CONFIG, DOCKER_CONFIG, ""])), **draw(unknown)),
        "layers": [entry(f"{n}", media_type, **draw(unknown)) for n, media_type in enumerate(layers)],
        "annotations": {"k": "v"},
        **draw(unknown),
    }
    order = draw(st.permutations(list(data)))
    return read({name: data[name] for name in order}, Manifest)


def strange(data: dict[str, Any]) -> dict[str, object]:
    return {name: value for name, value in data.items() if name.startswith("x-")}


@given(manifests(), st.sampled_from(["oci", "docker"]))
def test_a_form_changes_words_alone_and_once(old: Manifest, form: Any) -> None:
    new = rewrite_manifest(old, form=form)
    assert rewrite_manifest(new, form=form) is new, "a second time changes nothing"
    assert in_form(old, form) == new and form_of(new) == form
    assert [x.digest for x in (new.config, *new.layers)] == [x.digest for x in (old.config, *old.layers)]
    before, after = json.loads(old.raw), json.loads(new.raw)
    objects = zip(
        (before, before["config"], *before["layers"]),
        (after, after["config"], *after["layers"]),
        strict=True,
    )
    assert all(strange(one) == strange(other) for one, other in objects)
    assert [name for name in before if name in after] == [x for x in after if x in before], "their order"
    if form_of(old) == "oci":
        assert bool(new.annotations) == (form == "oci")
    # By way of the other form, the words are the same again.
    again = rewrite_manifest(rewrite_manifest(new, form="oci"), form="docker")
    assert again.layers == rewrite_manifest(new, form="docker").layers


@given(manifests(), st.sampled_from(["oci", "docker"]))
def test_a_push_turns_after_it_packed_and_a_copy_at_once_and_both_come_to_the_same(
    old: Manifest, form: Any
) -> None:
    blobs = [descriptor(f"new {n}") for n, _ in enumerate(old.layers)]
    two_steps = rewrite_manifest(rewrite_manifest(old, layers=blobs), form=form)
    assert two_steps.raw == rewrite_manifest(old, form=form, layers=blobs).raw


def test_nothing_is_written_anew_for_nothing() -> None:
    old = manifest()
    assert rewrite_manifest(old) is rewrite_manifest(old, form="oci") is old
    assert rewrite_manifest(old, layers=old.layers) is old
    assert rewrite_manifest(old, annotations={}) is old
    artifact = manifest(config=entry("{}", OCI_EMPTY))
    assert rewrite_manifest(artifact, form="docker") is artifact
    index = read({"schemaVersion": 2, "manifests": [entry("m", OCI_MANIFEST)]}, Index)
    assert rewrite_index(index, form="oci", entries={sha256(b"other"): descriptor("x")}) is index


def test_another_blob_has_a_descriptor_of_its_own() -> None:
    """What was said of the old one's bytes (a table of contents, a copy of the data) is not true of it."""
    old = manifest()
    new = rewrite_manifest(old, layers=[descriptor("other"), old.layers[1]])
    assert new.layers == (descriptor("other"), old.layers[1])
    assert new.layers[0].annotations == {}
    docker = rewrite_manifest(
        rewrite_manifest(old, form="docker"), layers=[descriptor("other"), old.layers[1]]
    )
    assert (docker.media_type, docker.layers[0].media_type) == (DOCKER_MANIFEST, DOCKER_LAYER_GZIP)


def test_zstd_is_refused_for_docker_and_makes_a_docker_manifest_oci() -> None:
    docker = rewrite_manifest(manifest(), form="docker")
    zstd = [descriptor("z", OCI_LAYER_ZSTD)] * 2
    assert form_of(rewrite_manifest(docker, layers=zstd)) == "oci"
    with pytest.raises(Unsupported, match="zstd in Docker's manifests"):
        rewrite_manifest(docker, form="docker", layers=zstd)


def test_annotations_are_added_and_replaced() -> None:
    new = rewrite_manifest(manifest(annotations={"a": "1", "b": "2"}), annotations={"b": "3", "c": "4"})
    assert new.annotations == {"a": "1", "b": "3", "c": "4"}
    assert json.loads(new.raw)["mediaType"] == OCI_MANIFEST, "which it did not say before"


def test_an_index_follows_manifests_that_were_written_anew_and_so_does_what_is_about_them() -> None:
    image, other = entry("image", OCI_MANIFEST, **{"x-kept": 1}), entry("other", OCI_MANIFEST)
    said = entry("said", OCI_MANIFEST, annotations={ABOUT: image["digest"], "kept": "1"})
    index = read(
        {"schemaVersion": 2, "manifests": [image, other, said], "annotations": {"k": "v"}, "x-kept": 2}, Index
    )
    new = descriptor("new", DOCKER_MANIFEST)
    renewed = rewrite_index(index, entries={image["digest"]: new})
    assert json.loads(renewed.raw)["manifests"] == [
        {**image, "mediaType": DOCKER_MANIFEST, "digest": new.digest, "size": new.size},
        other,
        {**said, "annotations": {ABOUT: new.digest, "kept": "1"}},
    ]
    docker = json.loads(rewrite_index(renewed, form="docker").raw)
    assert (docker["mediaType"], docker["x-kept"], "annotations" in docker) == (DOCKER_LIST, 2, False)
    assert docker["manifests"] == json.loads(renewed.raw)["manifests"]
