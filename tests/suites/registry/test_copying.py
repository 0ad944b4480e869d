"""Copies: between every two kinds of places, of whatever an index may name, and when things go wrong."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from img.engine import Engine, Settings
from img.engine.copying import CopyRequest, CopyResult
from img.errors import DigestMismatch, ImgError, InvalidDocument, NotFound, Unsupported, UsageError
from img.oci import parse, sha256
from img.progress import Event, Transfer, Transferred

from tests.suites.registry.pile import FOREIGN, REF, Pile, blobs_of, everything, on
from tests.suites.registry.servers import FaultyRegistry, cut, status
from tests.support.layout import CONFIG, LAYER, MANIFEST
from tests.support.registry import Registry
from tests.support.registry import copy as skopeo

pytestmark = pytest.mark.once

Copy = Callable[..., CopyResult]
KINDS = ("near", "far", "oci", "oci-archive", "docker-archive", "dir")


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("near")) as running:
        yield running


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("far")) as running:
        yield running


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Pile:
    return Pile(tmp_path_factory.mktemp("pile"))


@pytest.fixture(scope="module")
def root(pile: Pile) -> str:
    """The digest of an index of all kinds of things, which the layout calls `all`."""
    return everything(pile)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(Settings(state=str(tmp_path / "state"))) as opened:
        yield opened


@pytest.fixture
def copy(engine: Engine, tmp_path: Path) -> Copy:
    def run(source: str, *targets: str, **options: object) -> CopyResult:
        return engine.copy(CopyRequest(source=source, targets=targets, cwd=str(tmp_path), **options))  # type: ignore[arg-type]

    return run


@pytest.fixture
def place(near: Registry, far: Registry, name: str) -> Callable[[str, str], str]:
    """A place of a kind, of the test's own."""

    def make(kind: str, word: str = "x") -> str:
        if kind in ("near", "far"):
            return f"{(near if kind == 'near' else far).host}/{name}/{word}:1"
        suffix = {"oci": ":1", "oci-archive": ".tar:1", "docker-archive": ".tar:me/app:1", "dir": ""}[kind]
        return f"{kind}:{kind}-{word}{suffix}"

    return make


# ---- every kind of place -------------------------------------------------------------------------


def test_an_image_stays_the_same_between_every_two_kinds_of_places(
    copy: Copy, place: Callable[..., str], pile: Pile, root: str, tmp_path: Path
) -> None:
    for kind in KINDS:
        assert copy(f"oci:{pile.folder}:all", place(kind)).digest == root
    for source, target in itertools.product(KINDS, KINDS):
        done = copy(place(source), place(target, f"from-{source}"))
        assert (done.digest, done.referrers) == (root, 0), (source, target)
        back = tmp_path / f"{source}-{target}"
        assert copy(place(target, f"from-{source}"), f"oci:{back}").digest == root
        assert blobs_of(back) == blobs_of(pile.folder)
        shutil.rmtree(back)
    assert not list(tmp_path.rglob("*.partial"))


def test_what_skopeo_reads_of_it_and_writes_again_is_the_same(
    copy: Copy, place: Callable[..., str], tmp_path: Path
) -> None:
    """Registry, archive, skopeo, the other registry; and skopeo's archive and folder, back."""
    pile = Pile(tmp_path / "flat")  # skopeo copies no index within an index
    entries = [{**pile.image(a, 300_000), **on(a)} for a in ("amd64", "arm64")]
    root = pile.name(pile.index(entries), "1")
    source = place("near")
    copy("oci:flat:1", source)
    copy(source, "oci-archive:a.tar:1", "dir:d")
    kept = ("--all", "--preserve-digests")  # it compresses plain layers for a registry
    skopeo(f"oci-archive:{tmp_path}/a.tar:1", f"docker://{place('far', 'skopeo')}", *kept)
    skopeo(f"dir:{tmp_path}/d", f"oci-archive:{tmp_path}/b.tar:x/y:2", *kept)
    skopeo(f"docker://{source}", f"dir:{tmp_path}/e", "--all")
    for back in (place("far", "skopeo"), "oci-archive:b.tar:x/y:2", "dir:e"):
        assert copy(back, "oci:back").digest == root


def test_dockers_archive_is_read_by_others_and_theirs_by_us(
    copy: Copy, place: Callable[..., str], pile: Pile, root: str, tmp_path: Path
) -> None:
    """Ours has one image in docker's list; theirs has no manifest, so one is made, of compressed layers."""
    copy(f"oci:{pile.folder}:all", "docker-archive:ours.tar:me/app:1")
    skopeo(f"docker-archive:{tmp_path}/ours.tar:me/app:1", f"oci:{tmp_path}/read:1")
    skopeo(f"oci:{pile.folder}:all", f"docker-archive:{tmp_path}/theirs.tar:me/app:2")
    (tmp_path / "theirs.tar.gz").write_bytes(gzip.compress((tmp_path / "theirs.tar").read_bytes(), 1))
    made = copy("docker-archive:theirs.tar", place("near"))
    assert copy("docker-archive:theirs.tar.gz:me/app:2", place("far")).digest == made.digest
    assert copy("docker-archive:theirs.tar:@0", "docker-archive:again.tar:me/app:2").digest != made.digest
    skopeo(f"docker://{place('near')}", f"oci:{tmp_path}/back:1")
    config = [_config(tmp_path / name) for name in ("read", "back")]
    assert config[0] == config[1]
    with pytest.raises(UsageError, match="one is made"):
        copy("docker-archive:theirs.tar", place("near"), preserve_digests=True)
    with pytest.raises(NotFound, match="is not there") as caught:
        copy("docker-archive:theirs.tar:other", place("near"))
    assert "me/app:2" in caught.value.hint


def _config(layout: Path) -> object:
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    manifest = json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_text())
    config = json.loads((layout / "blobs/sha256" / manifest["config"]["digest"][7:]).read_text())
    return config["rootfs"], config["architecture"]


def test_the_store_takes_images_and_what_is_about_them(
    copy: Copy, engine: Engine, pile: Pile, root: str
) -> None:
    done = copy(f"oci:{pile.folder}:all", "img:me/app:1", "img:me/app:2")
    row = engine.store.names.row("me/app:2")
    assert (row.index, done.id) == (root, row.config)
    assert {str(i.platform) for i in engine.store.names.images_of(row)} == {
        "linux/amd64", "linux/arm64", "linux/riscv64"
    }  # fmt: skip
    engine.store.collector.prune(everything=True)
    assert set(engine.store.names.whole_index(root)) >= {root}


# ---- what moves ----------------------------------------------------------------------------------


def test_what_is_there_is_neither_read_nor_sent(
    copy: Copy, place: Callable[..., str], pile: Pile, root: str
) -> None:
    first = copy(f"oci:{pile.folder}:all", place("near"))
    assert (first.sent, first.present) == (first.sent, 0) and first.sent_bytes > 1_300_000
    count = first.sent
    again = copy(f"oci:{pile.folder}:all", place("near"))
    assert (again.sent, again.mounted, again.present) == (0, 0, count)
    mounted = copy(place("near"), place("near", "other"))
    assert (mounted.sent, mounted.mounted) == (0, count)
    several = copy(place("near"), place("far"), place("far", "b"), place("far", "b") + ".2")
    assert (several.sent, several.mounted) == (count, count)


def test_a_repeated_copy_reads_nothing_but_manifests(
    copy: Copy, place: Callable[..., str], faulty: FaultyRegistry
) -> None:
    _serve(faulty, 900_000, 10)
    copy(f"{faulty.host}/a/b:1", place("near"), "oci:l:1", "img:a:1")
    faulty.calls.clear()
    copy(f"{faulty.host}/a/b:1", place("near"), "oci:l:1", "img:a:1")
    assert {call.path for call in faulty.calls} == {"/v2/a/b/manifests/1"}


def _serve(faulty: FaultyRegistry, *sizes: int) -> list[str]:
    """Has the registry offer an image of these layers as `1`; gives their digests."""
    from tests.suites.registry.images import make_image

    bits = make_image(*sizes)
    faulty.add(bits.manifest, bits.blobs, tag="1")
    return [layer.digest for layer in bits.layers]


def test_a_broken_connection_is_taken_up_where_it_broke(
    copy: Copy, place: Callable[..., str], faulty: FaultyRegistry
) -> None:
    (digest,) = _serve(faulty, 3_000_000)
    faulty.fail(digest, cut(1_000_000), status(503), cut(900_000))
    copy(f"{faulty.host}/a/b:1", place("near"))
    asked = [call.headers.get("Range", "") for call in faulty.seen("GET", digest)]
    assert [a.partition("-")[0] for a in asked] == ["", "bytes=1000000", "bytes=1000000", "bytes=1900000"]
    copy(place("near"), "oci:l")


TARGETS = ["near", "oci", "oci-archive", "docker-archive", "dir"]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("size", [100_000, 2_500_000], ids=["small", "piped"])
def test_wrong_bytes_are_asked_for_once_more_and_then_nothing_is_named(
    copy: Copy, place: Callable[..., str], faulty: FaultyRegistry, kind: str, size: int, tmp_path: Path
) -> None:
    (digest,) = _serve(faulty, size)
    right = faulty.blobs[digest]
    wrong = bytes([right[0] ^ 1]) + right[1:]
    faulty.fail(digest, lambda server, call: server.serve_blob(call, wrong))
    copy(f"{faulty.host}/a/b:1", place(kind, "healed"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    faulty.blobs[digest] = wrong
    with pytest.raises(DigestMismatch):
        copy(f"{faulty.host}/a/b:1", place(kind, "spoilt"))
    assert wrong not in [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    if kind == "near":
        with pytest.raises(NotFound):
            copy(place(kind, "spoilt"), "oci:x")
    elif kind != "oci":
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    else:
        assert not (tmp_path / "oci-spoilt" / "index.json").exists()


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "dir"])
def test_a_copy_that_fails_leaves_the_old_one(
    copy: Copy, place: Callable[..., str], faulty: FaultyRegistry, kind: str, pile: Pile, root: str
) -> None:
    (digest,) = _serve(faulty, 300_000)
    copy(f"oci:{pile.folder}:all", place(kind))
    del faulty.blobs[digest]
    with pytest.raises(NotFound):
        copy(f"{faulty.host}/a/b:1", place(kind))
    assert copy(place(kind), "oci:l").digest == root


# ---- layouts -------------------------------------------------------------------------------------


def test_a_layout_is_added_to_and_a_name_moves(copy: Copy, pile: Pile, root: str, tmp_path: Path) -> None:
    amd64 = copy(f"oci:{pile.folder}:all", "oci:l:one", platforms=("linux/amd64",)).digest
    copy(f"oci:{pile.folder}:all", "oci:l:two")
    copy(f"oci:{pile.folder}:all", "oci:l:one")
    copy(f"oci:{pile.folder}:all", "oci:l", platforms=("linux/arm64",))
    entries = json.loads((tmp_path / "l/index.json").read_text())["manifests"]
    assert [(e["digest"], e.get("annotations", {}).get(REF)) for e in entries[:2]] == [
        (root, "two"), (root, "one")
    ]  # fmt: skip
    assert len(entries) == 3 and "annotations" not in entries[2]
    assert copy(f"oci:l@{amd64}", "oci:m").digest == amd64
    with pytest.raises(InvalidDocument, match="3 images, so say which: one, two"):
        copy("oci:l", "oci:m")
    with pytest.raises(InvalidDocument, match="no such image; it has one, two"):
        copy("oci:l:three", "oci:m")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("oci:file", "a file, and no layout"),
        ("oci:full", "no OCI image layout"),
        ("dir:full", "no folder of skopeo's"),
        ("oci-archive:full", "a folder, and no archive"),
        ("oci:l:@1", "a copy goes to a name"),
        ("img:a@sha256:" + "0" * 64, "names a digest"),
    ],
)
def test_a_target_that_would_harm_something_is_refused(
    copy: Copy, pile: Pile, root: str, target: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    with pytest.raises(UsageError, match=says):
        copy(f"oci:{pile.folder}:all", target)
    assert (tmp_path / "file").read_text() == (tmp_path / "full/mine").read_text() == "mine"


# ---- parts, forms, other things than images -------------------------------------------------------


def test_one_platform_is_its_manifest_and_several_are_an_index_of_those(
    copy: Copy, pile: Pile, root: str, tmp_path: Path
) -> None:
    one = copy(f"oci:{pile.folder}:all", "oci:l:one", platforms=("linux/riscv64",))
    assert one.sent == 2 and parse(_blob(tmp_path / "l", one.digest)).digest == one.digest
    two = copy(f"oci:{pile.folder}:all", "oci:l:two", platforms=("linux/amd64", "linux/arm64"))
    data = json.loads(_blob(tmp_path / "l", two.digest))
    assert [e.get("platform", {}).get("architecture") for e in data["manifests"]] == [
        "amd64", "arm64", "unknown"
    ]  # fmt: skip
    assert data["x-unknown"] and data["manifests"][0]["x-unknown"] == 1
    with pytest.raises(NotFound, match="no image for linux/s390x") as caught:
        copy(f"oci:{pile.folder}:all", "oci:l", platforms=("linux/s390x",))
    assert "linux/amd64, linux/arm64" in caught.value.hint


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs/sha256" / digest[7:]).read_bytes()


def test_artifacts_go_where_they_can_be_kept_and_foreign_layers_stay(
    copy: Copy, place: Callable[..., str], tmp_path: Path
) -> None:
    pile = Pile(tmp_path / "things")
    policy = pile.name(pile.artifact(b"allow"), "policy")
    lost = sha256(b"away")
    away = {
        "mediaType": FOREIGN, "digest": lost, "size": 4, "urls": ["http://127.0.0.1:1/away"],
    }  # fmt: skip
    foreign = pile.name(pile.image("amd64", 10, foreign=away), "foreign")
    for kind in ("near", "oci", "oci-archive", "dir"):
        assert copy("oci:things:policy", place(kind)).digest == policy
        assert copy(place(kind), "oci:back").digest == policy
    for target in ("img:a", "docker-archive:a.tar"):
        with pytest.raises(Unsupported, match="anything but an image"):
            copy("oci:things:policy", target)
    assert copy("oci:things:foreign", "oci:l:1").digest == foreign
    assert not (tmp_path / "l/blobs/sha256" / lost[7:]).exists()
    with pytest.raises(Unsupported, match="foreign layer"):
        copy("oci:things:foreign", "docker-archive:a.tar")
    with pytest.raises(InvalidDocument, match="is missing"):
        copy("oci:things:foreign", "oci:l:1", foreign=True)


def test_signatures_come_along_where_they_are_asked_for(
    copy: Copy, place: Callable[..., str], pile: Pile, root: str, tmp_path: Path
) -> None:
    things = Pile(tmp_path / "things")
    image = things.image("amd64", 300_000)
    digest = things.name(image, "1")
    tag = digest.replace(":", "-") + ".sig"
    signature = things.name(things.artifact(b"signed"), tag)
    listed = things.artifact(b"what is in it", subject=image)
    of_that = things.artifact(b"and of that", subject=listed)
    for pointer in (listed, of_that):
        things.name(pointer, pointer["digest"][7:19])
        copy(f"oci:things@{pointer['digest']}", f"{place('near').rpartition(':')[0]}@{pointer['digest']}")
    for ref in ("1", tag):
        copy(f"oci:things:{ref}", f"{place('near').rpartition(':')[0]}:{ref}")
    assert copy(place("near"), "oci:without:1").referrers == 0
    done = copy(place("near"), place("far"), "oci:with:1", "oci-archive:with.tar:1", referrers=True)
    assert (done.digest, done.referrers) == (digest, 3)
    for where in (
        f"{place('far').rpartition(':')[0]}:{tag}",
        f"oci:with:{tag}",
        f"oci-archive:with.tar:{tag}",
    ):
        assert copy(where, "oci:back").digest == signature
    # From the other registry, whose list of referrers was written on the way; and from the archive.
    assert copy(place("far"), "oci:once:1", referrers=True).referrers == 3
    assert copy("oci-archive:with.tar:1", "oci:again:1", referrers=True).referrers == 3
    with pytest.raises(UsageError, match="digests that would change"):
        copy(place("near"), "oci:x", referrers=True, form="docker")


def test_forms_and_compression_change_digests_only_where_they_must(
    copy: Copy, place: Callable[..., str], pile: Pile, root: str, tmp_path: Path
) -> None:
    assert copy(f"oci:{pile.folder}:all", "oci:l:same", form="oci", compression="none").digest == root
    docker = copy(f"oci:{pile.folder}:all", place("near"), "oci:l:docker", form="docker")
    index = json.loads(_blob(tmp_path / "l", docker.digest))
    kinds = [entry["mediaType"].rpartition(".")[2] for entry in index["manifests"]]
    assert index["mediaType"].endswith("manifest.list.v2+json")
    assert kinds == ["v2+json", "v2+json", "v1+json", "v2+json"]
    assert (
        index["manifests"][2]["annotations"]["vnd.docker.reference.digest"] == index["manifests"][0]["digest"]
    )
    packed = copy(place("near"), "oci:l:zstd", compression="zstd", form="oci", platforms=("linux/amd64",))
    layers = json.loads(_blob(tmp_path / "l", packed.digest))["layers"]
    assert all(_blob(tmp_path / "l", x["digest"])[:4] == b"\x28\xb5\x2f\xfd" for x in layers)
    kept = copy("oci:l:zstd", "oci:l:kept", compression="gzip")
    assert kept.digest == packed.digest
    forced = copy("oci:l:zstd", place("far"), compression="gzip", force=True)
    skopeo(f"docker://{place('far')}", f"docker-archive:{tmp_path}/plain.tar")  # which unpacks and checks
    assert forced.digest != packed.digest
    with pytest.raises(Unsupported, match="zstd in Docker's manifests"):
        copy("oci:l:zstd", "oci:l:x", form="docker")
    with pytest.raises(UsageError, match="changes digests"):
        copy("oci:l:zstd", "oci:l:x", form="docker", preserve_digests=True)


def test_a_layout_is_believed_in_nothing_and_mended_where_it_is_wrong(
    copy: Copy, pile: Pile, root: str, tmp_path: Path
) -> None:
    """A byte that turned, in a layer, a config, a manifest; and nothing but that is sent."""
    source = f"oci:{pile.folder}:all"
    first = copy(source, "oci:l:1")
    again = copy(source, "oci:l:2")
    assert (again.sent, again.present) == (0, first.sent)
    for spoilt in sorted((tmp_path / "l/blobs/sha256").iterdir()):
        data = bytearray(spoilt.read_bytes())
        data[len(data) // 2] ^= 1
        spoilt.write_bytes(data)
    (tmp_path / "l/blobs/sha256" / ("0" * 64)).write_bytes(b"nobody's")
    mended = copy(source, "oci:l:3")
    assert (mended.sent, mended.present) == (first.sent, 0)
    (tmp_path / "l/blobs/sha256" / ("0" * 64)).unlink()
    assert blobs_of(tmp_path / "l") == blobs_of(pile.folder)
    (tmp_path / "l/blobs/sha256" / root[7:]).write_bytes(b"")
    assert copy(source, "oci:l:4").digest == root
    assert blobs_of(tmp_path / "l") == blobs_of(pile.folder)


def test_a_push_and_a_copy_turn_an_image_into_the_same_documents(
    copy: Copy, engine: Engine, place: Callable[..., str], tmp_path: Path
) -> None:
    """With fields that nobody knows, annotations, an attestation, and another registry."""
    pile = Pile(tmp_path / "odd")
    odd: dict[str, Any] = {"x-unknown": {"b": 1, "a": [None]}, "annotations": {"k": "v"}}
    entries = [{**pile.image(a, 3_000, **odd), **on(a), "x-of": a} for a in ("amd64", "arm64")]
    about = {"vnd.docker.reference.digest": entries[0]["digest"]}
    nowhere = {"os": "unknown", "architecture": "unknown"}
    entries.append({**pile.artifact(b"built"), "platform": nowhere, "annotations": about})
    pile.name(pile.index(entries, **odd), "all")
    pile.name(entries[0], "one")
    for ref in ("all", "one"):
        source = place("near", ref)
        copy(f"oci:odd:{ref}", source)
        engine.pull_all([source], all_platforms=True, extract=False)
        for form in ("docker", "oci"):
            pushed = f"{place('far', ref).rpartition(':')[0]}:{form}"
            engine.tag(source, pushed)
            copied = copy(source, f"oci:turned:{ref}-{form}", form=form)
            assert engine.push_all([pushed], form=form)[pushed] == copied.digest, (ref, form)
            document = json.loads(_blob(tmp_path / "turned", copied.digest))
            assert document["x-unknown"] == odd["x-unknown"]
            assert ("annotations" in document) == (form == "oci")


# ---- hostile places ------------------------------------------------------------------------------


def test_archives_that_lie_are_refused(copy: Copy, pile: Pile, root: str, tmp_path: Path) -> None:
    copy(f"oci:{pile.folder}:all", "oci-archive:good.tar:1")
    good = (tmp_path / "good.tar").read_bytes()
    (tmp_path / "short.tar").write_bytes(good[: len(good) // 2])
    (tmp_path / "none.tar").write_bytes(b"no tar at all" * 100)
    work = tmp_path / "links"
    work.mkdir()
    (work / "index.json").symlink_to("/etc/passwd")
    subprocess.run(["tar", "-C", str(work), "-cf", str(tmp_path / "links.tar"), "."], check=True)
    for archive in ("short.tar", "none.tar", "links.tar"):
        with pytest.raises(ImgError):
            copy(f"oci-archive:{archive}", "oci:l:1")
    assert not (tmp_path / "l" / "index.json").exists()


def test_an_index_that_never_ends_does(copy: Copy, tmp_path: Path) -> None:
    pile = Pile(tmp_path / "deep")
    inner = pile.index([])
    for _ in range(6):
        inner = pile.index([{**inner, **on("amd64")}])
    pile.name(inner, "1")
    with pytest.raises(InvalidDocument, match="indexes are within one another"):
        copy("oci:deep:1", "oci:l")


def test_an_index_that_can_be_gone_through_in_too_many_ways_is_read_once(copy: Copy, tmp_path: Path) -> None:
    pile = Pile(tmp_path / "wide")
    below = [pile.index([])]
    for level in range(3):
        entries = [{**entry, **on("amd64")} for entry in below]
        below = [pile.index(entries, annotations={"n": f"{level}.{n}"}) for n in range(40)]
    pile.name(pile.index([{**entry, **on("amd64")} for entry in below]), "1")
    copy("oci:wide:1", "oci:l")  # reading each as often as it is named would take 64,000 times
    assert len(list((tmp_path / "l/blobs/sha256").iterdir())) == 3 * 40 + 2


@pytest.mark.parametrize(
    "listed",
    [
        b"[" * 100_000,
        *(json.dumps([{"Config": name, "Layers": []}]).encode() for name in ("a\0b", "x" * 5000)),
    ],
    ids=["deep", "no-name", "long-name"],
)
def test_a_list_of_dockers_that_is_absurd_is_told(copy: Copy, tmp_path: Path, listed: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(listed)
    subprocess.run(["tar", "-C", str(tmp_path), "-czf", str(tmp_path / "d.tar"), "manifest.json"], check=True)
    with pytest.raises(InvalidDocument):
        copy("docker-archive:d.tar", "oci:l:1")


def test_sizes_that_no_disk_holds_are_told(copy: Copy, tmp_path: Path) -> None:
    pile = Pile(tmp_path / "vast")
    config = {"mediaType": CONFIG, "digest": sha256(b"{}"), "size": 2}
    for size in (1 << 62, 1 << 70):
        layer = {"mediaType": LAYER, "digest": sha256(b"x"), "size": size}
        pile.name(pile.document(MANIFEST, config=config, layers=[layer]), "1")
        with pytest.raises(InvalidDocument, match="bytes"):
            copy("oci:vast:1", "oci-archive:a.tar")
    assert not list(tmp_path.glob("*.tar*")) and not list(tmp_path.glob(".*partial"))


def test_what_a_mirror_has_is_not_taken_to_be_in_the_registry(
    pile: Pile, root: str, near: Registry, name: str, tmp_path: Path
) -> None:
    with FaultyRegistry() as mirror:
        for path in (pile.folder / "blobs/sha256").iterdir():
            mirror.blobs[f"sha256:{path.name}"] = raw = path.read_bytes()
            if raw.startswith(b'{"') and b"schemaVersion" in raw:
                document = parse(raw)
                mirror.add(document)
        settings = Settings(state=str(tmp_path / "state"), mirrors=(f"{near.host}=http://{mirror.host}",))
        with Engine(settings) as engine:
            done = engine.copy(
                CopyRequest(source=f"oci:{pile.folder}:all", targets=(f"{near.host}/{name}:1",))
            )
        assert done.sent and not mirror.calls


def test_events_are_those_of_a_copy(pile: Pile, root: str, near: Registry, name: str, tmp_path: Path) -> None:
    seen: list[Event] = []
    with Engine(Settings(state=str(tmp_path / "state")), seen.append) as engine:
        target = (f"{near.host}/{name}:1", f"oci:{tmp_path}/l")
        done = engine.copy(CopyRequest(source=f"oci:{pile.folder}:all", targets=target))
    moved = [event for event in seen if isinstance(event, Transfer)]
    assert {event.action for event in moved} == {"copy"}
    ended = [event.digest for event in moved if event.done_bytes == event.total_bytes]
    assert len(ended) == done.sent and set(ended) == {event.digest for event in moved}
    (summed,) = [event for event in seen if isinstance(event, Transferred)]
    assert (summed.action, summed.moved, summed.moved_bytes) == ("copy", done.sent, done.sent_bytes)
