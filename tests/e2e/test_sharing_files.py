"""A COPY that is done again: what is the same stands in both layers as one file, and nothing tells it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from img.store import Store

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.command import Img

pytestmark = pytest.mark.once

OLD = 1_600_000_000
"""When the files of a context were changed last."""


@dataclass(frozen=True)
class Layer:
    """A layer folder: the inode, link count and content of each regular file."""

    files: dict[str, tuple[int, int, bytes]]

    def shared(self, other: Layer) -> set[str]:
        """The paths at which both have one file."""
        inodes = {path: inode for path, (inode, _, _) in self.files.items()}
        return {path for path, (inode, _, _) in other.files.items() if inodes.get(path) == inode}

    @property
    def contents(self) -> dict[str, bytes]:
        return {path: content for path, (_, _, content) in self.files.items()}


def layer(img: Img, diff_id: str) -> Layer:
    """Reads a layer folder of the store."""
    root = img.state / "layers" / diff_id.partition(":")[2]
    files = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes() if os.access(path, os.R_OK) else b"?"
            files[str(path.relative_to(root))] = (status.st_ino, status.st_nlink, content)
    return Layer(files)


def diff_ids(img: Img, name: str = "t") -> list[str]:
    """The layers of an image: what the store knows of it, without packing any."""
    with Store(img.state) as store:
        return list(store.names.get(name).config.diff_ids)


def top(img: Img) -> str:
    return diff_ids(img)[-1]


def write(context: Path, name: str, content: str) -> None:
    path = context / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (OLD, OLD))


def age(context: Path) -> None:
    for path in (context, *context.rglob("*")):
        os.utime(path, (OLD, OLD), follow_symlinks=False)


@pytest.fixture
def context(make_context: Context) -> Path:
    """Three files that one COPY takes."""
    root = make_context({"Dockerfile": "FROM scratch\nCOPY d /d\n", "d/a": "a", "d/e/b": "b", "d/e/c": "c"})
    age(root)
    return root


def test_what_did_not_change_is_one_file_in_both_layers(img: Img, context: Path, make_img: MakeImg) -> None:
    img.build(context)
    before = top(img)
    first = layer(img, before)
    write(context, "d/a", "other")
    img.build(context)
    second = layer(img, top(img))
    assert first.shared(second) == {"d/e/b", "d/e/c"}
    assert {second.files[path][1] for path in ("d/e/b", "d/e/c")} == {2}
    assert layer(img, before).contents == first.contents
    assert second.contents == {"d/a": b"other", "d/e/b": b"b", "d/e/c": b"c"}
    cold = make_img()
    cold.build(context)
    assert diff_ids(img) == diff_ids(cold)


def test_a_layer_stays_whole_when_the_one_that_it_shares_with_is_removed(img: Img, context: Path) -> None:
    img.build(context, tag="one")
    old = layer(img, top_of(img, "one"))
    write(context, "d/a", "other")
    img.build(context, tag="two")
    new = top_of(img, "two")
    contents = layer(img, new).contents
    img.ok("rm", "one")
    img.ok("prune", "--all")
    assert len(list((img.state / "layers").iterdir())) == 1
    assert len(list((img.state / "fingerprints").iterdir())) == 1
    assert layer(img, new).contents == contents
    assert img.image("two").text("d/e/b") == "b"
    assert {count for _, count, _ in layer(img, new).files.values()} == {1}
    assert old.shared(layer(img, new)) == {"d/e/b", "d/e/c"}


def top_of(img: Img, name: str) -> str:
    return diff_ids(img, name)[-1]


def test_what_a_run_does_to_a_shared_file_stays_in_its_own_layer(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    root = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nCOPY d /d\n", "d/a": "a", "d/b": "b", "d/c": "c", "d/x": "x"}
    )
    age(root)
    img.build(root, tag="one")
    write(root, "d/x", "y")
    step = "RUN echo more >> /d/a && chmod 600 /d/b && touch -d @5 /d/c && ln /d/c /d/l\n"
    with (root / "Dockerfile").open("a") as file:
        file.write(step)
    img.build(root, tag="two")
    one, two = diff_ids(img, "one")[-1], diff_ids(img, "two")[-2]
    assert layer(img, one).shared(layer(img, two)) == {"d/a", "d/b", "d/c"}
    assert layer(img, one).contents == {"d/a": b"a", "d/b": b"b", "d/c": b"c", "d/x": b"x"}
    tree = img.image("one").tree
    assert {tree[f"d/{name}"].bits for name in "abc"} == {"644"}
    assert {tree[f"d/{name}"].mtime for name in "abc"} == {OLD}
    assert img.image("two").text("d/a") == "amore\n"


def test_a_stage_that_was_made_again_gives_what_it_gave_before(
    img: Img, make_context: Context, busybox_image: str, make_img: MakeImg
) -> None:
    def dockerfile(word: str) -> str:
        make = "RUN mkdir /o && touch /rest && for n in 1 2 3; do echo $n > /o/$n; done"
        make += f" && echo {word} > /o/word"
        times = "touch -d @1600000000 /o/* /o"
        return f"FROM {busybox_image} AS s\n{make} && {times}\nFROM scratch\nCOPY --from=s /o /o\n"

    root = make_context({"Dockerfile": dockerfile("one")})
    img.build(root)
    first = layer(img, top(img))
    (root / "Dockerfile").write_text(dockerfile("two"))
    img.build(root)
    assert first.shared(layer(img, top(img))) == {"o/1", "o/2", "o/3"}
    cold = make_img()
    cold.build(root)
    assert diff_ids(img) == diff_ids(cold)


def test_the_like_step_is_the_one_of_this_dockerfile(img: Img, make_context: Context) -> None:
    """`COPY . .` stands in many a Dockerfile, and what another one copied last is of no use."""
    contexts = []
    for name in ("here", "there"):
        root = make_context({"Dockerfile": "FROM scratch\nCOPY . /\n", name: name, f"{name}2": "2"})
        age(root)
        img.build(root, tag=name)
        contexts.append(root)
    here = contexts[0]
    before = layer(img, top_of(img, "here"))
    write(here, "here2", "other")
    img.build(here)
    assert before.shared(layer(img, top(img))) == {"Dockerfile", "here"}


def test_a_build_without_cache_shares_nothing(img: Img, context: Path) -> None:
    img.build(context)
    first = layer(img, top(img))
    write(context, "d/a", "other")
    img.build(context, "--no-cache")
    assert first.shared(layer(img, top(img))) == set()


def test_a_damaged_layer_is_told_and_its_files_are_written_again(img: Img, context: Path) -> None:
    img.build(context)
    path = img.state / "layers" / top(img).partition(":")[2] / "d/e/b"
    path.write_text("B")
    os.utime(path, (OLD, OLD))
    write(context, "d/a", "other")
    outcome = img.build(context)
    assert "d/e/b in the store is not what a build wrote there" in outcome.text
    assert layer(img, top(img)).contents == {"d/a": b"other", "d/e/b": b"b", "d/e/c": b"c"}


@pytest.mark.parametrize("loss", ["fingerprints", "layer"])
def test_what_is_missing_costs_nothing_but_the_sharing(
    img: Img, context: Path, loss: str, make_img: MakeImg
) -> None:
    img.build(context)
    if loss == "layer":
        hosts.remove_tree(img.state / "layers" / top(img).partition(":")[2])
    else:
        for path in (img.state / "fingerprints").iterdir():
            path.unlink()
    write(context, "d/a", "other")
    img.build(context)
    cold = make_img()
    cold.build(context)
    assert diff_ids(img) == diff_ids(cold)


def test_disk_usage_counts_a_shared_file_once(img: Img, make_context: Context) -> None:
    root = make_context(
        {"Dockerfile": "FROM scratch\nCOPY d /d\n", "d/large": os.urandom(4 << 20), "d/small": "1"}
    )
    age(root)
    img.build(root)
    write(root, "d/small", "2")
    img.build(root)
    usage = img.ok("du", "--json").json()
    assert 4 << 20 <= usage["layers_bytes"] < 5 << 20
    rows = sorted(row["bytes"] for row in usage["layers"])
    assert rows[0] < 1 << 20 and rows[1] >= 4 << 20
    # What the image needs is not to be had back, though a layer of the cache has it as well.
    assert usage["reclaimable_bytes"] < 1 << 20


def test_with_one_id_an_owner_that_is_recorded_is_shared_as_well(make_img: MakeImg, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --chown=12:34 d /d\n")
    img = make_img("--single-id")
    img.build(context)
    first = layer(img, top(img))
    write(context, "d/a", "other")
    img.build(context)
    assert first.shared(layer(img, top(img))) == {"d/e/b", "d/e/c"}
    assert img.image().tree["d/e/b"].owner == "12:34"


# ---- any change ------------------------------------------------------------------------------------

NAMES = ("a", "b", "c/d", "c/e", "f/g/h", "i")
edits = st.one_of(
    st.tuples(st.just("content"), st.sampled_from(NAMES), st.sampled_from(["", "x", "y" * 5000])),
    st.tuples(st.just("mode"), st.sampled_from(NAMES), st.sampled_from([0o600, 0o755, 0o4755])),
    st.tuples(st.just("time"), st.sampled_from(NAMES), st.sampled_from([5, OLD])),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("symlink"), st.sampled_from(NAMES), st.sampled_from(["a", "/etc"])),
    st.tuples(st.just("folder"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("link"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
)
flags = st.sampled_from(["", "--chmod=640 ", "--chmod=go-r ", "--chown=0:0 ", "--link ", "--exclude=i "])


def apply_edit(root: Path, kind: str, name: str, value: object) -> None:
    """Carries one edit out, as far as the tree is such that it can be."""
    path = root / name
    if kind == "delete":
        remove(path)
    elif kind in ("content", "symlink", "folder"):
        if any(parent.exists() and not parent.is_dir() for parent in path.parents):
            return
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "content":
            path.write_text(str(value))
        elif kind == "symlink":
            path.symlink_to(str(value))
        else:
            path.mkdir()
    elif not path.is_file() or path.is_symlink():
        return
    elif kind == "mode":
        path.chmod(int(str(value)))
    elif kind == "time":
        os.utime(path, (int(str(value)),) * 2)
    else:
        other = root / str(value)
        if other != path and other.parent.is_dir() and not other.is_dir():
            other.unlink(missing_ok=True)
            (path.rename if kind == "rename" else other.hardlink_to)(other if kind == "rename" else path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """A folder for what each example leaves; all of it goes."""
    folder = tmp_path / "places"
    folder.mkdir()
    yield folder
    for state in folder.glob("*/state*"):
        hosts.remove_tree(state)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(before=flags, after=flags, changes=st.lists(edits, max_size=6))
def test_whatever_changes_the_layer_is_the_one_that_an_empty_store_gives(
    places: Path, before: str, after: str, changes: list[tuple[str, str, object]]
) -> None:
    place = places / str(len(list(places.iterdir())))
    root = place / "context" / "d"
    root.mkdir(parents=True)
    (place / "home").mkdir()
    for name in NAMES:
        apply_edit(root, "content", name, name * 100)
    age(root)
    context = root.parent
    img, cold = (Img(place / f"state{n}", place / "home") for n in range(2))
    (context / "Dockerfile").write_text(f"FROM scratch\nCOPY {before}d /d\n")
    img.build(context)
    old = top(img)
    was = layer(img, old)
    for kind, name, value in changes:
        apply_edit(root, kind, name, value)
    (context / "Dockerfile").write_text(f"FROM scratch\nCOPY {after}d /d\n")
    img.build(context)
    cold.build(context)
    if top(img) == old:  # a layer that is the same but for times is kept
        assert img.image().tree == cold.image().tree
    else:
        assert diff_ids(img) == diff_ids(cold)
    assert layer(img, old).contents == was.contents
