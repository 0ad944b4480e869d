"""Ends that nobody planned: Ctrl-C, kill -9, two at once, a full disk. Nothing lost, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support import hosts
from tests.support.command import Img
from tests.support.orphans import Orphans
from tests.support.rooms import in_little_room

DEADLINE = 60


def _wait_for_line(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    for line in process.stdout:
        seen += line
        if text in line:
            return
    raise AssertionError(f"{text!r} never came:\n{seen.decode()}")


def test_ctrl_c_ends_every_process_and_the_next_build_works(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN touch /before\nRUN (sleep 9999 &) ; echo started; sleep 9999\n"
    context = make_context({"Dockerfile": dockerfile})
    with Orphans() as orphans:
        process = img.start("build", "-t", "t", context)
        _wait_for_line(process, b"started\n")
        assert orphans.running("sleep 9999")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert orphans.left(DEADLINE) == []
    assert img("inspect", "t").code == 5
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\nRUN touch /before\nRUN touch /after\n")
    img.build(context)
    assert {"before", "after"} <= set(img.image().tree)


@pytest.mark.parametrize("moment", ["run", "copy", "start", "pull", "commit"])
def test_kill_9_leaves_no_process_no_mount_and_a_sound_store(
    moment: str, img: Img, make_context: Context, busybox_image: str
) -> None:
    steps = {
        "run": "RUN (sleep 9999 &); echo here; sleep 9999\n",
        "copy": "RUN echo here\nCOPY big /big\n",
        "start": "RUN true\n",
        "pull": "RUN true\n",
        "commit": "RUN head -c 50000000 /dev/zero > /z; echo here\n",
    }
    dockerfile = f"FROM {busybox_image}\n{steps[moment]}"
    context = make_context({"Dockerfile": dockerfile, "big": os.urandom(30_000_000)})
    lines = {"start": b"Building", "pull": b"Setting up"}
    with Orphans() as orphans:
        process = img.start("build", "-t", "t", context)
        _wait_for_line(process, lines.get(moment, b"here\n"))
        assert bool(orphans.running("sleep 9999")) == (moment == "run")
        process.kill()
        process.wait(DEADLINE)
        assert orphans.left(DEADLINE) == []
    assert str(img.state) not in Path("/proc/self/mounts").read_text()
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\nCOPY big /big\nRUN echo fine > /fine\n")
    img.build(context)
    image = img.image()
    assert image.text("fine") == "fine\n"
    assert image.tree["bin/sh"].content == "busybox"


def test_kill_9_at_any_time_of_a_build_never_spoils_the_store(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    """Twelve moments spread over the length of one build, all into one store."""
    files = {f"f{n}": os.urandom(200_000) for n in range(40)}
    dockerfile = f"FROM {busybox_image}\nCOPY . /c\nRUN cp -r /c /d\nRUN rm -r /c && touch /e\n"
    context = make_context({"Dockerfile": dockerfile, **files})
    start = time.monotonic()
    img.build(context, tag="whole")
    length = time.monotonic() - start
    expected = img.image("whole").tree
    with Orphans() as orphans:
        for n in range(12):
            (context / "f0").write_bytes(os.urandom(1000))
            process = img.start("build", "--no-cache", "-t", "t", context)
            try:
                process.communicate(timeout=length * (n + 1) / 13)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        assert orphans.left(DEADLINE) == []
    assert img.image("whole").tree == expected
    img.build(context)
    assert img.image().tree["d/f0"].content
    img.ok("prune", "--all")
    assert img.image("whole").tree == expected
    work = img.state / "work"
    left = subprocess.run(hosts.inside("ls", "-A", str(work)), capture_output=True, text=True, check=False)
    assert left.stdout.split() == [], "prune left what dead builds had begun"


def test_two_builds_of_the_same_thing_at_once_both_succeed(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nCOPY . /c\nRUN cat /c/* > /all\nRUN touch /b\n"
    context = make_context({"Dockerfile": dockerfile, "a": os.urandom(1_000_000), "b": "b"})
    running = [img.start("build", "-t", f"t{n}", context) for n in range(4)]
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output.decode()
    trees = [img.image(f"t{n}").tree for n in range(4)]
    assert all(tree == trees[0] for tree in trees)


def test_prune_beside_a_build_takes_nothing_that_the_build_needs(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nRUN touch /a\n"
        "RUN --mount=type=cache,target=/m echo here; until [ -e /m/end ]; do usleep 20000; done\n"
    )
    context = make_context({"Dockerfile": dockerfile + "RUN test -f /a && touch /c\n"})
    process = img.start("build", "-t", "t", context)
    _wait_for_line(process, b"here\n")
    img.ok("prune", "--all")
    (data,) = img.state.glob("cache-mounts/*/data")
    subprocess.run(hosts.inside("touch", str(data / "end")), check=True)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output.decode()
    assert {"a", "c"} <= set(img.image().tree)


def test_a_full_disk_is_said_and_the_store_is_sound_when_there_is_room_again(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    state = tmp_path / "small"
    state.mkdir()
    too_much = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN head -c 90000000 /dev/zero > /z\n"})
    too_many = make_context({"Dockerfile": "FROM scratch\nCOPY z /z\n", "z": os.urandom(60_000_000)})
    fits = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo fits > /f\n"})
    script = f"""
        img build -t a {too_much}; echo "first: $?"
        img build -t b {too_many}; echo "second: $?"
        img build -t c {fits}; echo "third: $?"
        img images; echo "fourth: $?"
    """
    text = in_little_room(img, state, script)
    assert "first: 1" in text or "first: 5" in text, text
    assert "second: 5" in text, text
    assert "no space left" in text.lower(), text
    assert "third: 0" in text, text
    assert "fourth: 0" in text, text
    assert "Traceback" not in text
