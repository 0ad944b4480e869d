"""Artifacts: files that go to a registry and come back, whatever names they are given."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.engine import artifacts, retrieving
from img.engine.artifacts import ANY_ARTIFACT, ANY_FILE, ArtifactRequest
from img.engine.folders import CONTENT_DIGEST, UNPACK
from img.engine.notes import TITLE
from img.engine.retrieving import ArtifactWish
from img.errors import DigestMismatch, InvalidDocument, NotFound, UsageError
from img.oci import Descriptor, Index, Manifest, Reference
from img.oci.descriptor import OCI_EMPTY, sha256
from img.progress import Event, Transferred, silent
from img.registry import Registry

from tests.suites.registry.conftest import Connect
from tests.suites.registry.images import make_image
from tests.suites.registry.servers import DockerRegistry, FaultyRegistry, status


def push(registry: Registry, target: str, request: ArtifactRequest, cwd: Path) -> artifacts.Artifact:
    spool = cwd.parent / "spool"
    spool.mkdir(exist_ok=True)
    return artifacts.push(registry, target, request, cwd=str(cwd), spool=lambda: spool)


def pull(registry: Registry, name: str, output: Path, *, overwrite: bool = False) -> list[str]:
    wish = ArtifactWish(overwrite=overwrite)
    found = retrieving.pull(registry, name, str(output), wish, progress=silent)
    return sorted(str(path.relative_to(output)) for path in found)


def unused() -> Path:
    raise AssertionError("nothing is packed")


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
    folder = str(tmp_path / "in")
    pushed = artifacts.push(registry, target, request, cwd=folder, spool=unused, progress=told.append)
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
    pushed = push(registry, "", request, tmp_path)
    assert pushed.subject == bits.manifest.digest and "@sha256:" in pushed.name
    bare = push(registry, "", ArtifactRequest(subject=str(ref), annotations={"ok": "yes"}), tmp_path)
    assert [entry.digest for entry in registry.referrers(ref, bits.manifest.digest)] == [
        pushed.digest,
        bare.digest,
    ]
    assert pull(registry, pushed.name, tmp_path / "out") == ["sbom"]
    assert pull(registry, bare.name, tmp_path / "none") == []
    assert set(registry.tags(ref)) == {"1", f"sha256-{bits.manifest.digest[7:]}"}
    with pytest.raises(UsageError, match="another repository"):
        push(registry, f"{docker.host}/other:1", request, tmp_path)
    missing = ArtifactRequest(subject=f"{docker.host}/{name}:none")
    with pytest.raises(NotFound):
        push(registry, "", missing, tmp_path)
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
        found = retrieving.contained(Manifest.make(empty, files), "here")
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
    for words, message in {("none",): "no such file", ("a", "./a"): "two files"}.items():
        (tmp_path / "a").touch()
        with pytest.raises(UsageError, match=message):
            artifacts.read_files(words, str(tmp_path))


# ---- packed folders -----------------------------------------------------------------------------


def make_site(root: Path, time: int, mask: int) -> Path:
    """A folder with what a folder may have in it, as a checkout leaves it then, and with that umask."""
    before = os.umask(mask)
    try:
        (root / "site/sub/empty").mkdir(parents=True)
        (root / "site/a.txt").write_text("a" * 10_000)
        (root / "site/sub/run").write_text("#!/bin/sh")
        (root / "site/sub/run").chmod(0o777 & ~mask)
        (root / "site/sub/up").symlink_to("../a.txt")
        (root / "site/.img").write_text("\u00fc")
        os.link(root / "site/a.txt", root / "site/sub/hard")
        for path in (root / "site").rglob("*"):
            os.utime(path, (time, time), follow_symlinks=False)
    finally:
        os.umask(before)
    return root


def test_a_folder_is_packed_as_oras_has_it_and_the_same_files_give_the_same_bytes(
    connect: Connect, docker: DockerRegistry, name: str, tmp_path: Path
) -> None:
    registry, target = connect(), f"{docker.host}/{name}:1,latest"
    first, second = make_site(tmp_path / "a", 1, 0o022), make_site(tmp_path / "b", 1_700_000_000, 0o002)
    pushed = push(registry, target, ArtifactRequest(files=("site/", "site/a.txt")), first)
    assert (
        push(registry, target, ArtifactRequest(files=("site", "site/a.txt")), second).digest == pushed.digest
    )
    ref = Reference.parse(f"{docker.host}/{name}:latest")
    manifest = registry.manifest(ref)
    assert isinstance(manifest, Manifest) and manifest.digest == pushed.digest
    layer = manifest.layers[0]
    assert layer.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    tar = gzip.decompress(registry.document(ref, layer))
    assert layer.annotations == {CONTENT_DIGEST: sha256(tar), UNPACK: "true", TITLE: "site"}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        entries = archive.getmembers()
        assert len(tar) == archive.offset + 1024, "no padding: oras leaves it out of the digest"
    assert [entry.name for entry in entries] == [
        "site", "site/.img", "site/a.txt", "site/sub",
        "site/sub/empty", "site/sub/hard", "site/sub/run", "site/sub/up",
    ]  # fmt: skip
    assert {(e.uid, e.gid, e.uname, e.gname, e.mtime) for e in entries} == {(0, 0, "", "", 0)}
    assert all(entry.isreg() or entry.isdir() or entry.issym() for entry in entries), "no hard links"
    dated = push(registry, target, ArtifactRequest(files=("site",), epoch=1_000), second)
    assert dated.digest != pushed.digest

    out = tmp_path / "out"
    assert pull(registry, str(ref).replace("latest", "1"), out) == ["site"]
    found = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert found == {entry.name for entry in entries}
    assert (out / "site/sub/up").read_text() == "a" * 10_000
    assert stat.S_IMODE((out / "site/sub/run").stat().st_mode) == 0o755
    assert (out / "site/sub").stat().st_mtime == 1_000 and not os.listxattr(out / "site/a.txt")
    # What is there already stays, and what is in the way is told before anything is changed.
    (out / "site/more").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        pull(registry, str(ref), out)
    (out / "site/a.txt").write_text("changed")
    assert pull(registry, str(ref), out, overwrite=True) == ["site"]
    assert (out / "site/more").read_text() == "mine" and (out / "site/a.txt").read_text() == "a" * 10_000
    # The folder itself.
    push(registry, target, ArtifactRequest(files=(".",)), first / "site")
    assert pull(registry, str(ref), tmp_path / "flat") == ["."]
    assert (tmp_path / "flat/sub/empty").is_dir() and (tmp_path / "flat/sub/run").read_text() == "#!/bin/sh"


def test_what_no_pull_would_take_is_not_packed(
    connect: Connect, docker: DockerRegistry, name: str, tmp_path: Path
) -> None:
    target = f"{docker.host}/{name}:1"
    folder = tmp_path / "in/folder"
    folder.mkdir(parents=True)
    for leading in ("/etc/passwd", "../..", "../other", "a/../../../x"):
        (folder / "link").symlink_to(leading)
        with pytest.raises(UsageError, match="leads out of its folder"):
            push(connect(), target, ArtifactRequest(files=("folder",)), tmp_path / "in")
        (folder / "link").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket"))
        with pytest.raises(UsageError, match="no file, no folder and no link"):
            push(connect(), target, ArtifactRequest(files=("folder",)), tmp_path / "in")


def packed(*entries: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode = kind, 0o644
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return entry(name, kind, linkname=target)


def offer_packed(faulty: FaultyRegistry, name: str, tar: bytes, **notes: str) -> str:
    """An artifact with one packed folder called `d`; gives its name."""
    data = gzip.compress(tar)
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(b"{}"), size=2)
    said = {TITLE: "d", UNPACK: "true", CONTENT_DIGEST: sha256(tar), **notes}
    layer = replace(empty, media_type="a/tar", digest=sha256(data), size=len(data), annotations=said)
    faulty.add(Manifest.make(empty, [layer], artifact_type="a/b"), {sha256(data): data}, tag="1")
    return f"{faulty.host}/{name}:1"


INSIDE = [entry("d", tarfile.DIRTYPE, mode=0o755), entry("d/good", size=5)]
FOLDERS: dict[str, list[tarfile.TarInfo]] = {
    "absolute-link": [link("d/x", "/etc/passwd")],
    "link-out": [link("d/x", "../x")],
    "link-out-by-another": [link("d/s", "."), link("d/x", "s/../x")],
    "link-out-of-a-folder": [entry("d/sub", tarfile.DIRTYPE, mode=0o755), link("d/sub/x", "../../x")],
    "through-a-link": [link("d/s", "/tmp"), entry("d/s/x")],
    "device": [entry("d/x", tarfile.CHRTYPE, devmajor=1, devminor=5)],
    "pipe": [entry("d/x", tarfile.FIFOTYPE)],
    "beside": [entry("x")],
    "above": [entry("d/../../x")],
    "hard-link-out": [link("d/x", "../../x", tarfile.LNKTYPE)],
    "deeper-than-any-path": [entry("d/" + "a/" * 2000 + "x")],
    "hard-link-to-the-host": [link("d/x", "/etc/passwd", tarfile.LNKTYPE)],
}


@pytest.mark.parametrize("entries", FOLDERS.values(), ids=FOLDERS)
def test_a_hostile_folder_leaves_nothing(
    connect: Connect, faulty: FaultyRegistry, name: str, entries: list[tarfile.TarInfo], tmp_path: Path
) -> None:
    target = offer_packed(faulty, name, packed(*INSIDE, *entries))
    with pytest.raises(InvalidDocument):
        pull(connect(), target, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_whose_tar_is_another_or_none_leaves_nothing(
    connect: Connect, faulty: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    wrong = {CONTENT_DIGEST: sha256(b"another")}
    cases: list[tuple[bytes, dict[str, str], type[Exception]]] = [
        (packed(*INSIDE), wrong, DigestMismatch),
        (b"no archive at all" * 1000, {}, InvalidDocument),
        (packed(entry("d")), {}, InvalidDocument),
        (packed(*INSIDE)[:700], {}, InvalidDocument),
    ]
    for tar, notes, error in cases:
        with pytest.raises(error):
            pull(connect(), offer_packed(faulty, name, tar, **notes), tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


def test_what_comes_is_the_callers_and_has_no_special_bits(
    connect: Connect, faulty: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    odd = [
        entry("d", tarfile.DIRTYPE, mode=0o500), entry("d/suid", mode=0o6777, uid=1234, gid=1234),
        entry("d/closed", tarfile.DIRTYPE, mode=0), entry("d/closed/x", size=3, mode=0o400),
        link("d/hard", "d/suid", tarfile.LNKTYPE), entry("d/.wh.x"),
    ]  # fmt: skip
    target = offer_packed(faulty, name, packed(*odd), **{CONTENT_DIGEST: ""})
    assert pull(connect(), target, tmp_path / "out") == ["d"]
    folder = tmp_path / "out/d"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o500
    assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0
    (folder / "closed").chmod(0o700)
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
        assert not status.st_mode & 0o7022 and not os.listxattr(path)
    assert sorted(os.listdir(folder)) == [".wh.x", "closed", "hard", "suid"]


def test_a_packed_folder_and_files_below_it_do_not_take_each_others_place(
    connect: Connect, faulty: FaultyRegistry, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, data = gzip.compress(packed(*INSIDE)), b"file"
    empty = Descriptor(media_type=OCI_EMPTY, digest=sha256(b"{}"), size=2)
    folder = replace(
        empty, media_type="a/tar", digest=sha256(tar), size=len(tar), annotations={TITLE: "d", UNPACK: "true"}
    )
    for title, right in {"d/other": True, "d/good": False, "d/good/x": False}.items():
        file = replace(empty, media_type=ANY_FILE, digest=sha256(data), size=4, annotations={TITLE: title})
        manifest = Manifest.make(empty, [folder, file], artifact_type="a/b")
        faulty.add(manifest, {sha256(tar): tar, sha256(data): data}, tag="1")
        out = tmp_path / title.replace("/", "-")
        if right:
            assert pull(connect(), f"{faulty.host}/{name}:1", out) == ["d", "d/other"]
            assert sorted(os.listdir(out / "d")) == ["good", "other"]
        else:
            with pytest.raises(InvalidDocument):
                pull(connect(), f"{faulty.host}/{name}:1", out)
            assert not list(out.iterdir())
    # The present folder itself, written in two ways.
    tar = gzip.compress(packed(entry("good", size=5)))
    notes = {TITLE: ".", UNPACK: "true"}
    folder = replace(folder, digest=sha256(tar), size=len(tar), annotations=notes)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for title in ("good", "./good", "good/x"):
        file = replace(empty, media_type=ANY_FILE, digest=sha256(data), size=4, annotations={TITLE: title})
        faulty.add(Manifest.make(empty, [folder, file], artifact_type="a/b"), {sha256(tar): tar}, tag="2")
        with pytest.raises(InvalidDocument):
            pull(connect(), f"{faulty.host}/{name}:2", Path())
        assert not list(here.iterdir())


# ---- what else may be said of an artifact -------------------------------------------------------


def test_an_artifact_has_a_config_and_annotations_and_some_of_its_files_can_be_had(
    connect: Connect, docker: DockerRegistry, name: str, tmp_path: Path
) -> None:
    folder = make_site(tmp_path / "in", 1, 0o022)
    (folder / "config.json").write_text('{"a": 1}')
    notes = {"$manifest": {"m": "file", "n": "1"}, "$config": {"c": "1"}, "site/a.txt": {"f": "1"}}
    (folder / "notes.json").write_text(json.dumps(notes))
    request = ArtifactRequest(
        files=("site/a.txt:text/plain", "site", "notes.json"),
        config="config.json:application/vnd.example.config",
        annotations={"m": "flag"},
        annotation_file="notes.json",
    )
    registry, target = connect(), f"{docker.host}/{name}:1"
    pushed = push(registry, target, request, folder)
    assert pushed.artifact_type == "application/vnd.example.config"
    manifest = registry.manifest(Reference.parse(target))
    assert isinstance(manifest, Manifest) and not manifest.artifact_type
    assert manifest.annotations == {"m": "flag", "n": "1"} and manifest.config.annotations == {"c": "1"}
    assert manifest.layers[0].annotations == {"f": "1", TITLE: "site/a.txt"}
    files = retrieving.files_of(manifest)
    assert [(f["name"], f["packed"]) for f in files] == [
        ("site/a.txt", False), ("site", True), ("notes.json", False),
    ]  # fmt: skip
    # A file that is in a folder as well is one, where both are the same; else nobody knows which is meant.
    retrieving.pull(registry, target, str(tmp_path / "all"), ArtifactWish(), progress=silent)
    assert (tmp_path / "all/site/a.txt").read_text() == "a" * 10_000
    lied = replace(manifest.layers[2], annotations={TITLE: "site/a.txt"})
    document = Manifest.make(manifest.config, [lied, manifest.layers[1]])
    registry.push_manifest(Reference.parse(f"{target}-two"), document.raw, document.media_type)
    with pytest.raises(InvalidDocument, match=r"two files are called 'site/a\.txt'"):
        retrieving.pull(registry, f"{target}-two", str(tmp_path / "two"), ArtifactWish(), progress=silent)
    assert not (tmp_path / "two/site").exists()
    wish = ArtifactWish(include=("*.txt", "./notes.json"), config=str(tmp_path / "config"))
    found = retrieving.pull(registry, target, str(tmp_path / "out"), wish, progress=silent)
    assert [path.name for path in found] == ["a.txt", "notes.json"]
    assert (tmp_path / "config").read_text() == '{"a": 1}'
    with pytest.raises(UsageError, match="config is there already"):
        retrieving.pull(registry, target, str(tmp_path / "new"), wish, progress=silent)
    wish = ArtifactWish(include=("*.md",))
    with pytest.raises(UsageError, match=r"no file \*\.md"):
        retrieving.pull(registry, target, str(tmp_path / "out"), wish, progress=silent)
    wrong: list[tuple[str, str]] = [
        ('{"site/b.txt": {}}', "there is no file site/b.txt"),
        ("[]", "no file of annotations"),
        ("{", "not JSON"),
        ('{"$manifest": {"a": 1}}', "no file of annotations"),
        (f'{{"site": {{"{TITLE}": "x"}}}}', "says itself"),
    ]
    for text, message in wrong:
        (folder / "notes.json").write_text(text)
        with pytest.raises(UsageError, match=message):
            push(registry, target, request, folder)
    for config in ("none", "site"):
        with pytest.raises(UsageError, match="no such file"):
            push(registry, target, replace(request, config=config), folder)
    with pytest.raises(UsageError, match="has no tag"):
        push(registry, f"{target},not a tag", request, folder)
