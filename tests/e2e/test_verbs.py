"""The other verbs, and the shapes of what they print."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support import hosts, trees
from tests.support.command import Img
from tests.support.registry import Registry, copy

pytestmark = pytest.mark.once

SIZE = r"\d+(\.\d+)?(B|KiB|MiB|GiB)"


def _build(img: Img, make_context: Context, base: str, tag: str = "jess/img", extra: str = "") -> Path:
    context = make_context(
        {"Dockerfile": f"FROM {base}\nRUN echo hello > /hello\nCOPY a /a\n{extra}", "a": "a"}
    )
    img.build(context, tag=tag)
    return context


def test_build_prints_the_shape_of_the_first_img(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nRUN echo from-inside; touch /x\nCOPY a /a\n", "a": "a"}
    )
    img.ok("pull", busybox_image)
    lines = img.ok("build", "-t", "jess/img", context).text.splitlines()
    assert lines[0] == "Building jess/img..."
    assert lines[1] == "Setting up the rootfs... this may take a bit."
    run = lines.index("RUN [/bin/sh -c echo from-inside; touch /x] (first build of this step)")
    assert lines[run + 1] == "--->"
    assert lines[run + 2] == "from-inside"
    assert re.fullmatch(r"<--- \w{20,} 0 <nil>", lines[run + 3])
    assert any(re.fullmatch(r"RUN \[copy .*a .*/a\] \(first build of this step\)", line) for line in lines)
    assert lines[-1] == "Built image: jess/img"


def test_ls_lists_what_the_store_holds_with_its_totals(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    _build(img, make_context, busybox_image)
    lines = img.ok("ls").stdout.splitlines()
    assert re.fullmatch(r"ID\s+RECLAIMABLE\s+SIZE\s+LAST ACCESSED", lines[0])
    rows = [line for line in lines[1:] if not line.startswith(("Reclaimable:", "Total:"))]
    assert len(rows) >= 3
    assert all(re.fullmatch(rf"\S+\*?\s+(true|false)\s+{SIZE}(\s+.+)?", row) for row in rows), rows
    assert re.fullmatch(rf"Reclaimable:\s+{SIZE}", lines[-2])
    assert re.fullmatch(rf"Total:\s+{SIZE}", lines[-1])


def test_ls_filters_by_snapshot_id(img: Img, make_context: Context, busybox_image: str) -> None:
    _build(img, make_context, busybox_image)
    rows = img.ok("ls").stdout.splitlines()[1:-2]
    wanted = rows[0].split()[0]
    listed = img.ok("ls", "-f", f"id=={wanted.rstrip('*')}").stdout
    assert wanted in listed
    assert rows[1].split()[0] not in listed


def test_ls_gives_the_same_as_json(img: Img, make_context: Context, busybox_image: str) -> None:
    _build(img, make_context, busybox_image)
    rows = img.ok("ls", "--json").json()
    shown = img.ok("ls").stdout
    rows = rows if isinstance(rows, list) else next(v for v in rows.values() if isinstance(v, list))
    assert rows
    assert all(str(row["id"]) in shown for row in rows)


def test_images_lists_names_tags_and_ids(img: Img, make_context: Context, busybox_image: str) -> None:
    _build(img, make_context, busybox_image, tag="jess/img:one")
    img.ok("tag", "jess/img:one", "127.0.0.1:5000/other:two")
    lines = img.ok("images").stdout.splitlines()
    assert re.fullmatch(r"NAME\s+TAG\s+IMAGE ID\s+CREATED\s+SIZE", lines[0])
    named = {tuple(line.split()[:2]): line.split()[2] for line in lines[1:]}
    one = next(i for (name, tag), i in named.items() if name.endswith("jess/img") and tag == "one")
    assert named["127.0.0.1:5000/other", "two"] == one
    assert all(re.search(rf"\s{SIZE}$", line) for line in lines[1:])


def test_rm_takes_a_name_away_and_an_unknown_name_is_an_error_with_a_near_one(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    _build(img, make_context, busybox_image, tag="jess/img:one")
    assert "jess/img:one" in img.fails(5, "rm", "jess/imgg:one").text
    img.ok("rm", "jess/img:one")
    assert "jess/img" not in img.ok("images").stdout


def test_inspect_prints_the_configuration_as_json(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    _build(img, make_context, busybox_image, extra="LABEL a=b\nEXPOSE 80\n")
    text = img.ok("inspect", "jess/img").stdout
    assert '"a": "b"' in text
    assert "80/tcp" in text
    json.loads(text)


def test_save_and_load_carry_an_image_between_stores_in_both_formats(
    img: Img, make_context: Context, busybox_image: str, make_img: MakeImg, tmp_path: Path
) -> None:
    _build(img, make_context, busybox_image, tag="jess/img:one")
    before = img.image("jess/img:one")
    for name in ("oci", "docker"):
        archive = tmp_path / f"{name}.tar"
        img.ok("save", "--format", name, "-o", archive, "jess/img:one")
        other = make_img()
        other.ok("load", "-i", archive)
        after = other.image("jess/img:one")
        assert after.tree == before.tree
        assert after.config == before.config


def test_save_writes_to_standard_output_what_skopeo_reads(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    _build(img, make_context, busybox_image)
    for name, transport in (("oci", "oci-archive"), ("docker", "docker-archive")):
        archive = tmp_path / f"{name}.tar"
        with archive.open("wb") as file:
            command = img.command("save", "--format", name, "jess/img")
            subprocess.run(command, env=img.environment(), stdout=file, check=True, timeout=300)
        with tarfile.open(archive) as opened:
            assert opened.getnames()
        copy(f"{transport}:{archive}", f"oci:{tmp_path / name}-out:x")
        assert trees.read_image(tmp_path / f"{name}-out").text("hello") == "hello\n"


def test_load_takes_what_skopeo_writes(img: Img, busybox_layout: Path, tmp_path: Path) -> None:
    copy(f"oci:{busybox_layout}:latest", f"docker-archive:{tmp_path / 'd.tar'}:some/name:tag")
    img.ok("load", "-i", tmp_path / "d.tar")
    assert img.image("some/name:tag").tree["bin/sh"].content == "busybox"


def test_unpack_writes_a_plain_root_that_runs(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    _build(img, make_context, busybox_image, extra="RUN rm /a\n")
    img.ok("unpack", "-o", tmp_path / "rootfs", "jess/img")
    assert (tmp_path / "rootfs/hello").read_text() == "hello\n"
    assert not (tmp_path / "rootfs/a").exists()
    expected = img.image("jess/img").tree
    found = trees.read_root(tmp_path / "rootfs")
    assert {p: (e.kind, e.mode, e.content) for p, e in found.items()} == {
        p: (e.kind, e.mode, e.content) for p, e in expected.items()
    }
    hosts.remove_tree(tmp_path / "rootfs")


def test_unpack_never_writes_over_a_folder_that_has_something_in_it(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    _build(img, make_context, busybox_image)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x")
    outcome = img("unpack", "-o", tmp_path / "mine", "jess/img")
    assert outcome.code == 2, str(outcome)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["precious"]


def test_du_counts_real_bytes_and_prune_frees_what_it_says(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN head -c 9000000 /dev/urandom > /big\n"
    img.build(make_context({"Dockerfile": dockerfile}), tag="big:1")
    assert _disk(img.state) >= 9_000_000
    img.ok("du")
    img.ok("rm", "big:1")
    before = _disk(img.state)
    outcome = img.ok("prune", "--all")
    freed = before - _disk(img.state)
    said = re.search(r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)", outcome.stdout.splitlines()[-1])
    assert said is not None, str(outcome)
    bytes_said = float(said[1]) * {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[said[2]]
    assert freed >= 9_000_000
    assert abs(bytes_said - freed) < 0.05 * freed + 200_000
    assert img.ok("ls").stdout.splitlines()[-1].startswith("Total:")


def test_prune_keeps_what_images_need(img: Img, make_context: Context, busybox_image: str) -> None:
    context = _build(img, make_context, busybox_image, tag="keep:1")
    before = img.image("keep:1")
    img.ok("prune", "--all")
    assert img.image("keep:1").tree == before.tree
    img.build(context, tag="keep:2")
    assert img.image("keep:2").tree == before.tree


def _disk(state: Path) -> int:
    command = hosts.inside("du", "-s", "--block-size=1", str(state))
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])


def test_pull_prints_the_snapshot_and_the_size(img: Img, busybox_image: str) -> None:
    lines = img.ok("pull", busybox_image).text.splitlines()
    assert lines[0] == f"Pulling {busybox_image}..."
    assert re.fullmatch(r"Snapshot ref: sha256:[0-9a-f]{64}", lines[-2])
    assert re.fullmatch(rf"Size: {SIZE}", lines[-1])


def test_pull_by_digest_gives_that_image(img: Img, busybox_image: str, busybox_layout: Path) -> None:
    digest = trees.read_image(busybox_layout).digest
    name = busybox_image.rsplit(":", 1)[0]
    img.ok("pull", f"{name}@{digest}")
    assert img.image(f"{name}@{digest}").tree["bin/sh"].content == "busybox"


def test_push_sends_what_others_can_pull_and_build_can_push_by_itself(
    img: Img, make_context: Context, busybox_image: str, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/pushed:one"
    context = _build(img, make_context, busybox_image, tag=name)
    img.ok("push", name)
    copy(f"docker://{name}", f"oci:{tmp_path / 'o'}:x")
    assert trees.read_image(tmp_path / "o").tree == img.image(name).tree
    second = f"{registry.host}/pushed:two"
    outcome = img.ok("build", "--push", "-t", second, context)
    assert outcome.text.splitlines()[-1] == f"Built and pushed image: {second}"
    copy(f"docker://{second}", f"oci:{tmp_path / 'p'}:x")


def test_version_says_its_version(img: Img) -> None:
    assert re.search(r"\d+\.\d+\.\d+", img.ok("version").stdout)
    assert img.ok("version", "--json").json()["version"] in img.ok("version").stdout


def test_build_tells_a_program_its_result(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n"})
    outcome = img.ok(
        "build", "--json", "--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "m", "-t", "t", context
    )
    result = outcome.json()
    assert result["digest"].startswith("sha256:")
    assert (tmp_path / "id").read_text().strip().startswith("sha256:")
    assert result["digest"] in (tmp_path / "m").read_text()


def test_the_store_is_an_oci_layout_that_skopeo_reads(img: Img, busybox_image: str, tmp_path: Path) -> None:
    img.ok("pull", busybox_image)
    layout = img.state / "oci"
    index = json.loads((layout / "index.json").read_text())
    name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    copy(f"oci:{layout}:{name}", f"oci:{tmp_path / 'o'}:x")
    assert trees.read_image(tmp_path / "o").tree["bin/sh"].content == "busybox"
