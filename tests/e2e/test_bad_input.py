"""Bad input: which exit code, and that the message names the thing and the way out.

Exit codes: 1 the build failed, 2 usage or Dockerfile, 3 registry, 4 this machine, 5 store.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img
from tests.support.layout import write_busybox
from tests.support.registry import SECRET_HASH, Broken, Registry

pytestmark = pytest.mark.once


def test_a_folder_without_a_dockerfile_is_named(img: Img, make_context: Context) -> None:
    context = make_context({"a": ""})
    outcome = img.fails(2, "build", "-t", "t", context)
    assert "Dockerfile" in outcome.stderr
    assert str(context) in outcome.stderr


def test_a_folder_that_does_not_exist_is_named(img: Img, tmp_path: Path) -> None:
    assert "nowhere" in img.fails(2, "build", "-t", "t", tmp_path / "nowhere").stderr


def test_an_unknown_instruction_is_shown_with_its_line_and_the_near_one(
    img: Img, make_context: Context
) -> None:
    outcome = img.fails(2, "build", "-t", "t", make_context({"Dockerfile": "FROM scratch\n\nCOYP a /a\n"}))
    assert "Dockerfile:3" in outcome.stderr
    assert "COYP a /a" in outcome.stderr
    assert "COPY" in outcome.stderr


@pytest.mark.parametrize(
    ("dockerfile", "word"),
    [
        ("", "FROM"),
        ("RUN true\n", "FROM"),
        ("FROM scratch\nCOPY a\n", "COPY"),
        ("FROM scratch\nCOPY --bogus=1 a /a\n", "bogus"),
        ("FROM scratch\nCOPY --from=nosuch a /a\n", "nosuch"),
        ("FROM scratch\nENV =x\n", "ENV"),
        ("FROM scratch\nONBUILD FROM x\n", "ONBUILD"),
        ("FROM UPPER:Case:twice\n", "UPPER"),
    ],
)
def test_a_dockerfile_that_makes_no_sense_is_refused_before_anything_runs(
    dockerfile: str, word: str, img: Img, make_context: Context
) -> None:
    outcome = img("build", "-t", "t", make_context({"Dockerfile": dockerfile, "a": ""}))
    assert word in outcome.stderr
    if word != "nosuch":  # a name that is no stage may be an image of a registry
        assert outcome.code == 2, str(outcome)


def test_an_unknown_stage_is_named_with_the_ones_there_are(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch AS alpha\nFROM scratch AS beta\n"})
    outcome = img.fails(2, "build", "-t", "t", "-target", "alhpa", context)
    assert "alhpa" in outcome.stderr
    assert "alpha" in outcome.stderr


def test_a_bad_reference_is_refused(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": ""})
    assert "Bad Name" in img.fails(2, "build", "-t", "Bad Name", context).stderr
    assert "a@sha256:1" in img.fails(2, "pull", "a@sha256:1").stderr


def test_a_base_that_the_registry_does_not_have_is_named(
    img: Img, make_context: Context, registry: Registry
) -> None:
    name = f"{registry.host}/no/such:thing"
    outcome = img.fails(3, "build", "-t", "t", make_context({"Dockerfile": f"FROM {name}\n"}))
    assert name in outcome.stderr
    assert name in img.fails(3, "pull", name).stderr


def test_a_registry_that_is_down_is_said_quickly(img: Img, make_context: Context) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        outcome = img.fails(3, "pull", f"{host}/x", timeout=60)
    assert host in outcome.stderr


def test_a_registry_that_wants_a_password_says_so_and_takes_the_one_of_dockers_configuration(
    img: Img, tmp_path: Path, busybox_layout: Path
) -> None:
    with Registry(tmp_path / "private", htpasswd=f"me:{SECRET_HASH}\n") as private:
        name = f"{private.host}/mine:1"
        archive = tmp_path / "b.tar"
        outcome = img.fails(3, "pull", name)
        assert "401" in outcome.stderr or "unauthorized" in outcome.stderr.lower()
        (img.home / ".docker").mkdir()
        auths = {"auths": {private.host: {"auth": "bWU6c2VjcmV0"}}}
        (img.home / ".docker/config.json").write_text(json.dumps(auths))
        _oci_archive(busybox_layout, archive)
        img.ok("load", "-i", archive)
        source = img.ok("images").stdout.splitlines()[1].split()
        img.ok("tag", f"{source[0]}:{source[1]}", name)
        img.ok("push", name)
        img.ok("rm", name)
        img.ok("pull", name)
        assert "secret" not in img("-d", "pull", name).text


def _oci_archive(layout: Path, archive: Path) -> None:
    from tests.support.registry import copy

    copy(f"oci:{layout}:latest", f"docker-archive:{archive}:seed/image:1")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout of one's own to damage."""
    write_busybox(tmp_path / "layout")
    return tmp_path / "layout"


def _layer(layout: Path) -> str:
    index = json.loads((layout / "index.json").read_text())
    manifest = layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    return str(json.loads(manifest.read_text())["layers"][0]["digest"])


@pytest.mark.parametrize("how", ["truncate", "flip", "missing"])
def test_a_damaged_layer_is_refused_and_never_kept(how: str, img: Img, layout: Path) -> None:
    digest = _layer(layout)
    with Broken(layout, {digest: how}) as server:
        name = f"{server.host}/x:latest"
        outcome = img("pull", name, timeout=120)
        assert outcome.code in (3, 5), str(outcome)
        assert "Traceback" not in outcome.text
        assert "x" not in [
            line.split("/")[-1].split()[0] for line in img.ok("images").stdout.splitlines()[1:]
        ]
        server.damage.clear()
        img.ok("pull", name)
        assert img.image(name).tree["bin/sh"].content == "busybox"


def test_a_damaged_manifest_is_refused_when_a_digest_was_asked_for(img: Img, layout: Path) -> None:
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    with Broken(layout, {digest: "flip"}) as server:
        outcome = img("pull", f"{server.host}/x@{digest}")
        assert outcome.code in (3, 5), str(outcome)
        assert "Traceback" not in outcome.text


@pytest.mark.parametrize("how", ["flaky", "cut"])
def test_a_passing_fault_of_the_registry_is_retried(how: str, img: Img, layout: Path) -> None:
    with Broken(layout, {_layer(layout): how}) as server:
        img.ok("pull", f"{server.host}/x:latest")


def test_a_failing_run_gives_its_exit_code_and_its_last_lines(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN for i in $(seq 500); do echo line $i; done; exit 42\n"
    outcome = img.fails(1, "build", "-t", "t", make_context({"Dockerfile": dockerfile}))
    assert "42" in outcome.stderr
    assert "line 500" in outcome.stderr.splitlines()[-5:] or "line 500" in outcome.stderr.split("42")[-1]
    assert "Dockerfile:2" in outcome.stderr
    assert img("inspect", "t").code == 5


def test_a_program_that_is_not_there_fails_its_step_with_127(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f'FROM {busybox_image}\nRUN ["/no/such/program"]\n'})
    outcome = img.fails(1, "build", "-t", "t", context)
    assert "127" in outcome.stderr
    assert "/no/such/program" in outcome.stderr


def test_a_source_that_is_not_there_is_named(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY missing /a\n"})
    outcome = img("build", "-t", "t", context)
    assert outcome.code in (1, 2), str(outcome)
    assert "missing" in outcome.stderr
    assert "Dockerfile:2" in outcome.stderr


def test_an_unknown_image_is_a_store_error(img: Img) -> None:
    for verb in (["inspect"], ["push"], ["save", "-o", "x.tar"], ["unpack", "-o", "x"]):
        assert "nobody" in img.fails(5, *verb, "nobody/has:this").stderr


def test_a_file_that_cannot_be_written_is_told_before_anything_is_done(img: Img, tmp_path: Path) -> None:
    for verb in (["save", "nobody/has:this"], ["cache", "mounts", "export", "/none"]):
        said = img.fails(2, *verb, "-o", tmp_path / "none/x.tar").text
        assert f"--output: there is no folder {tmp_path}/none" in said
        assert f"{tmp_path} is a folder" in img.fails(2, *verb, "-o", tmp_path).text


def test_a_store_of_a_newer_version_is_refused_and_left_alone(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.ok("pull", busybox_image)
    with contextlib.closing(sqlite3.connect(img.state / "img.db")) as database, database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1000}")
    before = (img.state / "img.db").read_bytes()
    for command in (
        ["images"],
        ["build", "-t", "t", make_context({"Dockerfile": f"FROM {busybox_image}\n"})],
    ):
        assert str(version + 1000) in img.fails(5, *command).stderr
    assert (img.state / "img.db").read_bytes() == before


def test_a_state_folder_that_cannot_be_made_is_named(make_img: MakeImg, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = make_img(state=tmp_path / "file/state")("images")
    assert outcome.code == 5, str(outcome)
    assert "file" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_file_that_is_no_archive_cannot_be_loaded(img: Img, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    outcome = img("load", "-i", tmp_path / "junk")
    assert outcome.code != 0
    assert "junk" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_an_archive_that_ends_early_cannot_be_loaded(img: Img, busybox_image: str, tmp_path: Path) -> None:
    img.ok("pull", busybox_image)
    img.ok("save", "-o", tmp_path / "whole.tar", busybox_image)
    shutil.copy(tmp_path / "whole.tar", tmp_path / "half.tar")
    with (tmp_path / "half.tar").open("r+b") as file:
        file.truncate((tmp_path / "whole.tar").stat().st_size // 2)
    outcome = img("load", "-i", tmp_path / "half.tar")
    assert outcome.code != 0
    assert "Traceback" not in outcome.stderr
