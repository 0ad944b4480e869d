"""`img copy`, `tags` and `delete` as commands, and what other verbs take from any place."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import FaultyRegistry, stall
from tests.support.command import Img
from tests.support.registry import Registry
from tests.support.registry import copy as skopeo


def test_what_was_built_leaves_for_every_kind_of_place_and_comes_back(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "hello\n" * 1000})
    img.build(context, tag="me/app:1")
    there = f"{registry.host}/copying/built"
    out = tmp_path / "digest"
    done = img.ok(
        "copy", "--digest-file", out, "img:me/app:1", f"{there}:1", f"{there}:latest",
        f"oci:{tmp_path}/l:1", f"docker-archive:{tmp_path}/d.tar:me/app:1",
    )  # fmt: skip
    digest = done.stdout.strip()
    assert out.read_text() == digest and "Successfully copied to" in done.stderr
    skopeo(f"docker://{there}:1", f"oci:{tmp_path}/skopeo:1")
    assert json.loads((tmp_path / "skopeo/index.json").read_text())["manifests"][0]["digest"] == digest
    again = img.ok("copy", "--json", f"docker://{there}:1", f"oci:{tmp_path}/l:2").json()
    assert (again["digest"], again["sent"]) == (digest, 0)
    assert (
        img.ok("copy", "-q", "img:me/app:1", f"{there}:zstd", "--compression", "zstd").stdout != done.stdout
    )
    words = ("-f", "v2s2", "--multi-arch", "system", "--digestfile", out)  # skopeo's
    turned = img.ok("copy", "-q", *words, f"{there}:1", f"{there}:docker").stdout.strip()
    assert out.read_text() == turned != digest
    # Another store takes it from each of them, and can use it.
    other = Img(tmp_path / "other", img.home)
    for place in (f"docker://{there}:1", f"oci:{tmp_path}/l:1", f"docker-archive:{tmp_path}/d.tar"):
        other.ok("pull", place)
    names = other.ok("images", "--format", "{name}:{tag}").stdout.split()
    assert sorted(names) == sorted([f"{there}:1", "localhost/l:1", "me/app:1"])
    assert other.ok("load", "-q", "-i", tmp_path / "l").stdout.startswith("sha256:")
    other.ok("unpack", "-o", tmp_path / "rootfs", "localhost/l:1")
    assert (tmp_path / "rootfs/a").read_text() == "hello\n" * 1000
    config = img.ok("inspect", f"docker://{there}:1").json()
    assert config == img.ok("inspect", f"oci:{tmp_path}/l:2").json() == img.ok("inspect", "me/app:1").json()
    manifest = other.ok("inspect", "--manifest", f"docker-archive:{tmp_path}/d.tar").json()
    assert (tmp_path / "skopeo/blobs/sha256" / manifest["layers"][0]["digest"][7:]).is_file()


@pytest.mark.once
def test_names_are_listed_and_deleted(img: Img, registry: Registry, busybox_layout: Path) -> None:
    there = f"{registry.host}/copying/names"
    tags = ["1.9", "1.10", "1.10-rc1", "edge"]
    there = there.replace("127.0.0.1", "localhost")
    img.ok("copy", "-q", f"oci:{busybox_layout}", *(f"{there}:{tag}" for tag in tags))
    assert img.ok("tags", "--sort", "version", there).stdout.split() == ["edge", "1.9", "1.10-rc1", "1.10"]
    assert img.ok("tags", "--filter", "1.*", "--limit", "1", "--sort", "name", there).stdout == "1.10\n"
    rows = img.ok("tags", "--digests", "--json", f"docker://{there}").json()
    assert len({row["digest"] for row in rows}) == 1 and rows[0]["reference"] == f"{there}:{rows[0]['tag']}"
    refused = img.fails(2, "delete", f"{there}:edge")
    assert f"{there}:1.9" in refused.stderr and "--force" in refused.stderr
    gone = img.ok("delete", "--json", *(f"{there}:{tag}" for tag in tags)).json()
    assert [one["name"] for one in gone] == [f"{there}:{tag}" for tag in tags]
    assert img.ok("tags", there).stdout == ""
    img.fails(3, "delete", f"{there}:edge")
    img.fails(2, "delete", "img:x")
    img.fails(3, "tags", f"{registry.host}/copying/nothing")


@pytest.mark.once
def test_mistakes_say_what_was_meant(img: Img, tmp_path: Path) -> None:
    for code, args, says in (
        (2, ("copy", "https://hub.docker.com/r/me/app", "oci:x"), "did you mean me/app?"),
        (2, ("copy", "alpine", "oci:"), "write oci:PATH"),
        (2, ("copy", "docker-daemon:app", "oci:x"), "docker-archive:FILE"),
        (2, ("copy", "oci:nowhere", "oci:x"), "there is no folder nowhere"),
        (2, ("copy", "--all", "--platform", "arm64", "alpine", "oci:x"), "contradict"),
        (2, ("copy", "--multi-arch=system", "--all", "alpine", "oci:x"), "one platform"),
        (2, ("pull", "./app.tar"), "img load -i ./app.tar"),
        (2, ("push", "Me/App:1"), "^\n"),
        (5, ("copy", "img:nothing", "oci:x"), "no such image"),
        (3, ("copy", "127.0.0.1:1/a", "oci:x"), "connection refused"),
    ):
        assert says in img.fails(code, *args, cwd=tmp_path).stderr


@pytest.mark.once
@pytest.mark.parametrize("target", ["oci-archive:a.tar", "oci:l:1", "dir:d", "img:a"])
def test_a_copy_that_is_interrupted_leaves_nothing_half_named(
    img: Img, busybox_layout: Path, target: str
) -> None:
    bits = make_image(3_000_000, 10)
    began, over = threading.Event(), threading.Event()
    with FaultyRegistry() as slow:
        slow.add(bits.manifest, bits.blobs, tag="latest")
        slow.fail(bits.layers[0].digest, stall(1_000_000, began, over))
        process = img.start("copy", f"{slow.host}/me/app", target)
        assert began.wait(60)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        over.set()
    assert process.returncode == 130 and b"Traceback" not in output, output
    left = [path.name for path in img.home.rglob("*") if path.is_file()]
    assert not [name for name in left if "partial" in name or name in ("index.json", "a.tar", "version")]
    assert img.ok("images", "-q").stdout == ""
    img.ok("copy", "-q", f"oci:{busybox_layout}", target)
