"""Several stages: which are built, what passes between them, and that they run at the same time."""

from __future__ import annotations

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
    """The stages meet at a pipe in a cache that they share: one after the other never ends."""
    send = "timeout 60 sh -c 'echo hi > /m/pipe'"
    run = "RUN --mount=type=cache,id=meeting,target=/m"
    dockerfile = (
        f"FROM {busybox_image} AS reader\n{run} mkfifo /m/pipe && timeout 60 cat /m/pipe > /got\n"
        f"FROM {busybox_image} AS writer\n"
        f"{run} until [ -p /m/pipe ]; do usleep 20000; done; {send} && touch /sent\n"
        "FROM scratch\nCOPY --from=reader /got /a\nCOPY --from=writer /sent /b\n"
    )
    img.build(make_context({"Dockerfile": dockerfile}))
    assert img.image().text("a") == "hi\n"


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
