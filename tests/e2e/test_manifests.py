"""`img manifest`: lists of images put together by hand, pushed, and read by other people's tools."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context, MakeImg
from tests.support.between import Between
from tests.support.command import Img
from tests.support.layout import Item, tar_of, write_layout
from tests.support.peers import Peers
from tests.support.registry import Broken, Registry
from tests.support.web import Web

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
    img: Img, registry: Registry, between: Between, make_context: Context, tmp_path: Path
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
    # What knows it by another host and port is another registry: nothing can be mounted there.
    copied = f"127.0.0.1:{between.port}/lists/copied:1"
    img.ok("manifest", "push", "--format", "oci", name, copied)
    assert raw(f"{host}/lists/copied:1")[0] == index
    assert not [seen for seen in between.seen if "mount=" in seen.path and seen.status == 201]


ZSTD = "io.github.containers.compression.zstd"


def test_each_image_of_a_list_is_there_in_another_compression_as_well(
    img: Img, registry: Registry, make_img: MakeImg, make_context: Context, tmp_path: Path
) -> None:
    arm = push_one(registry, tmp_path, "lists/both:arm", "arm64")
    img.build(make_context({"Dockerfile": "FROM scratch\nCOPY . /\n", "f": "here\n" * 5000}), tag="local")
    name = f"{registry.host}/lists/both:1"
    img.ok("manifest", "create", name, "local", f"{registry.host}/lists/both:arm")
    wrong = img.fails(2, "manifest", "push", "--add-compression", "zstd", "--format", "docker", name).text
    assert "cannot say how an image is compressed" in wrong
    assert "gzip or zstd" in img.fails(2, "manifest", "push", "--add-compression", "lzma", name).text
    img.ok("manifest", "annotate", name, arm, "--annotation", "who=me")
    pushed = img.ok("manifest", "push", "--add-compression", "zstd,gzip", name).stdout.strip()
    index, digest = raw(name)
    assert digest == pushed
    told = [(m["platform"]["architecture"], m.get("annotations", {})) for m in index["manifests"]]
    assert told == [
        ("amd64", {}),
        ("arm64", {"who": "me"}),
        ("amd64", {ZSTD: "true"}),
        ("arm64", {"who": "me", ZSTD: "true"}),
    ]
    repository = name.removesuffix(":1")
    documents = [raw(f"{repository}@{entry['digest']}")[0] for entry in index["manifests"]]
    assert index["manifests"][1]["digest"] == arm, "the image that was there stays what it is"
    for plain, zstd in zip(documents[:2], documents[2:], strict=True):
        assert plain["config"]["digest"] == zstd["config"]["digest"]
        kinds = [layer["mediaType"][-4:] for layer in (*plain["layers"], *zstd["layers"])]
        assert kinds == ["gzip", "zstd"]
    assert "linux/amd64,linux/arm64\n" in img.ok("images", "--format", "{platforms}").stdout
    # Nothing is added twice, by the same command or by one that names another place.
    assert img.ok("manifest", "push", "--add-compression", "zstd", name).stdout.strip() == pushed
    assert img.ok("push", name).stdout.strip() == pushed
    again = f"{registry.host}/lists/both-again:1"
    img.ok("manifest", "create", "--all", "copy", f"docker://{name}")
    assert img.ok("manifest", "push", "--add-compression", "zstd", "copy", again).stdout.strip() == pushed
    # Podman of these days takes the first; who knows the mark takes zstd, which is the same image.
    peers = Peers(tmp_path / "peers")
    try:
        peers.podman("pull", "--quiet", "--tls-verify=false", name)
        id = peers.podman("image", "inspect", "--format", "{{.Id}}", name).strip()
    finally:
        peers.close()
    other = make_img()
    pulled = other.ok("pull", "--json", name).json()
    assert pulled["digest"] == index["manifests"][2]["digest"] and pulled["id"] == f"sha256:{id}"
    other.ok("copy", "--platform", "linux/amd64", f"docker://{name}", f"oci:{tmp_path}/gzip:x")
    copied = json.loads((tmp_path / "gzip/index.json").read_text())["manifests"]
    assert [entry["digest"] for entry in copied] == [index["manifests"][0]["digest"]]
    # What is about an image for a platform is about the first, where others look for it.
    (tmp_path / "note").write_text("checked")
    img.ok("artifact", "attach", "--platform", "linux/amd64", name, "note", cwd=tmp_path)
    first = f"{repository}@{index['manifests'][0]['digest']}"
    assert len(img.ok("referrers", "--json", first).json()) == 1
    assert len(img.ok("referrers", "--json", "--platform", "linux/amd64", name).json()) == 1
    # A newer image takes the place of the old one in every compression.
    newer = push_one(registry, tmp_path / "newer", "lists/both:arm2", "arm64")
    assert newer == arm
    img.build(make_context({"Dockerfile": "FROM scratch\nCOPY . /\n", "f": "newer"}), tag="newer")
    img.ok("manifest", "add", name, "newer")
    left = img.ok("manifest", "inspect", name).json()["manifests"]
    assert [m["platform"]["architecture"] for m in left] == ["amd64", "arm64", "arm64"]
    img.ok("manifest", "push", "--add-compression", "zstd", name)
    entries = raw(name)[0]["manifests"]
    assert [m["platform"]["architecture"] for m in entries] == ["amd64", "arm64", "arm64", "amd64"]
    assert len({raw(f"{repository}@{entries[n]['digest']}")[0]["config"]["digest"] for n in (0, 3)}) == 1
    # Where all leave as zstd, they are marked, and gzip is what is added, before them.
    img.ok("manifest", "create", "one", "newer")
    only = f"{registry.host}/lists/both-only:1"
    img.ok("manifest", "push", "--compression", "zstd", "--add-compression", "gzip", "one", only)
    entries = raw(only)[0]["manifests"]
    assert [m.get("annotations") for m in entries] == [None, {ZSTD: "true"}]
    kinds = [raw(f"{only[:-2]}@{m['digest']}")[0]["layers"][0]["mediaType"][-4:] for m in entries]
    assert kinds == ["gzip", "zstd"]
    # And where they are made alike again, one of them is left.
    img.ok("manifest", "push", "--compression", "gzip", "--force-compression", "one", only)
    assert [m.get("annotations") for m in raw(only)[0]["manifests"]] == [None]


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


def test_files_about_an_image_are_listed_and_come_back(img: Img, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/lists/about:1"
    digest = push_one(registry, tmp_path, "lists/about:1", "amd64")
    assert img.ok("referrers", "--json", name).json() == []
    (tmp_path / "sbom.json").write_text('{"parts": []}')
    attached = img.ok(
        "artifact", "attach", "--artifact-type", "application/spdx+json", "--annotation", "by=me", name,
        "sbom.json:application/json", cwd=tmp_path,
    ).stdout.strip()  # fmt: skip
    (row,) = img.ok("referrers", "--json", "--artifact-type", "application/spdx+json", name).json()
    assert (row["digest"], row["annotations"]) == (attached, {"by": "me"})
    assert img.ok("referrers", "--artifact-type", "a/b", "--format", "{digest}", name).stdout == ""
    sbom = f"{registry.host}/lists/about@{attached}"
    (tmp_path / "odd").write_text("signed")
    signed = img.ok("artifact", "attach", "--annotation", "by=\x1b[31mme", sbom, "odd", cwd=tmp_path)
    tree = img.ok("referrers", "--tree", name).stdout.splitlines()
    assert tree[0] == f"{name}@{digest}" and tree[1].startswith(f"└── application/spdx+json  {attached}  ")
    assert tree[2] == "    │   by=me"
    assert tree[3].startswith(f"    └── application/vnd.unknown.artifact.v1  {signed.stdout.strip()}  ")
    assert tree[4] == "            by= [31mme", "nothing that others wrote reaches the terminal as it is"
    (nested,) = img.ok("referrers", "--tree", "--json", name).json()
    assert [(each["digest"], each["referrers"]) for each in nested["referrers"]] == [
        (signed.stdout.strip(), [])
    ]
    rows = img.ok("referrers", "--depth", "2", "--format", "{depth} {digest} {subject}", name).stdout
    assert rows.splitlines() == [f"1 {attached} {digest}", f"2 {signed.stdout.strip()} {attached}"]
    manifest, found = raw(f"{registry.host}/lists/about@{attached}")
    assert found == attached and manifest["subject"]["digest"] == digest
    out = tmp_path / "out"
    printed = img.ok("artifact", "pull", "-o", out, f"{registry.host}/lists/about@{attached}").stdout
    assert printed == f"{out}/sbom.json\n" and (out / "sbom.json").read_text() == '{"parts": []}'
    (tmp_path / "site/css").mkdir(parents=True)
    (tmp_path / "site/css/a.css").write_text("a {}")
    site = f"{registry.host}/lists/site:1,latest"
    one = img.ok("artifact", "push", site, "site", "odd:a/b", "--config", "odd", cwd=tmp_path).stdout
    early = {"SOURCE_DATE_EPOCH": "1"}
    assert one != img.ok("artifact", "push", site, "site", "odd:a/b", cwd=tmp_path, env=early).stdout
    listed = img.ok("artifact", "ls", site.replace("1,", "")).stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [
        ["site/", "application/vnd.oci.image.layer.v1.tar+gzip"], ["odd", "a/b"],
    ]  # fmt: skip
    (tmp_path / "here").mkdir()
    fetched = img.ok("artifact", "pull", "--include", "s*", site.partition(",")[0], cwd=tmp_path / "here")
    assert fetched.stdout == "site\n" and (tmp_path / "here/site/css/a.css").stat().st_mtime == 1
    assert img.ok("artifact", "ls", "--format", "{name}", site.partition(",")[0]).stdout == "site\nodd\n"
    said = img.fails(2, "pull", f"{registry.host}/lists/about@{attached}").text
    assert "no image, but an artifact: application/spdx+json" in said and "img artifact pull" in said
    # A list may be about something, too, and hold what is no image.
    whole = f"{registry.host}/lists/about:all"
    img.ok("manifest", "create", whole, name, f"{registry.host}/lists/about@{attached}")
    img.ok("manifest", "annotate", "--subject", name, whole)
    other = f"{registry.host}/lists/about-elsewhere:all"
    img.ok("tag", whole, other)
    pushed = img.ok("manifest", "push", other).stdout.strip()
    assert pushed == img.ok("push", whole).stdout.strip()
    assert pushed in [row["digest"] for row in img.ok("referrers", "--json", name).json()]
    assert img.ok("referrers", "--json", whole).json() == []
    note = img.ok(
        "artifact", "attach", "--platform", "linux/amd64", whole, "odd", cwd=tmp_path
    ).stdout.strip()
    of_one = img.ok("referrers", "--json", "--platform", "linux/amd64", whole).json()
    assert {attached, note} <= {row["digest"] for row in of_one}
    assert "no image for linux/s390x" in img.fails(3, "referrers", "--platform", "linux/s390x", whole).text
    elsewhere, _ = raw(other)
    assert [m.get("artifactType") for m in elsewhere["manifests"]] == [None, "application/spdx+json"]
    (tmp_path / "taken").write_text("")
    for file in ("taken", "taken/below"):
        words = ("artifact", "pull", "-o", tmp_path / file, f"{registry.host}/lists/about@{attached}")
        assert f"{file} is no folder" in img.fails(2, *words).text
    img.ok("artifact", "pull", "-o", tmp_path / "again", f"{registry.host}/lists/about-elsewhere@{attached}")
    assert (tmp_path / "again/sbom.json").exists()


class Permissive(Registry):
    """A registry that takes manifests whose layers are elsewhere."""

    def _configuration(self) -> dict[str, object]:
        urls = {"urls": {"allow": ["^http://127[.]0[.]0[.]1:"]}}
        return {**super()._configuration(), "validation": {"manifests": urls}}


def test_a_layer_that_registries_may_not_have_comes_from_its_url_and_stays_there(
    img: Img, tmp_path: Path
) -> None:
    layout, tar = tmp_path / "layout", tar_of([Item(path="licensed", data=b"not to be copied")])
    digest = write_layout(layout, [tar], {})
    blobs = layout / "blobs/sha256"
    with Web() as web, Permissive(tmp_path / "registry") as registry:
        manifest = json.loads((blobs / digest[7:]).read_text())
        (layer,) = manifest["layers"]
        url = web.put("/layer", (blobs / layer["digest"][7:]).read_bytes())
        (blobs / layer["digest"][7:]).unlink()
        layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        layer["urls"] = [url]
        data = json.dumps(manifest).encode()
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        index = json.loads((layout / "index.json").read_text())
        index["manifests"][0] |= {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
        (layout / "index.json").write_text(json.dumps(index))
        with Broken(layout) as server:
            source = f"{server.host}/foreign:latest"
            img.ok("pull", source)
        img.ok("unpack", "-o", tmp_path / "root", source)
        assert (tmp_path / "root/licensed").read_bytes() == b"not to be copied"
        name = f"{registry.host}/lists/foreign:1"
        img.ok("tag", source, name)
        assert img.ok("push", name).stdout.strip() == index["manifests"][0]["digest"]
        assert raw(name)[0]["layers"] == [layer]
        kept = registry.folder / "data"
        assert not list(kept.rglob(layer["digest"][7:])), "the layer was not sent"
        img.ok("push", "--allow-nondistributable-artifacts", name)
        assert list(kept.rglob(layer["digest"][7:]))


def test_annotations_go_where_they_are_said_to(img: Img, registry: Registry, make_context: Context) -> None:
    name = f"{registry.host}/lists/annotated:1"
    context = make_context({"Dockerfile": "FROM scratch\nCOPY . /\n", "f": "x"})
    img.build(
        context, "--platform", "linux/amd64,linux/arm64", "--push", "--annotation", "all=1",
        "--annotation", "manifest[linux/arm64],manifest-descriptor[linux/arm64]:arm=3",
        "-o", "type=image,annotation-index.Whole=2", tag=name,
    )  # fmt: skip
    index, digest = raw(name)
    assert index["annotations"] == {"Whole": "2"}
    assert [entry.get("annotations") for entry in index["manifests"]] == [None, {"arm": "3"}]
    manifests = [raw(f"{name[:-2]}@{entry['digest']}")[0] for entry in index["manifests"]]
    assert [each["annotations"] for each in manifests] == [{"all": "1"}, {"all": "1", "arm": "3"}]
    # A push adds to what is there; the store has what the registry has.
    pushed = img.ok("push", "--annotation", "index:more=4", name).stdout.strip()
    assert raw(name)[0]["annotations"] == {"Whole": "2", "more": "4"} and raw(name)[1] == pushed != digest
    assert img.ok("push", name).stdout.strip() == pushed
    one = f"{registry.host}/lists/annotated:one"
    img.build(context, tag=one)
    assert "for an index" in img.fails(2, "push", "--annotation", "index:a=b", one).text
    img.ok("push", "--annotation", "a=b=c", one)
    assert raw(one)[0]["annotations"] == {"a": "b=c"}
    assert "no place" in img.fails(2, "push", "--annotation", "config:a=b", one).text
