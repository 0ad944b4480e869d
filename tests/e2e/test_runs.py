"""What the command line gives to every RUN: network, hosts, limits; and what it must allow first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img, steps_run

from .test_library import _run

MOUNTS = "mkdir -p /m && mount -t tmpfs none /m && touch /m/x && umount /m && echo mounted > /got\n"


@pytest.mark.parametrize("way", ["", "--single-id"])
def test_insecure_lifts_what_holds_a_step_back_and_needs_the_callers_word(
    way: str, make_img: MakeImg, make_context: Context, busybox_image: str
) -> None:
    img = make_img(*([way] if way else []))
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --security=insecure {MOUNTS}"})
    outcome = img.fails(2, "build", "-t", "t", context)
    assert "Dockerfile:2" in outcome.stderr and "--allow security.insecure" in outcome.stderr
    img.build(context, "--allow", "security.insecure")
    assert img.image().text("got") == "mounted\n"
    sandboxed = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --security=sandbox {MOUNTS}"})
    assert img("build", "--allow", "security.insecure", sandboxed).code == 1


def test_the_network_of_a_build_is_that_of_a_step_that_names_none(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nRUN ls /sys/class/net > /one\nRUN --network=none ls /sys/class/net > /two\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    img.build(context, "--network", "none")
    assert (img.image().text("one"), img.image().text("two")) == ("lo\n", "lo\n")
    assert len(steps_run(img.build(context))) == 2, "the network counts, and what stands on it"
    hosted = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --network=host true\n"})
    assert "--allow network.host" in img.fails(2, "build", hosted).stderr
    img.build(hosted, "--allow", "network.host")
    img.build(hosted, "--network", "host")


def test_hosts_are_added_and_their_addresses_make_no_step_run_again(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN tail -n 4 /etc/hosts > /got\n"})
    words = ("db:10.0.0.5", "six=[::1:2]", "plain:fe80::1", "up:host-gateway")
    img.build(context, *(f"--add-host={word}" for word in words))
    assert img.image().text("got") == "10.0.0.5\tdb\n::1:2\tsix\nfe80::1\tplain\n127.0.0.1\tup\n"
    other = ("db:10.9.9.9", *words[1:])
    assert steps_run(img.build(context, *(f"--add-host={word}" for word in other))) == []
    assert len(steps_run(img.build(context, "--add-host=other:10.0.0.5"))) == 1


def test_shared_memory_and_limits_are_as_asked(img: Img, make_context: Context, busybox_image: str) -> None:
    dockerfile = (
        f"FROM {busybox_image}\nRUN df -k /dev/shm | tail -1 > /shm; ulimit -S -n > /n; ulimit -H -n >> /n;"
        " ulimit -c > /c\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    limits = ("--ulimit", "nofile=123:456", "--ulimit=core=0")
    img.build(context, "--shm-size", "3m", *limits)
    image = img.image()
    assert image.text("shm").split()[1] == "3072"
    assert (image.text("n"), image.text("c")) == ("123\n456\n", "0\n")
    assert steps_run(img.build(context, "--shm-size=1g")) == [], "limits are no part of the key"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--shm-size=lots", "'lots' is not a size"),
        ("--ulimit=nofiles=1", "did you mean nofile?"),
        ("--ulimit=nofile=2:1", "above the hard one"),
        ("--ulimit=nofile", "NAME=SOFT"),
        ("--ulimit=nofile=x", "is no number"),
        ("--add-host=db", "NAME:ADDRESS"),
        ("--add-host=db:elsewhere", "'elsewhere' is no address"),
        ("--network=bridge", "bridge"),
        ("--allow=everything", "everything"),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused_before_anything_runs(
    flag: str, message: str, img: Img, make_context: Context
) -> None:
    assert message in img.fails(2, "build", flag, make_context({"Dockerfile": "FROM scratch\n"})).stderr


def test_devices_are_refused_with_their_place(img: Img, make_context: Context) -> None:
    outcome = img.fails(2, "build", make_context({"Dockerfile": "FROM scratch\nRUN --device=gpu true\n"}))
    assert "Dockerfile:2" in outcome.stderr and "--device" in outcome.stderr


def test_the_library_gives_the_same(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("in a file")
    dockerfile = (
        f"FROM {busybox_image}\n"
        "RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=V --security=insecure"
        ' cat /run/secrets/f > /got; echo " $V" >> /got; grep -w db /etc/hosts >> /got; ulimit -n >> /got;'
        " df -k /dev/shm | tail -1 | awk '{print $2}' >> /got\n"
    )
    program = """
        import sys, img, img.errors
        state, context, file = sys.argv[1:]
        with img.Client(state) as client:
            client.build(context, tag="t", secrets={"f": file}, secret_values={"v": "as a value"},
                         allow=["security.insecure"], add_hosts=["db:10.0.0.5"], ulimits=["nofile=99"],
                         shm_bytes=1 << 20)
            try:
                client.build(context, tag="t", ulimits=["nofiles=99"])
            except img.errors.UsageError as error:
                print(error.hint)
    """
    said = _run(img, program, make_context({"Dockerfile": dockerfile}), tmp_path / "f")
    assert said == "did you mean nofile?\n"
    assert img.image().text("got") == "in a file as a value\n10.0.0.5\tdb\n99\n1024\n"


def test_what_a_run_changes_of_the_root_folder_alone_is_not_seen_by_the_next(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    """No layer holds `/` itself, so neither a fresh root nor one that is used again may."""
    seen = "stat -c '%a %u' /"
    context = make_context(
        {
            "Dockerfile": f"FROM {busybox_image}\nRUN {seen}\nRUN chmod 700 / && {seen}\nRUN {seen}\n"
            f"RUN touch /gone && rm /gone\nRUN {seen}; ls /\nRUN echo kept > /kept\nRUN cat /kept; {seen}\n"
        }
    )
    outcome = img.build(context, "--no-cache")
    words = [line for line in outcome.stderr.splitlines() if re.fullmatch(r"\d{3} \d+", line)]
    assert words == ["755 0", "700 0", "755 0", "755 0", "755 0"], str(outcome)
    assert "gone" not in outcome.stderr.split("rm /gone", 1)[1].replace("rm /gone", "")
    assert img.image().text("kept") == "kept\n"


def test_runs_that_leave_nothing_share_one_root(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    """Each sees a whole root of its own all the same; a script beside it is none of the next step's."""
    script = "RUN <<E\n#!/bin/sh\ntest ! -e /dev/mine\nmkdir /dev/mine\nE\n"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN true\n{script}{script}RUN true\n"})
    img.build(context, "--no-cache")
    assert len(img.image().document["rootfs"]["diff_ids"]) == 1
    assert [path for path in (img.state / "work").iterdir() if path.suffix != ".lock"] == []
