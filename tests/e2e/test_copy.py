"""COPY and ADD: what lands where, with which mode and owner."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support import hosts
from tests.support.command import Img
from tests.support.layout import Item, folder, symlink, tar_of


def test_a_file_keeps_its_mode_and_belongs_to_root(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY tool /bin/tool\n", "tool": "#!/bin/sh\n"})
    os.chmod(context / "tool", 0o750)
    img.build(context)
    tool = img.image().tree["bin/tool"]
    assert (tool.bits, tool.owner) == ("750", "0:0")


def test_a_folder_gives_its_contents_and_not_itself(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY src /dst\n", "src/a": "a", "src/b/c": "c"})
    img.build(context)
    assert {path for path, e in img.image().tree.items() if e.kind == "file"} == {"dst/a", "dst/b/c"}


def test_the_end_of_the_destination_tells_a_file_from_a_folder(img: Img, make_context: Context) -> None:
    context = make_context(
        {"Dockerfile": "FROM scratch\nCOPY a /x\nCOPY a /y/\nCOPY a b /z/\n", "a": "", "b": ""}
    )
    img.build(context)
    assert {p for p, e in img.image().tree.items() if e.kind == "file"} == {"x", "y/a", "z/a", "z/b"}


def test_globs_choose_files_as_go_matches_them(img: Img, make_context: Context) -> None:
    files = {"a.txt": "", "b.txt": "", "c.md": "", "d1": "", "d2": "", "dx": "", "deep/e.txt": ""}
    context = make_context(
        {"Dockerfile": "FROM scratch\nCOPY *.txt /t/\nCOPY d[0-9] /d/\nCOPY ?.md /m/\n", **files}
    )
    img.build(context)
    found = {p for p, e in img.image().tree.items() if e.kind == "file"}
    assert found == {"t/a.txt", "t/b.txt", "d/d1", "d/d2", "m/c.md"}


def test_a_relative_destination_starts_at_the_workdir(img: Img, make_context: Context) -> None:
    img.build(make_context({"Dockerfile": "FROM scratch\nWORKDIR /w\nCOPY a sub/\nCOPY a .\n", "a": ""}))
    assert {"w/a", "w/sub/a"} <= set(img.image().tree)


def test_the_json_form_takes_names_with_blanks(img: Img, make_context: Context) -> None:
    img.build(make_context({"Dockerfile": 'FROM scratch\nCOPY ["a b", "/c d"]\n', "a b": "x"}))
    assert img.image().text("c d") == "x"


def test_chown_by_number_and_by_name_and_chmod(img: Img, make_context: Context, busybox_image: str) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    dockerfile = (
        f"FROM {busybox_image}\n"
        "COPY --chown=12:34 a /by-number\nCOPY --chown=worker:staff a /by-name\n"
        "COPY --chown=worker a /by-user\nCOPY --chown=7 a /lone\n"
        "COPY --chmod=0601 a /mode\nADD --chown=1:2 --chmod=755 d /d/\n"
    )
    img.build(make_context({"Dockerfile": dockerfile, "a": "", "d/e": ""}))
    tree = img.image().tree
    names = ("by-number", "by-name", "by-user", "lone", "d/e")
    assert [tree[n].owner for n in names] == ["12:34", "1000:50", "1000:1000", "7:7", "1:2"]
    assert tree["mode"].bits == "601"
    assert tree["d/e"].bits == "755"


def test_links_are_copied_as_links_and_a_named_link_as_its_target(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY d /d\n", "d/real": "r"})
    (context / "d/link").symlink_to("real")
    (context / "d/dangling").symlink_to("nowhere")
    img.build(context)
    tree = img.image().tree
    assert (tree["d/link"].kind, tree["d/link"].content) == ("link", "real")
    assert tree["d/dangling"].content == "nowhere"


def test_a_destination_under_a_symlink_of_the_base_lands_where_it_leads(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN mkdir /real && ln -s real /alias\nCOPY a /alias/a\n"
    img.build(make_context({"Dockerfile": dockerfile, "a": "x"}))
    tree = img.image().tree
    assert tree["alias"].kind == "link"
    assert tree["real/a"].text == "x"


def test_a_source_never_leaves_the_context(img: Img, make_context: Context, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    context = make_context({"Dockerfile": "FROM scratch\nCOPY ../secret /s\n", "secret": "inside"})
    img.build(context)
    assert img.image().text("s") == "inside"


def test_a_symlink_out_of_the_context_is_resolved_inside_it(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").write_text("secret")
    context = make_context({"Dockerfile": "FROM scratch\nCOPY door/secret /s\n"})
    (context / "door").symlink_to(tmp_path / "out")
    outcome = img("build", "-t", "t", context)
    assert outcome.code != 0
    assert "door/secret" in outcome.text


def _archive(mode: str) -> bytes:
    plain = tar_of(
        [folder("pkg"), Item(path="pkg/a", data=b"a", mode=0o640, uid=5, gid=6), symlink("pkg/l", "a")]
    )
    if mode == "":
        return plain
    return subprocess.run([mode, "-c"], input=plain, check=True, capture_output=True).stdout


@pytest.mark.parametrize("program", ["", "gzip", "bzip2", "xz", "zstd"])
def test_add_extracts_an_archive_told_by_its_content(program: str, img: Img, make_context: Context) -> None:
    img.build(make_context({"Dockerfile": "FROM scratch\nADD blob /at/\n", "blob": _archive(program)}))
    tree = img.image().tree
    assert tree["at/pkg/a"].text == "a"
    assert tree["at/pkg/a"].bits == "640"
    assert tree["at/pkg/l"].content == "a"
    assert "at/blob" not in tree


def test_copy_leaves_an_archive_as_it_is(img: Img, make_context: Context) -> None:
    data = _archive("gzip")
    img.build(make_context({"Dockerfile": "FROM scratch\nCOPY blob /blob\n", "blob": data}))
    assert img.image().tree["blob"].data == data


def test_add_of_what_is_no_archive_copies_it(img: Img, make_context: Context) -> None:
    img.build(make_context({"Dockerfile": "FROM scratch\nADD a.tar /a.tar\n", "a.tar": "no archive at all"}))
    assert img.image().text("a.tar") == "no archive at all"


def test_an_archive_that_points_outside_stays_inside(img: Img, make_context: Context, tmp_path: Path) -> None:
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as archive:
        for name in ("../../escaped", "/absolute"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("door")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        through = tarfile.TarInfo("door/through")
        through.size = 1
        archive.addfile(through, io.BytesIO(b"x"))
    img(
        "build",
        "-t",
        "t",
        make_context({"Dockerfile": "FROM scratch\nADD h /in/\n", "h": hostile.getvalue()}),
    )
    assert not list(tmp_path.rglob("escaped*"))
    assert not (tmp_path / "through").exists()
    assert not Path("/absolute").exists()


def test_names_of_one_file_stay_that_through_folders_and_stages(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS made\nRUN mkdir -p /s/e && echo a >/s/a && ln /s/a /s/e/b\n"
        "COPY --chown=3:4 d /d\n"
        f"FROM {busybox_image}\nCOPY --from=made /s /s\nCOPY --from=made --chmod=600 /d /d\n"
        "RUN stat -c %h /s/a /s/e/b /d/one /d/e/two >/counts && test /d/one -ef /d/e/two\n"
    )
    context = make_context({"Dockerfile": dockerfile, "d/one": "same", "d/e/": ""})
    os.link(context / "d/one", context / "d/e/two")
    img.build(context)
    tree = img.image().tree
    assert tree["counts"].text.split() == ["2"] * 4
    assert tree["d/one"].text == tree["d/e/two"].text == "same"
    assert tree["d/one"].bits == tree["d/e/two"].bits == "600"


def test_holes_of_a_source_do_no_harm(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY d /d\n"})
    (context / "d").mkdir()
    with (context / "d/sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"middle")
    img.build(context)
    tree = img.image().tree
    archive = img.home / "o.tar"
    img.ok("save", "--format", "oci", "-o", archive, "t")
    assert tree["d/sparse"].content == _digest(context / "d/sparse")


def _digest(path: Path) -> str:
    done = subprocess.run(["sha256sum", str(path)], check=True, capture_output=True, text=True)
    return "sha256:" + done.stdout.split()[0]
