"""Several stages: which are built, what passes between them, and that they run at the same time."""

from __future__ import annotations

import socket

from tests.conftest import Context
from tests.support.command import Img


def test_only_what_is_copied_comes_from_another_stage(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS build\nENV SECRET=1\nRUN mkdir /out && echo made > /out/a && touch /left\n"
        "FROM scratch\nCOPY --from=build /out/ /bin/\nCOPY --from=0 /out/a /second\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    assert {p for p, e in image.tree.items() if e.kind == "file"} == {"bin/a", "second"}
    assert not any(line.startswith("SECRET") for line in image.config.get("Env", []))


def test_a_stage_can_start_from_another_and_inherits_all_of_it(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image} AS a\nENV X=1\nRUN touch /a\nFROM a\nRUN echo $X > /b\n"
    img.build(make_context({"Dockerfile": dockerfile}))
    image = img.image()
    assert "a" in image.tree
    assert image.text("b") == "1\n"


def test_copy_from_an_image_takes_its_files(img: Img, make_context: Context, busybox_image: str) -> None:
    img.build(make_context({"Dockerfile": f"FROM scratch\nCOPY --from={busybox_image} /etc/group /g\n"}))
    assert "worker" in img.image().text("g")


def test_target_builds_that_stage_and_runs_nothing_that_it_does_not_need(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS wanted\nRUN echo w > /w\n"
        f"FROM {busybox_image} AS broken\nRUN exit 1\n"
        "FROM wanted AS last\nRUN touch /late\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    img.ok("build", "-target", "wanted", "-t", "t", context)
    tree = img.image().tree
    assert "w" in tree
    assert "late" not in tree
    img.ok("build", "--target=LAST", "-t", "t2", context)
    assert "late" in img.image("t2").tree


def test_independent_stages_run_at_the_same_time(img: Img, make_context: Context, busybox_image: str) -> None:
    """Each stage waits for the other over a socket of the host: one after the other never ends."""
    meet = "mkdir -p /out; echo hello | timeout 60 nc -l -p $PORT > /out/got"
    call = "mkdir -p /out; until echo hi | timeout 60 nc 127.0.0.1 $PORT > /out/got; do usleep 20000; done"
    dockerfile = (
        f"FROM {busybox_image} AS listener\nARG PORT\nRUN {meet}\n"
        f"FROM {busybox_image} AS caller\nARG PORT\nRUN {call}\n"
        "FROM scratch\nCOPY --from=listener /out/got /a\nCOPY --from=caller /out/got /b\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    img.build(make_context({"Dockerfile": dockerfile}), "--build-arg", f"PORT={port}")
    image = img.image()
    assert (image.text("a"), image.text("b")) == ("hi\n", "hello\n")


def test_copy_from_keeps_owners_modes_and_links_of_the_stage(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS a\n"
        "RUN mkdir /d && cd /d && touch f && chmod 2751 f && ln -s f l && mkfifo p\n"
        "FROM scratch\nCOPY --from=a /d /d\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    tree = img.image().tree
    assert tree["d/f"].bits == "2751"
    assert tree["d/l"].content == "f"
