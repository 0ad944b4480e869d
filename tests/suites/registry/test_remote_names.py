"""`img tags` and `img delete` of the library: what a repository has for names, and how they go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from img.engine import Engine, Settings
from img.engine.copying import CopyRequest
from img.errors import NotFound, NotOffered, UsageError

from tests.suites.registry.pile import Pile
from tests.suites.registry.servers import Call, FaultyRegistry
from tests.support.registry import Registry

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Pile:
    made = Pile(tmp_path_factory.mktemp("pile"))
    for seed in ("amd64", "arm64"):
        made.name(made.image(seed, 10), seed)
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(Settings(state=str(tmp_path / "state"))) as opened:
        yield opened


@pytest.fixture
def repository(engine: Engine, server: Registry, pile: Pile, name: str) -> str:
    """A repository with `1` and `2` for one image, and `3` for another."""
    whole = f"{server.host}/{name}"
    request = CopyRequest(source=f"oci:{pile.folder}:amd64", targets=(f"{whole}:1", f"{whole}:2"))
    engine.copy(request)
    engine.copy(CopyRequest(source=f"oci:{pile.folder}:arm64", targets=(f"{whole}:3",)))
    return whole


def test_what_has_other_tags_is_deleted_only_with_them(engine: Engine, repository: str) -> None:
    digests = engine.tag_digests(repository, ["1", "2", "3", "none"])
    assert set(digests) == {"1", "2", "3"} and digests["1"] == digests["2"] != digests["3"]
    for names in ([f"{repository}:1"], [f"{repository}@{digests['1']}"]):
        with pytest.raises(UsageError, match=rf"is {repository}:(1|2)") as caught:
            engine.delete_remote(names)
        assert "--force" in caught.value.hint
    with pytest.raises(NotFound, match=f"has no image {repository}:none") as absent:
        engine.delete_remote([f"{repository}:none"])
    assert f"img tags {repository} lists" in absent.value.hint
    with pytest.raises(NotOffered, match="deletes no tag alone") as refused:
        engine.delete_remote([f"{repository}:1"], tag_only=True)
    assert refused.value.status == 400
    assert sorted(engine.tags(repository)) == ["1", "2", "3"]
    (gone,) = engine.delete_remote([f"docker://{repository}:1"], force=True)
    assert (gone.digest, sorted(gone.tags), gone.manifest) == (digests["1"], ["1", "2"], True)
    assert engine.tags(repository) == ["3"]
    with pytest.raises(NotFound):
        engine.delete_remote([f"{repository}:1"])


def test_tags_that_are_named_together_go_together(engine: Engine, repository: str) -> None:
    gone = engine.delete_remote([f"{repository}:{tag}" for tag in ("1", "3", "2")])
    assert [one.name.rpartition(":")[2] for one in gone] == ["1", "2", "3"]
    assert engine.tags(repository) == []


class Untagging(FaultyRegistry):
    """A registry that deletes tags alone, as newer ones do; or nothing, as told."""

    allowed = True

    def serve(self, call: Call) -> None:
        name = call.path.rpartition("/")[2]
        if call.path.endswith("/tags/list"):
            tags = [tag for tag in self.manifests if ":" not in tag]
            call.answer(200, json.dumps({"name": "x", "tags": tags}).encode())
        elif call.method != "DELETE":
            super().serve(call)
        elif not self.allowed:
            error = {"errors": [{"code": "UNSUPPORTED", "message": "The operation is unsupported."}]}
            call.answer(405, json.dumps(error).encode())
        else:
            del self.manifests[name]
            call.answer(202)


def test_a_registry_that_deletes_tags_keeps_the_others(engine: Engine) -> None:
    from tests.suites.registry.images import make_image

    with Untagging() as registry:
        bits = make_image(10)
        for tag in ("1", "2"):
            registry.add(bits.manifest, bits.blobs, tag=tag)
        (gone,) = engine.delete_remote([f"{registry.host}/a:1"])
        assert (gone.tags, gone.manifest, gone.digest) == (("1",), False, bits.manifest.digest)
        assert set(registry.manifests) == {"2", bits.manifest.digest}
        registry.allowed = False
        with pytest.raises(NotOffered) as caught:
            engine.delete_remote([f"{registry.host}/a:2"])
        assert (caught.value.status, caught.value.codes) == (405, ("UNSUPPORTED",))
        assert "DELETE_ENABLED" in caught.value.hint


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("alpine:3", "is one image"),
        ("127.0.0.1:1/a@sha256:" + "0" * 64, "is one image"),
        ("dir:x", "has no name"),
        ("oci:nowhere", "there is no folder"),
    ],
)
def test_tags_are_those_of_a_repository(engine: Engine, place: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        engine.tags(place)


def test_the_names_of_other_places_are_listed_too(engine: Engine, pile: Pile, tmp_path: Path) -> None:
    source = f"oci:{pile.folder}:amd64"
    archives = (
        f"docker-archive:{tmp_path}/d.tar:me/app:1",
        f"oci-archive:{tmp_path}/o.tar:x",
        "img:me/app:7",
    )
    engine.copy(CopyRequest(source=source, targets=archives))
    assert engine.tags(f"oci:{pile.folder}") == ["amd64", "arm64"]
    assert engine.tags(f"docker-archive:{tmp_path}/d.tar") == ["me/app:1"]
    assert engine.tags(f"oci-archive:{tmp_path}/o.tar") == ["x"]
    assert engine.tags("img:me/app") == ["7"]


def test_documents_are_looked_at_where_they_are(engine: Engine, repository: str, pile: Pile) -> None:
    for place in (f"docker://{repository}:3", f"oci:{pile.folder}:arm64"):
        looked = engine.look(place)
        assert json.loads(looked.config)["architecture"] == "arm64"
        assert looked.root == looked.manifest
