"""`img pull` as people use it: how often a registry is asked, tags, platforms, blobs kept as they come."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from img import Client
from img.progress import Event, Transferred

from tests.conftest import Context, MakeImg
from tests.support.between import Between
from tests.support.command import Img
from tests.support.layout import Item, tar_of, write_index, write_layout
from tests.support.registry import Registry
from tests.support.registry import copy as skopeo
from tests.support.tokens import TokenServer

pytestmark = pytest.mark.once


@pytest.fixture
def between(registry: Registry) -> Iterator[Between]:
    """A proxy before the registry that sees what is asked for."""
    with Between(int(registry.host.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def several(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository of three tags: two platforms and an attestation, another image, another platform."""
    folder = tmp_path_factory.mktemp("several")
    below = tar_of([Item(path="below", data=b"below\n")])
    images = {
        architecture: write_layout(
            folder, [below, tar_of([Item(path="own", data=name.encode())])], {}, architecture=architecture
        )
        for name, architecture in (("one", "amd64"), ("two", "arm64"))
    }
    write_index(folder, {**images, "unknown": _attestation(folder)})
    _said_to_be_unknown(folder)
    registry.push_layout(folder, "pulling/several")
    other = tmp_path_factory.mktemp("other")
    write_layout(other, [below, tar_of([Item(path="own", data=b"other")])], {}, tag="other")
    registry.push_layout(other, "pulling/several", tag="other")
    foreign = tmp_path_factory.mktemp("foreign")
    write_index(foreign, {"s390x": write_layout(foreign, [below], {}, architecture="s390x")}, tag="foreign")
    registry.push_layout(foreign, "pulling/several", tag="foreign")
    return f"{registry.host}/pulling/several"


def _put(folder: Path, data: bytes) -> tuple[str, int]:
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return f"sha256:{digest}", len(data)


def _attestation(folder: Path) -> str:
    """A manifest as provenance comes in: a config that is an image's in name alone."""
    layer, layer_size = _put(folder, b'{"_type":"https://in-toto.io/Statement/v0.1"}')
    rootfs = {"type": "layers", "diff_ids": [layer]}
    config = json.dumps({"architecture": "unknown", "os": "unknown", "rootfs": rootfs, "config": {}})
    config_digest, config_size = _put(folder, config.encode())
    kind = "application/vnd.oci.image"
    document = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": layer, "size": layer_size}],
    }
    return _put(folder, json.dumps(document).encode())[0]


def _said_to_be_unknown(folder: Path) -> None:
    """Has the index call the attestation's platform unknown/unknown, as BuildKit does."""
    outer = json.loads((folder / "index.json").read_text())
    digest = outer["manifests"][0]["digest"].removeprefix("sha256:")
    index = json.loads((folder / "blobs" / "sha256" / digest).read_text())
    index["manifests"][-1]["platform"] = {"os": "unknown", "architecture": "unknown"}
    outer["manifests"][0]["digest"], outer["manifests"][0]["size"] = _put(folder, json.dumps(index).encode())
    (folder / "index.json").write_text(json.dumps(outer))


def raw(name: str) -> bytes:
    """What a registry has under a name, as skopeo reads it."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def digest_of(name: str) -> str:
    """The digest of that."""
    return f"sha256:{hashlib.sha256(raw(name)).hexdigest()}"


def asked(between: Between) -> list[str]:
    """What was asked for since the last time, as `GET manifests/latest`."""
    seen = [f"{s.method} {'/'.join(s.path.split('/')[-2:])[:16]}" for s in between.seen]
    between.seen.clear()
    return seen


def test_what_is_here_is_asked_for_once_or_not_at_all(
    img: Img, between: Between, several: str, make_context: Context
) -> None:
    name = f"127.0.0.1:{between.port}/pulling/several"
    first = img.ok("pull", "--json", f"{name}:latest").json()
    assert len(asked(between)) == 5  # index, manifest, config, two layers
    img.ok("pull", f"{name}:latest")
    assert asked(between) == ["HEAD manifests/latest"]
    for pinned in (
        f"{name}@{first['index']}",
        f"{name}@{first['digest']}",
        f"{name}:latest@{first['digest']}",
    ):
        img.ok("pull", pinned)
    assert asked(between) == []
    # Another platform of the index that is here: what is not here is asked for, and nothing else.
    img.ok("pull", "--platform", "linux/arm64", f"{name}:latest")
    assert [line.partition(" ")[0] for line in asked(between)] == ["HEAD", "GET", "GET", "GET"]
    # A registry that knows no HEAD, or says too little in it, is asked for the document.
    between.spoil(method="HEAD", status=405)
    img.ok("pull", f"{name}:latest")
    between.spoil(method="HEAD", status=200)
    img.ok("pull", f"{name}:latest")
    assert asked(between) == ["HEAD manifests/latest", "GET manifests/latest"] * 2
    context = make_context({"Dockerfile": f"FROM {name}:latest\nCOPY Dockerfile /\n"})
    img.ok("build", "--pull", "-t", "t", context)
    assert asked(between) == ["HEAD manifests/latest"]


def test_where_tokens_are_wanted_one_request_more_is_refused(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    with (
        TokenServer(tmp_path / "tokens", users={"ali": "sesame"}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.auth) as server,
        Between(int(server.host.rpartition(":")[2])) as between,
    ):
        host = f"127.0.0.1:{between.port}"
        auth = base64.b64encode(b"ali:sesame").decode()
        (img.home / ".docker").mkdir()
        (img.home / ".docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        img.build(make_context({"Dockerfile": "FROM scratch\nCOPY . /\n"}), tag=f"{host}/pulling/tokens:1")
        img.ok("push", f"{host}/pulling/tokens:1")
        between.seen.clear()
        tokens.requests.clear()
        img.ok("pull", f"{host}/pulling/tokens:1")
        assert [(seen.method, seen.status) for seen in between.seen] == [("HEAD", 401), ("HEAD", 200)]
        assert len(tokens.requests) == 1


def test_several_names_at_once_and_a_shared_layer_comes_once(
    img: Img, between: Between, several: str
) -> None:
    name = f"127.0.0.1:{between.port}/pulling/several"
    outcome = img.ok("pull", f"{name}:latest", f"{name}:other")
    blobs = [seen.path for seen in between.seen if "/blobs/" in seen.path]
    assert len(blobs) == len(set(blobs)) == 5
    assert [line for line in outcome.stdout.splitlines() if line.startswith("Pulled: ")] == [
        f"Pulled: {name}:latest",
        f"Pulled: {name}:other",
    ]
    assert len(img.ok("pull", "-q", f"{name}:latest", f"{name}:other").stdout.split()) == 2


def test_every_tag_that_has_an_image_is_pulled(img: Img, several: str) -> None:
    outcome = img.ok("pull", "--all-tags", "--json", several)
    assert {row["reference"] for row in outcome.json()} == {f"{several}:latest", f"{several}:other"}
    assert f"warning: {several}:foreign is left out: " in outcome.stderr
    assert "leave the tag out" in img.fails(2, "pull", "-a", f"{several}:other").text
    img.fails(3, "pull", "-a", f"{several}-not-there")


def test_all_platforms_go_back_as_they_came(img: Img, several: str, registry: Registry) -> None:
    img.ok("pull", "--all-platforms", f"{several}:latest")
    copy = f"{registry.host}/pulling/copied:1"
    img.ok("tag", f"{several}:latest", copy)
    assert img.ok("push", copy).stdout.strip() == digest_of(f"{several}:latest") == digest_of(copy)
    for entry in json.loads(raw(copy))["manifests"]:
        there = f"{registry.host}/pulling/copied@{entry['digest']}"
        assert hashlib.sha256(raw(there)).hexdigest() == entry["digest"].removeprefix("sha256:")
    saved = img.home / "saved.tar"
    events = img.ok("save", "--progress", "json", "--format", "oci", "-o", saved, copy).stderr
    assert '"action": "save"' in events and '"kind": "written"' in events
    again = f"{registry.host}/pulling/saved:1"
    skopeo(f"oci-archive:{saved}", f"docker://{again}", "--all")
    assert digest_of(again) == digest_of(copy)
    # A collection leaves all of it: it goes elsewhere without asking where it came from.
    img.ok("prune", "--all")
    again = f"{registry.host}/pulling/elsewhere:1"
    img.ok("tag", copy, again)
    assert img.ok("push", again).stdout.strip() == digest_of(copy)


def test_some_platforms(img: Img, several: str) -> None:
    both = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    result = img.ok("pull", "--json", *both, f"{several}:latest").json()
    assert set(result["platforms"]) == {"linux/amd64", "linux/arm64"}
    assert result["index"] == digest_of(f"{several}:latest")
    assert "say one of the two" in img.fails(2, "pull", "--all-platforms", *both, several).text


def test_without_extraction_nothing_is_unpacked_and_no_namespace_entered(
    img: Img, several: str, registry: Registry, tmp_path: Path
) -> None:
    copy = f"{registry.host}/pulling/unopened:1"
    for words in (
        ("pull", "--no-extract", "--all-platforms", f"{several}:latest"),
        ("tag", f"{several}:latest", copy),
        ("push", copy),
    ):
        strace = (
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=unshare,clone,clone3,setns",
            "-o",
            str(tmp_path / "calls"),
        )
        command = [*strace, *img.command(*words)]
        subprocess.run(command, check=True, timeout=60, env=img.environment(), capture_output=True)
        assert "CLONE_NEW" not in (tmp_path / "calls").read_text()
    assert not list((img.state / "layers").iterdir())
    assert digest_of(copy) == digest_of(f"{several}:latest")
    assert img.image(f"{several}:latest").text("below") == "below\n"


def test_the_library_pulls_likewise_and_says_what_came(
    make_img: MakeImg, several: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    with Client(make_img().state, progress=events.append) as client:
        image = client.pull(f"{several}:latest", all_platforms=True, extract=False)
        results = client.pull_all(several, all_tags=True)
    assert image.digest in results[0].platforms.values() or image.digest in results[1].platforms.values()
    sums = [event for event in events if isinstance(event, Transferred)]
    assert {event.action for event in sums} == {"pull"}
    assert (
        sum(event.moved for event in sums) == 6
    )  # what three images share, the own layer of each, an attestation
