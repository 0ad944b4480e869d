"""Names of several platforms: what they mean, what they keep, and what other tools see of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from img.oci import Image, Platform, Reference
from img.store import Store

from tests.unit.store.conftest import image_of

HOST = Platform.host()
OTHER, THIRD = Platform("linux", "s390x"), Platform("linux", "riscv64")
NAME = Reference.parse("example.org/app:1")


def image_for(store: Store, platform: Platform, *layers: str) -> Image:
    image = image_of(store, *layers)
    return Image.make(replace(image.config, platform=platform), image.manifest.layers)


def test_a_name_means_this_machine_s_platform_and_can_be_asked_for_each(store: Store) -> None:
    other, host = image_for(store, OTHER, "o"), image_for(store, HOST, "h")
    index = store.names.put_index((other, host), NAME)
    assert index.platforms == (OTHER, HOST)
    assert store.names.get("example.org/app:1") == host
    assert store.names.find(NAME, OTHER) == other
    assert store.names.find(NAME, HOST) == host
    assert store.names.find(NAME, THIRD) == host, "the caller sees that it is another's"
    assert store.names.find(NAME.with_digest(index.digest), OTHER) == other
    assert store.names.find(NAME.with_digest(host.digest), OTHER) == host, "a digest means one image"
    assert store.names.row(f"example.org/app@{index.digest}").name == str(NAME)
    row = store.names.row("example.org/app:1")
    assert store.names.manifests(row) == (other.digest, host.digest)
    assert store.names.platforms(row) == (OTHER, HOST)


def test_where_none_is_this_machine_s_the_first_is_meant(store: Store) -> None:
    first = image_for(store, OTHER, "o")
    store.names.put_index((first, image_for(store, THIRD, "t")), NAME)
    assert store.names.get(first.id) == first


def test_an_image_joins_those_of_other_platforms_and_replaces_its_own(store: Store) -> None:
    host, other = image_for(store, HOST, "h"), image_for(store, OTHER, "o")
    store.names.join(host, NAME)
    assert store.names.row(str(NAME)).index == ""
    store.names.join(other, NAME)
    newer = image_for(store, HOST, "newer")
    store.names.join(newer, NAME)
    assert store.names.find(NAME, OTHER) == other
    assert store.names.find(NAME, HOST) == newer
    store.names.put(host, NAME)
    assert store.names.row(str(NAME)).index == "", "a plain put means one image again"


def test_a_second_name_has_the_index_as_well(store: Store) -> None:
    store.names.put_index((image_for(store, HOST, "h"), image_for(store, OTHER, "o")), NAME)
    again = Reference.parse("example.org/again")
    store.names.name_again(store.names.row(str(NAME)), again)
    assert store.names.row(str(again)).index == store.names.row(str(NAME)).index


def test_a_collection_keeps_all_that_an_index_needs(store: Store) -> None:
    images = image_for(store, HOST, "h"), image_for(store, OTHER, "o")
    index = store.names.put_index(images, NAME)
    needed = store.collector.needed().blobs
    assert needed >= {index.digest, *(image.digest for image in images), *(image.id for image in images)}
    assert needed >= {layer.digest for image in images for layer in image.layers}
    for digest, _ in store.blobs.all():
        path = store.blobs.path(digest)
        path.touch()
    store.names.remove(store.names.row(str(NAME)))
    assert index.digest not in store.collector.needed().blobs


def test_other_tools_find_the_index_where_every_blob_is_here(store: Store) -> None:
    host, other = image_for(store, HOST, "h"), image_for(store, OTHER, "o")
    index = store.names.put_index((other, host), NAME)

    def listed() -> list[str]:
        document = json.loads((store.blobs.root / "index.json").read_text())
        return [entry["digest"] for entry in document["manifests"]]

    assert listed() == [index.digest]
    store.blobs.remove(other.layers[0].digest)
    store.names.put(image_for(store, THIRD), Reference.parse("x"))
    assert host.digest in listed()
    assert index.digest not in listed()
    assert store.names.all()[0].updated <= time.time()
