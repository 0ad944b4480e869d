"""`img manifest`: lists of images put together by hand, pushed, and read by other people's tools."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context
from tests.support.between import Between
from tests.support.command import Img
from tests.support.layout import Item, tar_of, write_layout
from tests.support.peers import Peers
from tests.support.registry import Registry

pytestmark = pytest.mark.once


@pytest.fixture
def between(registry: Registry) -> Iterator[Between]:
    """A proxy before the registry that sees what goes there."""
    with Between(int(registry.host.rpartition(":")[2])) as proxy:
        yield proxy


def push_one(registry: Registry, folder: Path, name: str, architecture: str) -> str:
    """Has skopeo push an image for one platform; gives its digest."""
    layout = folder / name.replace("/", "-").replace(":", "-") / architecture
    layer = tar_of([Item(path="etc/arch", data=f"{architecture}\n".encode() * 5000)])
    repository, _, tag = name.partition(":")
    digest = write_layout(layout, [layer], {}, architecture=architecture, tag=tag)
    registry.push_layout(layout, repository, tag=tag)
    return digest


def raw(name: str) -> tuple[dict[str, Any], str]:
    """What a registry has under a name, as skopeo reads it, and its digest."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    data = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    return json.loads(data), f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_list_of_images_in_a_registry_is_pushed_without_fetching_a_layer(
    img: Img, registry: Registry, between: Between, tmp_path: Path
) -> None:
    amd = push_one(registry, tmp_path, "lists/app:1-amd64", "amd64")
    arm = push_one(registry, tmp_path, "lists/app:1-arm64", "arm64")
    at = f"127.0.0.1:{between.port}/lists/app:1"
    img.ok("manifest", "create", at, f"{at}-amd64", f"{at}-arm64")
    img.ok("manifest", "annotate", at, arm, "--variant", "v8", "--annotation", "who=me")
    made = img.ok("manifest", "annotate", at, "--index", "--annotation", "about=a list").stdout.strip()
    assert "linux/amd64,linux/arm64/v8" in img.ok("manifest", "ls").stdout
    assert any(row["index"] == made for row in img.ok("images", "--json").json())
    pushed = img.ok("manifest", "push", "--rm", "--digest-file", tmp_path / "digest", at).stdout.strip()
    assert pushed == made == (tmp_path / "digest").read_text().strip()
    fetched = [seen.path for seen in between.seen if seen.method == "GET" and "/blobs/" in seen.path]
    assert len(fetched) == 2, "the two configs, and no layer"
    assert not between.count("PATCH") and img.ok("manifest", "ls", "--json").json() == []
    index, digest = raw(f"{registry.host}/lists/app:1")
    assert digest == pushed and index["annotations"] == {"about": "a list"}
    assert [(m["digest"], m["platform"], m.get("annotations")) for m in index["manifests"]] == [
        (amd, {"architecture": "amd64", "os": "linux"}, None),
        (arm, {"architecture": "arm64", "os": "linux", "variant": "v8"}, {"who": "me"}),
    ]
    # What a registry has is shown as it is, by the name alone, since the store has no such list now.
    assert img.ok("manifest", "inspect", at).json() == index
    verbose = img.ok("manifest", "inspect", "-v", at).json()
    assert [each["Descriptor"]["digest"] for each in verbose] == [amd, arm]
    assert all("layers" in each["OCIManifest"] for each in verbose)


def test_podman_reads_a_list_whose_images_were_elsewhere(
    img: Img, registry: Registry, make_context: Context, tmp_path: Path
) -> None:
    host = registry.host
    arm = push_one(registry, tmp_path, "lists/elsewhere:arm", "arm64")
    img.build(make_context({"Dockerfile": "FROM scratch\nCOPY . /\n", "f": "here"}), tag="local")
    name = f"{host}/lists/mixed:1"
    img.ok("manifest", "create", name, "local")
    img.ok("manifest", "add", name, f"{host}/lists/elsewhere:arm", "--arch", "arm64")
    pushed = img.ok("push", name).stdout.strip()
    index, digest = raw(name)
    assert digest == pushed and index["manifests"][1]["digest"] == arm
    peers = Peers(tmp_path / "peers")
    try:
        peers.podman("pull", "--quiet", "--tls-verify=false", "--arch", "arm64", name)
        assert peers.podman("image", "inspect", "--format", "{{.Architecture}}", name).strip() == "arm64"
    finally:
        peers.close()
    # The layer of the image that was built was compressed on the way: the list names what was sent.
    own, found = raw(f"{name}@{index['manifests'][0]['digest']}".replace(":1@", "@"))
    assert found == index["manifests"][0]["digest"] and own["layers"]
    assert img.ok("manifest", "inspect", name).json() == index
    # Elsewhere, as docker's list.
    other = f"{host}/lists/other:1"
    img.ok("manifest", "push", "--format", "docker", name, other)
    assert raw(other)[0]["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert [row["name"] for row in img.ok("manifest", "ls", "--json").json()] == [name]


def test_mistakes_are_told_and_a_prune_keeps_what_a_list_needs(
    img: Img, registry: Registry, tmp_path: Path
) -> None:
    host = registry.host
    amd = push_one(registry, tmp_path, "lists/more:amd", "amd64")
    arm = push_one(registry, tmp_path, "lists/more:arm", "arm64")
    img.ok("manifest", "create", "some")
    assert "there already" in img.fails(2, "manifest", "create", "some").text
    img.ok("manifest", "create", "--amend", "some", f"{host}/lists/more:amd", f"{host}/lists/more:arm")
    img.ok("prune", "--all")
    assert len(img.ok("manifest", "inspect", "some").json()["manifests"]) == 2
    missing = img.fails(2, "manifest", "remove", "some", "sha256:" + "0" * 64).text
    assert amd[:19] in missing and "linux/arm64" in missing
    img.ok("manifest", "remove", "some", amd)
    assert [m["digest"] for m in img.ok("manifest", "inspect", "some").json()["manifests"]] == [arm]
    # A whole list into another one, by the platforms that it is for.
    whole = f"{host}/lists/more:all"
    img.ok("manifest", "add", "some", f"{host}/lists/more:amd")
    img.ok("manifest", "push", "some", whole)
    img.ok("manifest", "create", "--all", "copy", f"docker://{whole}")
    assert len(img.ok("manifest", "inspect", "copy").json()["manifests"]) == 2
    img.ok("manifest", "create", "one")
    img.ok("manifest", "add", "one", f"docker://{whole}", "--arch", "arm64")
    assert [m["digest"] for m in img.ok("manifest", "inspect", "one").json()["manifests"]] == [arm]
    wrong = img.fails(3, "manifest", "add", "one", f"docker://{whole}", "--arch", "mips").text
    assert "linux/amd64" in wrong
    assert "is an image" in img.fails(2, "manifest", "rm", f"{host}/lists/more@{amd}").text
    img.ok("manifest", "rm", "one", "copy", "some")
    assert img.ok("images", "-q").stdout == ""
