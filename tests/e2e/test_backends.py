"""Overlay mounts and copies: two ways to give a step its root, one result, one store."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.command import Img, steps_run
from tests.support.layout import Item, busybox_items, folder, symlink, tar_of, write_layout
from tests.support.registry import Registry
from tests.support.trees import difference, read_image

# Every time is later than this, so a layer's digest says all but times.
ONE_TIME = {"SOURCE_DATE_EPOCH": "1"}

CHANGES = {
    "a new file in an old folder": "echo n > /data/new",
    "a new tree": "mkdir -p /n/a/b && echo n > /n/a/b/f && ln -s f /n/a/b/l && mkfifo /n/p",
    "a change that keeps size and time": "touch -r /data/f /r && echo F > /data/f && touch -r /r /data/f"
    " && rm /r",
    "a mode": "chmod 600 /data/f",
    "a mode of a folder": "chmod 1777 /data/sub",
    "a set-id bit": "chmod 6755 /data/f",
    "an owner": "chown 0:0 /data/mine",
    "a deleted file": "rm /data/f",
    "a deleted folder": "rm -r /data/sub",
    "a folder replaced by a file": "rm -r /data/sub && echo s > /data/sub",
    "a folder replaced by a symlink": "rm -r /data/sub && ln -s /etc /data/sub",
    "a file replaced by a folder": "rm /data/f && mkdir /data/f && echo x > /data/f/x",
    "a folder made anew": "rm -r /data/sub && mkdir /data/sub && echo x > /data/sub/other",
    "a renamed file": "mv /data/f /data/g",
    "a renamed folder": "mv /data/sub /data/moved",
    "a hard link": "ln /data/f /data/sub/again",
    "a removed hard link": "rm /data/linked",
    "a changed symlink": "ln -sfn elsewhere /data/link",
    "a file that came and went": "touch /data/sub/t && rm /data/sub/t",
    "a file grown in place": "echo more >> /data/f",
    "a file beside mount points": "echo 1.2.3.4 > /etc/extra",
}


@pytest.fixture(scope="session")
def data_image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A busybox base with a second layer of things to change."""
    items = [folder("data"), folder("data/sub", 0o750), folder("data/sub/deep")]
    items += [Item(path="data/f", data=b"f\n"), Item(path="data/sub/x", data=b"x\n", mode=0o640)]
    items += [Item(path="data/sub/deep/y", data=b"y\n"), symlink("data/link", "f")]
    items += [Item(path="data/mine", data=b"m\n", uid=1000, gid=1000), Item(path="data/first", data=b"l\n")]
    layers = [tar_of(busybox_items()), _with_link(items)]
    layout = tmp_path_factory.mktemp("data")
    write_layout(layout, layers, {"Env": ["PATH=/bin"]})
    return registry.push_layout(layout, "data")


def _with_link(items: list[Item]) -> bytes:
    link = Item(path="data/linked", kind=tarfile.LNKTYPE, link="data/first", data=b"")
    return tar_of([*items, link])


@pytest.fixture
def overlay(make_img: MakeImg) -> Img:
    """`img` that mounts."""
    return make_img("--backend", "overlayfs")


@pytest.fixture
def native(make_img: MakeImg) -> Img:
    """`img` that copies."""
    return make_img("--backend", "native")


def test_every_kind_of_change_gives_the_same_layer(
    overlay: Img, native: Img, make_context: Context, data_image: str
) -> None:
    """Each change is a step of its own, on a copy of the data that no other step touches."""
    copies = " && ".join(f"cp -a /data /d{n}" for n in range(len(CHANGES)))
    steps = [f"RUN {copies}\n"]
    steps += [
        "RUN " + command.replace("/data", f"/d{n}") + "\n" for n, command in enumerate(CHANGES.values())
    ]
    context = make_context({"Dockerfile": f"FROM {data_image}\n{''.join(steps)}"})
    images = []
    for img in (overlay, native):
        img.ok("build", "-t", "t", context, env=ONE_TIME)
        images.append(img.image())
    one, two = images
    assert len(one.layers) == len(two.layers) == 2 + len(steps)
    wrong = {
        name: difference(one.layers[-len(CHANGES) + n], two.layers[-len(CHANGES) + n])
        for n, name in enumerate(CHANGES)
    }
    assert {name: lines for name, lines in wrong.items() if lines} == {}
    assert one.digest == two.digest, "layers of the same files have other bytes"


def test_a_step_that_changes_nothing_adds_no_layer(
    native: Img, make_context: Context, data_image: str
) -> None:
    native.build(make_context({"Dockerfile": f"FROM {data_image}\nRUN cat /data/f /etc/hosts\n"}))
    assert len(native.image().layers) == 2


def test_a_native_build_does_what_a_step_asks(native: Img, make_context: Context, data_image: str) -> None:
    dockerfile = (
        f"FROM {data_image} AS a\nRUN mkdir /out && echo 1 > /out/x && chmod 4711 /out/x\n"
        "RUN echo 2 > /out/y && rm /data/f && mv /data/sub /data/moved\n"
        f"FROM {data_image}\nCOPY --from=a /out /one\nCOPY --from=a /data/moved /two\n"
        "RUN test -u /one/x && cat /one/y /two/x > /both\n"
    )
    native.build(make_context({"Dockerfile": dockerfile}))
    image = native.image()
    assert image.text("both") == "2\nx\n"
    assert image.tree["one/x"].bits == "4711"
    assert "etc/resolv.conf" not in image.tree


def test_a_file_of_two_names_is_changed_under_both_as_on_a_disk(
    native: Img, make_context: Context, data_image: str
) -> None:
    native.build(make_context({"Dockerfile": f"FROM {data_image}\nRUN echo new > /data/first\n"}))
    image = native.image()
    assert (image.text("data/first"), image.text("data/linked")) == ("new\n", "new\n")


def test_one_store_serves_both_in_turn(make_img: MakeImg, make_context: Context, data_image: str) -> None:
    overlay = make_img("-b", "overlayfs")
    native = make_img("-b", "native", state=overlay.state)
    steps = [
        "RUN rm -r /data/sub && mkdir /data/sub && rm /data/f",
        "RUN ls -R /data > /seen1 && echo a > /data/sub/a",
        "RUN ls -R /data > /seen2 && rm -r /data/sub",
        "RUN ls -R /data > /seen3",
    ]
    for count in range(1, len(steps) + 1):
        img = (native, overlay)[count % 2]
        context = make_context({"Dockerfile": "\n".join([f"FROM {data_image}", *steps[:count]]) + "\n"})
        outcome = img.build(context)
        assert len(steps_run(outcome)) == 1, "the other backend's steps come from the cache\n" + str(outcome)
    image = native.image()
    names = {number: set(image.text(f"seen{number}").split()) for number in (1, 2, 3)}
    assert "f" not in names[1] and "x" not in names[1] and "sub" in names[1]
    assert "a" in names[2]
    assert "sub" not in names[3]


def test_a_failed_step_on_copies_is_told_and_leaves_nothing(
    native: Img, make_context: Context, data_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {data_image}\nRUN echo gone wrong && exit 7\n"})
    outcome = native.fails(1, "build", "-t", "t", context)
    assert "exit code 7" in outcome.text
    assert not any((native.state / "work").iterdir()), "a step's copy was left behind"


def test_with_one_id_copies_work(make_img: MakeImg, make_context: Context, data_image: str) -> None:
    single = make_img("--single-id", "-b", "native")
    dockerfile = f"FROM {data_image}\nRUN rm /data/f && id -u > /uid\nRUN chmod 700 /data/mine\n"
    single.build(make_context({"Dockerfile": dockerfile}))
    tree = single.image().tree
    assert "data/f" not in tree
    assert (tree["uid"].text, tree["data/mine"].bits) == ("0\n", "700")
    assert tree["data/mine"].owner == "1000:1000", "a changed file keeps the owner that it was given"


def test_an_unknown_backend_is_refused_with_the_ones_there_are(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\n"})
    for words in (("-b", "zfs", "build", context), ("build", "--backend=zfs", context)):
        outcome = img.fails(2, *words)
        assert "zfs" in outcome.stderr
        assert "overlayfs" in outcome.stderr and "native" in outcome.stderr


@pytest.fixture
def overlay_folder(tmp_path: Path) -> Path:
    """Where a script finds an empty folder to mount an overlay on."""
    path = tmp_path / "on-overlay"
    for name in ("lower", "upper", "work", "merged"):
        (path / name).mkdir(parents=True)
    return path


def test_a_store_that_lies_on_overlay_falls_back_to_copies_by_itself(
    make_img: MakeImg, make_context: Context, data_image: str, overlay_folder: Path
) -> None:
    """As in a container without a volume; the mount lives in a namespace of its own."""
    if not hosts.is_root():
        pytest.skip("mounting an overlay for the test needs root")
    dockerfile = (
        f"FROM {data_image} AS a\nRUN rm /data/f && rm -r /data/sub && mkdir /data/sub\n"
        "RUN test ! -e /data/f && test ! -e /data/sub/x && echo seen > /ok\n"
        f"FROM {data_image}\nCOPY --from=a /ok /data /got/\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    img = make_img(state=overlay_folder / "merged" / "state")
    archive = overlay_folder / "t.tar"
    script = (
        'cd "$1" && shift && mount -t overlay overlay '
        "-o lowerdir=lower,upperdir=upper,workdir=work merged && "
        'archive=$1 && context=$2 && shift 2 && "$@" build -t t "$context" && '
        '"$@" save --format oci -o "$archive" t'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", overlay_folder, archive, context, *img.command()],
        capture_output=True,
        text=True,
        env=img.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "overlay is refused" in done.stderr
    got = read_image(archive).tree
    assert got["got/ok"].text == "seen\n"
    assert "got/f" not in got and "got/sub/x" not in got and "got/link" in got
