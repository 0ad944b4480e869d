"""Names of images, and the `index.json` that shows them to other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from img.errors import ImageNotFound, InvalidReference, UsageError
from img.oci import Reference
from img.progress import Event, Note
from img.store import Store

from .conftest import Start, hear, image_of, say, succeed


def put(store: Store, name: str, *layers: str, label: str = "") -> str:
    return store.names.put(image_of(store, *layers, label=label), Reference.parse(name) if name else None)


def index_names(root: Path) -> list[str]:
    """Reads index.json as another tool would; what it names must be whole."""
    index = json.loads((root / "oci" / "index.json").read_bytes())
    for entry in index["manifests"]:
        manifest = json.loads((root / "oci" / "blobs" / "sha256" / entry["digest"][7:]).read_bytes())
        for blob in (manifest["config"], *manifest["layers"]):
            assert (root / "oci" / "blobs" / "sha256" / blob["digest"][7:]).stat().st_size == blob["size"]
    return sorted(
        m.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for m in index["manifests"]
    )


def test_a_name_gives_the_image_that_was_put_under_it(store: Store) -> None:
    image = image_of(store, "a", "b")
    store.names.put(image, Reference.parse("app:1"))
    assert store.names.get("app:1") == image
    assert store.names.find(Reference.parse("docker.io/library/app:1")) == image
    assert store.names.find(Reference.parse("app:2")) is None


def test_a_name_can_be_given_to_another_image_and_an_image_can_have_several(store: Store) -> None:
    first, second = put(store, "app", "a"), put(store, "app", "b")
    assert first != second
    assert store.names.get("app").id == second
    put(store, "other", "b")
    assert sorted(name for name, _ in store.images()) == [
        "docker.io/library/app:latest",
        "docker.io/library/other:latest",
    ]


def test_an_image_without_a_name_is_found_by_its_id_until_it_gets_one(store: Store) -> None:
    image_id = put(store, "", "a")
    assert [row.named for row in store.names.all()] == [False]
    assert list(store.images()) == []
    assert store.names.get(image_id).id == image_id
    put(store, "app", "a")
    assert [row.name for row in store.names.all()] == ["docker.io/library/app:latest"]


def test_the_first_digits_of_an_id_are_enough_where_they_fit_one_image(store: Store) -> None:
    ids = {put(store, f"app{number}", str(number)) for number in range(40)}
    wanted = sorted(ids)[0]
    assert store.names.get(wanted.removeprefix("sha256:")[:20]).id == wanted
    assert store.names.get(wanted[:30]).id == wanted
    digits = [i.removeprefix("sha256:")[0] for i in ids]
    shared = next(d for d in digits if digits.count(d) > 1)
    with pytest.raises(UsageError, match="fits several images"):
        store.names.get(shared)


def test_a_name_beats_an_id_that_begins_with_the_same_letters(store: Store) -> None:
    other = put(store, "other", "a")
    digits = other.removeprefix("sha256:")[:6]
    named = put(store, digits, "b")
    assert store.names.get(digits).id == named


def test_an_unknown_name_is_an_error_with_those_like_it(store: Store) -> None:
    put(store, "me/application", "a")
    with pytest.raises(ImageNotFound) as caught:
        store.names.get("me/aplication:latest")
    assert caught.value.near == ("me/application:latest",)
    put(store, "b.example/me/app:1", "b")
    put(store, "a.example/me/app:1", "c")
    with pytest.raises(ImageNotFound) as caught:
        store.names.get("b.example/me/app:2")
    assert caught.value.near[:2] == ("b.example/me/app:1", "a.example/me/app:1"), "its own registry's first"
    with pytest.raises(InvalidReference):
        store.names.get("No Such")


def test_a_digest_finds_the_image_whatever_it_is_called(store: Store) -> None:
    put(store, "app", "a")
    digest = store.names.get("app").digest
    assert store.names.get(f"elsewhere/app@{digest}").digest == digest


def test_an_image_with_a_layer_missing_is_left_out_of_the_index_until_it_is_whole(store: Store) -> None:
    image = image_of(store, "a", "b")
    store.blobs.remove(image.layers[1].digest)
    store.names.put(image, Reference.parse("app"))
    assert index_names(store.root) == []
    store.blobs.put(b"b")
    put(store, "other", "c")
    assert index_names(store.root) == ["docker.io/library/app:latest", "docker.io/library/other:latest"]


@pytest.mark.parametrize("lost", ["manifest", "config"])
def test_a_name_whose_documents_are_lost_goes_with_a_word_and_is_in_nobodys_way(
    root: Path, lost: str
) -> None:
    told: list[Event] = []
    store = Store(root, progress=told.append)
    put(store, "broken", "a")
    broken = store.names.row("broken")
    put(store, "sound", "b")
    store.blobs.remove(getattr(broken, lost))
    put(store, "another", "c")
    store.collector.prune(everything=True)
    assert [row.name for row in store.names.all()] == [
        "docker.io/library/another:latest", "docker.io/library/sound:latest",
    ]  # fmt: skip
    assert [event.text.partition(" are gone")[0] for event in told if isinstance(event, Note)] == [
        "the documents of broken:latest"
    ]
    with pytest.raises(ImageNotFound):
        store.names.get("broken")
    assert store.names.get("sound").layers
    put(store, "broken", "a")
    assert store.names.get("broken").layers
    store.names.remove(store.names.row("broken"))
    store.close()
    assert index_names(root) == ["docker.io/library/another:latest", "docker.io/library/sound:latest"]


def test_a_name_stays_while_its_documents_cannot_be_looked_at(store: Store) -> None:
    put(store, "app", "a")
    blobs = store.root / "oci" / "blobs" / "sha256"
    aside = blobs.with_name("aside")
    blobs.rename(aside)
    blobs.symlink_to(blobs)  # a disk that fails, or a folder that this user may not enter, as root sees it
    assert [row.name for row in store.names.all()] == ["docker.io/library/app:latest"]
    blobs.unlink()
    aside.rename(blobs)
    assert store.names.get("app").layers


def test_the_index_is_valid_at_any_moment_while_many_processes_change_names(start: Start, root: Path) -> None:
    with Store(root) as store:
        put(store, "always", "a")
    code = """
from img.oci import Reference
with Store(root) as store:
    image = image_of(store, "layer", label=sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(15):
        store.names.put(image, Reference.parse(f"app{sys.argv[1]}:{turn}"))
        if turn % 2:
            store.names.remove(store.names.row(f"app{sys.argv[1]}:{turn}"))
"""
    processes = [start(code, str(number)) for number in range(3)]
    assert [hear(process) for process in processes] == ["ready"] * 3
    for process in processes:
        say(process)
    looks = 0
    while any(process.poll() is None for process in processes):
        assert "docker.io/library/always:latest" in index_names(root)
        looks += 1
    for process in processes:
        succeed(process)
    assert looks > 3
    wanted = sorted(f"docker.io/library/app{n}:{turn}" for n in range(3) for turn in range(0, 15, 2))
    assert index_names(root) == ["docker.io/library/always:latest", *wanted]
