"""Artifacts: files that go to a registry and come back, whatever names they are given."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.engine import artifacts
from img.engine.artifacts import ANY_ARTIFACT, ANY_FILE, TITLE, ArtifactRequest
from img.errors import DigestMismatch, InvalidDocument, NotFound, UsageError
from img.oci import Descriptor, Index, Manifest, Reference
from img.oci.descriptor import OCI_EMPTY, sha256
from img.progress import Event, Transferred, silent
from img.registry import Registry

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import DockerRegistry, FaultyRegistry, status


def pull(registry: Registry, name: str, output: Path, *, overwrite: bool = False) -> list[str]:
    found = artifacts.pull(registry, name, str(output), overwrite=overwrite, progress=silent)
    return sorted(str(path.relative_to(output)) for path in found)


def offered(faulty: FaultyRegistry, name: str, *titles: str, data: bytes = b"evil") -> str:
    """An artifact that was made by hand, with one file of each name; gives its name."""
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(b"{}"), size=2)
    files = [
        Descriptor(media_type=ANY_FILE, digest=sha256(data), size=len(data), annotations={TITLE: title})
        for title in titles
    ]
    faulty.add(Manifest.make(empty, files, artifact_type="a/b"), {sha256(data): data}, tag="1")
    return f"{faulty.host}/{name}:1"


def test_files_come_back_under_their_names(
    connect: Connect, docker: DockerRegistry, name: str, tmp_path: Path
) -> None:
    (tmp_path / "in/below").mkdir(parents=True)
    (tmp_path / "in/a:b/c.txt").parent.mkdir()
    files = {"big": os.urandom(300_000), "below/empty": b"", "a:b/c.txt": b"a colon", "again": b"a colon"}
    for path, data in files.items():
        (tmp_path / "in" / path).write_bytes(data)
    (tmp_path / "elsewhere").write_bytes(b"elsewhere")
    target = f"{docker.host}/{name}:1"
    words = ("big", "below/../below/empty:text/plain", "a:b/c.txt", "again", f"{tmp_path}/elsewhere:x/y")
    request = ArtifactRequest(files=words, annotations={"who": "me"})
    registry = connect()
    told: list[Event] = []
    pushed = artifacts.push(registry, target, request, cwd=str(tmp_path / "in"), progress=told.append)
    (total,) = told
    # One of two equal files is sent.
    assert isinstance(total, Transferred) and (total.action, total.moved) == ("push", 4)
    manifest = registry.manifest(Reference.parse(target))
    assert isinstance(manifest, Manifest)
    assert (manifest.digest, manifest.artifact_type) == (pushed.digest, ANY_ARTIFACT)
    assert (manifest.config.media_type, manifest.annotations) == (OCI_EMPTY, {"who": "me"})
    kinds = {layer.annotations[TITLE]: layer.media_type for layer in manifest.layers}
    assert (kinds["big"], kinds["below/empty"], kinds["elsewhere"]) == (ANY_FILE, "text/plain", "x/y")
    out = tmp_path / "out"
    assert pull(registry, target, out) == sorted([*files, "elsewhere"])
    assert {path: (out / path).read_bytes() for path in files} == files
    left = [path for path in out.rglob("*") if path.is_file() and ".img-" in path.name]
    assert not left and all(path.stat().st_nlink == 1 for path in out.rglob("*") if path.is_file())
    with pytest.raises(UsageError, match="is there already"):
        pull(registry, target, out)
    (out / "big").write_bytes(b"old")
    assert pull(registry, target, out, overwrite=True)
    assert (out / "big").read_bytes() == files["big"]


def test_what_is_about_an_image_is_beside_it_without_a_tag(
    connect: Connect, docker: DockerRegistry, name: str, tmp_path: Path
) -> None:
    bits, registry = make_image(), connect()
    ref = Reference.parse(f"{docker.host}/{name}:1")
    for descriptor in (*bits.layers, bits.manifest.config):
        registry.push_blob(ref, descriptor, lambda d=descriptor: bits.open(d))  # type: ignore[misc]
    registry.push_manifest(ref, bits.manifest.raw, bits.manifest.media_type)
    (tmp_path / "sbom").write_text("parts")
    request = ArtifactRequest(files=("sbom",), artifact_type="a/sbom", subject=str(ref))
    pushed = artifacts.push(registry, "", request, cwd=str(tmp_path))
    assert pushed.subject == bits.manifest.digest and "@sha256:" in pushed.name
    bare = artifacts.push(registry, "", ArtifactRequest(subject=str(ref), annotations={"ok": "yes"}))
    assert [entry.digest for entry in registry.referrers(ref, bits.manifest.digest)] == [
        pushed.digest,
        bare.digest,
    ]
    assert pull(registry, pushed.name, tmp_path / "out") == ["sbom"]
    assert pull(registry, bare.name, tmp_path / "none") == []
    assert set(registry.tags(ref)) == {"1", f"sha256-{bits.manifest.digest[7:]}"}
    with pytest.raises(UsageError, match="another repository"):
        artifacts.push(registry, f"{docker.host}/other:1", request, cwd=str(tmp_path))
    missing = ArtifactRequest(subject=f"{docker.host}/{name}:none")
    with pytest.raises(NotFound):
        artifacts.push(registry, "", missing)
    with pytest.raises(UsageError, match="is an image"):
        pull(registry, str(ref), tmp_path / "image")


HOSTILE = ["../x", "/etc/x", "a/../../x", "..", ".", "a\\..\\x", "a\x00b", "x\ny", "a" * 5000, "\u202ex"]


@pytest.mark.parametrize("title", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_refused_before_anything_is_fetched(
    connect: Connect, faulty: FaultyRegistry, title: str, tmp_path: Path
) -> None:
    target = offered(faulty, "hostile", "good", title)
    with pytest.raises(InvalidDocument, match="no name below a folder"):
        pull(connect(), target, tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(faulty.calls) == 1


@given(st.lists(st.text(st.sampled_from("ab./\\ \n"), max_size=8), min_size=1, max_size=3))
def test_whatever_files_are_called_they_stay_below_their_folder(titles: list[str]) -> None:
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(b"{}"), size=2)
    files = [replace(empty, media_type=ANY_FILE, annotations={TITLE: title}) for title in titles]
    try:
        found = artifacts.contained(Manifest.make(empty, files), "here")
    except InvalidDocument:
        return
    places = [os.path.normpath(os.path.join("/root/folder", path)) for path in found]
    assert all(place.startswith("/root/folder/") for place in places)
    assert len(set(places)) == len(titles)
    assert not any(a.startswith(f"{b}/") for a in places for b in places)


@pytest.mark.parametrize("titles", [("same", "same"), ("a", "a/b"), ("a/b/c", "a/b")])
def test_names_that_are_in_each_others_way_are_refused(
    connect: Connect, faulty: FaultyRegistry, titles: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InvalidDocument):
        pull(connect(), offered(faulty, "hostile", *titles), tmp_path / "out")


def test_a_symlink_in_the_folder_leads_no_file_out_of_it(
    connect: Connect, faulty: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path / "outside")
    (tmp_path / "out/file").symlink_to(tmp_path / "outside/victim")
    with pytest.raises(UsageError, match="leads out of"):
        pull(connect(), offered(faulty, name, "link/x"), tmp_path / "out")
    target = offered(faulty, name, "file")
    with pytest.raises(UsageError, match="is there already"):
        pull(connect(), target, tmp_path / "out")
    pull(connect(), target, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/file").is_symlink() and not list((tmp_path / "outside").iterdir())


def test_wrong_bytes_leave_no_file(
    connect: Connect, faulty: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    target = offered(faulty, name, "file")
    faulty.fail(sha256(b"evil"), *[status(200, b"EVIL")] * 2)
    with pytest.raises(DigestMismatch):
        pull(connect(), target, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_no_artifact_and_no_file_is_told(
    connect: Connect, faulty: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    faulty.add(Index.make([make_image().manifest.descriptor]), tag="1")
    with pytest.raises(UsageError, match="is an index"):
        pull(connect(), f"{faulty.host}/{name}:1", tmp_path / "out")
    for words, message in {("none",): "no such file", (".",): "a folder", ("a", "./a"): "two files"}.items():
        (tmp_path / "a").touch()
        with pytest.raises(UsageError, match=message):
            artifacts.read_files(words, str(tmp_path))
