"""Names of several platforms: what they mean, what they keep, and what other tools see of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from img.errors import UsageError
from img.oci import Descriptor, Image, Index, Manifest, Platform, Reference
from img.oci.descriptor import OCI_EMPTY
from img.store import Store, index_of

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
    assert store.names.find_for(NAME, OTHER) == (other, index.digest)
    assert store.names.find_for(NAME, HOST) == (host, index.digest)
    assert store.names.find_for(NAME, THIRD) is None
    assert store.names.find_for(NAME.with_digest(index.digest), OTHER) == (other, index.digest)
    one = store.names.find_for(NAME.with_digest(host.digest), OTHER)
    assert one == (host, host.digest), "a digest means one image"
    assert store.names.row(f"example.org/app@{index.digest}").name == str(NAME)
    row = store.names.row("example.org/app:1")
    assert store.names.images_of(row) == (other, host)


def test_where_none_is_this_machine_s_the_first_is_meant(store: Store) -> None:
    first = image_for(store, OTHER, "o")
    store.names.put_index((first, image_for(store, THIRD, "t")), NAME)
    assert store.names.get(first.id) == first


def test_each_image_of_an_index_has_its_own_id_and_digest(store: Store) -> None:
    host, other = image_for(store, HOST, "h"), image_for(store, OTHER, "o")
    store.names.put_index((host, other), NAME)
    for text in (other.id, other.id[7:19], f"example.org/app@{other.digest}"):
        assert store.names.get(text) == other
        assert store.names.images_of(store.names.row(text)) == (other,), "that one image alone"
    assert store.names.find_for(NAME.with_digest(other.digest), HOST) == (other, other.digest)
    again = Reference.parse("example.org/one")
    store.names.name_again(store.names.row(other.id), again)
    assert (store.names.row(str(again)).index, store.names.get(str(again))) == ("", other)
    store.names.remove(store.names.row(str(NAME)))
    assert store.names.get(other.id) == other


def test_of_a_registrys_index_those_images_count_whose_documents_are_here(store: Store) -> None:
    host, other = image_for(store, HOST, "h"), image_for(store, OTHER, "o")
    index = index_of((host, other, image_for(store, THIRD, "t")))
    store.names.put(host, NAME, index=index.raw)
    store.blobs.remove(other.digest)
    assert store.names.images_of(store.names.row(str(NAME))) == (host,)
    assert store.names.find_for(NAME, OTHER) is None
    store.names.put(other, NAME, index=index.raw)
    assert store.names.images_of(store.names.row(str(NAME))) == (host, other)
    assert store.names.find_for(NAME, HOST) == (host, index.digest)
    assert store.names.find_for(NAME, OTHER) == (other, index.digest)
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


def test_a_list_may_hold_no_image_and_keeps_what_it_names(store: Store) -> None:
    store.names.put_list(Index.make(()), NAME)
    row = store.names.row(str(NAME))
    assert row.bare and store.names.list_of(row) == Index.make(())
    assert store.names.find(NAME) is None and store.names.find_for(NAME, HOST) is None
    assert list(store.images()) == []
    for ask in (lambda: store.names.get(str(NAME)), lambda: store.names.images_of(row)):
        with pytest.raises(UsageError, match="a list of images"):
            ask()
    # An artifact among images is no image, and neither it nor its file is collected.
    kept = store.blobs.put(b"a file")
    artifact = Manifest.make(
        Descriptor(media_type=OCI_EMPTY, digest=store.blobs.put(b"{}"), size=2),
        [Descriptor(media_type="text/plain", digest=kept, size=6)],
        artifact_type="a/b",
    )
    store.blobs.put(artifact.raw)
    image = image_for(store, HOST, "h")
    store.blobs.put(image.manifest.raw)
    store.blobs.put(image.config_raw)
    index = Index.make([artifact.descriptor, image.manifest.descriptor])
    store.names.put_list(index, NAME)
    row = store.names.row(str(NAME))
    assert not row.bare and store.names.images_of(row) == (image,)
    assert list(store.names.others_of(index)) == [artifact]
    store.collector.prune(everything=True)
    assert store.blobs.has(kept) and store.blobs.has(artifact.digest) and store.blobs.has(image.id)
    store.names.remove(row)
    store.collector.prune(everything=True)
    assert not store.blobs.has(kept)


def test_an_index_that_names_what_is_no_document_does_no_harm(store: Store) -> None:
    """Whoever makes an index may name a layer, a config or an old manifest in it as if it were an image."""
    image = image_for(store, HOST, "h")
    old = store.blobs.put(b'{"schemaVersion":1,"fsLayers":[]}')
    large = store.blobs.put(b"{" * (5 << 20))
    strange = [replace(image.manifest.descriptor, digest=d) for d in (image.id, old, large)]
    index = Index.make([image.manifest.descriptor, *strange, image.layers[0].descriptor])
    store.names.put(image, NAME, index=index.raw)
    row = store.names.row(str(NAME))
    assert store.names.images_of(row) == (image,)
    assert list(store.names.others_of(index)) == []
    assert store.collector.needed().blobs >= {image.digest, old, large, image.layers[0].digest}
    store.collector.prune(everything=True)
    assert store.names.get(str(NAME)) == image
    listed = json.loads((store.blobs.root / "index.json").read_text())["manifests"]
    assert [entry["digest"] for entry in listed] == [image.digest], "the index is not whole"


def test_indexes_that_name_one_another_many_times_are_each_read_once(store: Store) -> None:
    """Ten indexes, each of which names all that are below it: more ways than anybody can go."""
    image = image_for(store, HOST, "h")
    below = [image.manifest.descriptor]
    for level in range(12):
        wide = [Index.make(below, annotations={"n": f"{level}.{number}"}) for number in range(10)]
        for index in wide:
            store.blobs.put(index.raw)
        below = [index.descriptor for index in wide]
    top = Index.make(below)
    store.names.put(image, NAME, index=top.raw)
    assert store.names.images_of(store.names.row(str(NAME))) == (image,)
    assert len(list(store.names.documents(top.digest))) == 12 * 10 + 2
    assert image.layers[0].digest in store.collector.needed().blobs
    assert len(store.names.whole_index(top.digest)) == 12 * 10 + 2


def test_an_image_that_an_index_calls_unknown_is_among_its_others(store: Store) -> None:
    image, about = image_for(store, HOST, "h"), image_for(store, OTHER, "a")
    store.blobs.put(about.manifest.raw)
    store.blobs.put(about.config_raw)
    called = replace(about.manifest.descriptor, platform=Platform("unknown", "unknown"))
    index = Index.make([image.manifest.descriptor, called])
    store.names.put(image, NAME, index=index.raw)
    assert list(store.names.others_of(index)) == [about.manifest]
