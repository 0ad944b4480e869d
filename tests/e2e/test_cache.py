"""What runs again, and what does not. Each watched RUN writes a random value: one that stayed proves
that nothing ran."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img, steps_run

STAMP = "head -c 16 /dev/urandom | md5sum"


def _value(img: Img, path: str) -> str:
    return img.image().text(path)


def test_an_unchanged_rebuild_runs_nothing_and_gives_the_same_image(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nCOPY a /a\nRUN {STAMP} > /s\nENV X=1\n", "a": "a"}
    )
    first = img.build(context)
    assert len(steps_run(first)) >= 2
    before = img.image()
    again = img.build(context)
    assert steps_run(again) == []
    after = img.image()
    assert after.document["rootfs"] == before.document["rootfs"]
    assert after.text("s") == before.text("s")


def test_a_changed_file_misses_from_its_copy_on_and_not_before(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN {STAMP} > /early\nCOPY a /a\nRUN {STAMP} > /late\n"
    context = make_context({"Dockerfile": dockerfile, "a": "1"})
    img.build(context)
    early, late = _value(img, "early"), _value(img, "late")
    (context / "a").write_text("2")
    img.build(context)
    assert _value(img, "early") == early
    assert _value(img, "late") != late
    assert _value(img, "a") == "2"


def test_a_touched_file_or_a_fresh_clone_misses_nothing(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    dockerfile = f"FROM {busybox_image}\nCOPY . /c\nRUN {STAMP} > /s\n"
    context = make_context({"Dockerfile": dockerfile, "a": "1", "d/b": "2"})
    img.build(context)
    value = _value(img, "s")
    os.utime(context / "a", (1, 1))
    assert steps_run(img.build(context)) == []
    shutil.copytree(context, tmp_path / "clone", copy_function=shutil.copy)
    assert steps_run(img.build(tmp_path / "clone")) == []
    assert _value(img, "s") == value


@pytest.mark.parametrize("what", ["mode", "name", "link", "removal"])
def test_a_change_that_a_container_can_see_misses(
    what: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nCOPY d /d\nRUN {STAMP} > /s\n"
    context = make_context({"Dockerfile": dockerfile, "d/a": "1", "d/b": "2"})
    (context / "d/l").symlink_to("a")
    img.build(context)
    value = _value(img, "s")
    if what == "mode":
        (context / "d/a").chmod(0o755)
    elif what == "name":
        (context / "d/a").rename(context / "d/c")
    elif what == "link":
        (context / "d/l").unlink()
        (context / "d/l").symlink_to("b")
    else:
        (context / "d/b").unlink()
    img.build(context)
    assert _value(img, "s") != value


def test_a_file_that_no_copy_names_may_change(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nCOPY a /a\nRUN {STAMP} > /s\n", "a": "", "other": "1"}
    )
    img.build(context)
    (context / "other").write_text("2")
    assert steps_run(img.build(context)) == []


def test_a_step_that_gives_the_same_bytes_again_lets_everything_after_it_hit(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    """The file `in` changes, what is made of it does not."""
    dockerfile = (
        f"FROM {busybox_image} AS make\nCOPY in /in\nRUN wc -l < /in > /lines\n"
        f"FROM {busybox_image}\nCOPY --from=make /lines /lines\nRUN {STAMP} > /s\n"
    )
    context = make_context({"Dockerfile": dockerfile, "in": "one\ntwo\n"})
    img.build(context)
    value = _value(img, "s")
    (context / "in").write_text("other\nwords\n")
    again = img.build(context)
    assert any("wc -l" in step for step in steps_run(again))
    assert _value(img, "s") == value


def test_an_argument_misses_only_where_it_is_used(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN {STAMP} > /before\nARG N\nRUN echo $N; {STAMP} > /after\n"
    context = make_context({"Dockerfile": dockerfile})
    img.build(context, "--build-arg", "N=1")
    before, after = _value(img, "before"), _value(img, "after")
    img.build(context, "--build-arg", "N=2")
    assert _value(img, "before") == before
    assert _value(img, "after") != after


def test_no_cache_runs_every_step(img: Img, make_context: Context, busybox_image: str) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN {STAMP} > /s\n"})
    img.build(context)
    value = _value(img, "s")
    img.build(context, "--no-cache")
    assert _value(img, "s") != value


def test_another_store_gives_the_same_layers_with_the_same_clock(
    make_context: Context, busybox_image: str, make_img: MakeImg
) -> None:
    """SOURCE_DATE_EPOCH: the same input gives the same digest anywhere."""
    dockerfile = f"FROM {busybox_image}\nCOPY . /c\nRUN mkdir /r && echo x > /r/y\nWORKDIR /w\nLABEL a=b\n"
    context = make_context({"Dockerfile": dockerfile, "a": "1"})
    digests = []
    for _ in range(2):
        img = make_img()
        img.ok("build", "-t", "t", context, env={"SOURCE_DATE_EPOCH": "1700000000"})
        digests.append(img.image().digest)
    assert digests[0] == digests[1]


def test_a_local_base_is_used_without_the_registry(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nRUN touch /base\n"}), tag="base:dev")
    img.build(make_context({"Dockerfile": "FROM base:dev\nRUN touch /child\n"}), tag="child:dev")
    tree = img.image("child:dev").tree
    assert {"base", "child"} <= set(tree)
