"""Everything at once, nothing twice: what runs side by side, what is fetched, and what a failure ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context
from tests.support.command import Img, Outcome, steps_run
from tests.support.layout import Item, tar_of, write_layout
from tests.support.registry import Broken

SHARED = "RUN --mount=type=cache,id=meeting,target=/m"
MEET = "timeout 120 sh -c 'until [ $(ls /m/here | wc -l) = {count} ]; do usleep 20000; done'"


class Watched(Broken):
    """Tells when it is asked for the layer of its image; the config is its first blob."""

    def __init__(self, layout: Path) -> None:
        super().__init__(layout)
        self.asked = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        super().answer(request, body=body)
        if sum("/blobs/" in line for line in self.requests) > 1:
            self.asked.set()


def _read_until(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    for line in process.stdout:
        seen += line
        if word in line:
            return
    raise AssertionError(f"{word!r} never came:\n{seen.decode()}")


def _layout(folder: Path, name: str) -> Path:
    write_layout(folder / name, [tar_of([Item(path=name, data=os.urandom(1000))])], {})
    return folder / name


def _blobs(server: Broken) -> int:
    """Requests for blobs, the config left out: that is read to plan."""
    return sum("/blobs/" in line for line in server.requests) - 1


def _done(outcome: Outcome) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in outcome.stderr.splitlines() if line.startswith("{")]
    return [event for event in events if event["event"] == "StepDone"]


# ---- at once ---------------------------------------------------------------------------------------


def test_four_independent_stages_are_all_at_work_at_one_time(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    """Each waits for the other three: fewer at once never end."""
    stages = "".join(
        f"FROM {busybox_image} AS s{n}\n"
        f"{SHARED} mkdir -p /m/here && touch /m/here/{n} && {MEET.format(count=4)} && touch /{n}\n"
        for n in range(4)
    )
    copies = "".join(f"COPY --from=s{n} /{n} /\n" for n in range(4))
    img.build(make_context({"Dockerfile": f"{stages}FROM scratch\n{copies}"}), "--jobs", "4")
    assert {"0", "1", "2", "3"} <= set(img.image().tree)


def test_a_base_that_is_read_late_comes_while_other_steps_run(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    """The first stage's step ends only when the registry was asked for the layer of the second's base."""
    server = Watched(_layout(tmp_path, "late"))
    with server:
        dockerfile = (
            f"FROM {busybox_image} AS build\n"
            "RUN --mount=type=cache,id=late,target=/m mkfifo /m/wait; echo waiting; "
            "timeout 120 cat /m/wait > /out\n"
            f"FROM {server.host}/late\nCOPY --from=build /out /out\n"
        )
        process = img.start("build", "-t", "t", make_context({"Dockerfile": dockerfile}))
        _read_until(process, b"waiting\n")
        assert server.asked.wait(60), "the layer is asked for only after the step"
        (pipe,) = img.state.glob("cache-mounts/*/data/wait")
        subprocess.run(["sh", "-c", f"echo over > {pipe}"], check=True, timeout=60)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    assert img.image().text("out") == "over\n"


def test_a_base_that_no_step_reads_is_never_downloaded(
    img: Img, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    """COPY --link onto it, and the config alone, need nothing of it; a plain COPY does."""
    with Broken(_layout(tmp_path, "unread")) as server:
        made = f"FROM {busybox_image} AS made\nRUN echo x > /x\n"
        base = f"FROM {server.host}/unread\n"
        link = "COPY --link --from=made /x /x\nCOPY --link y /y\nENV A=1\nLABEL b=2\n"
        img.build(make_context({"Dockerfile": made + base + link, "y": "y"}))
        img.build(make_context({"Dockerfile": base + "CMD x\n"}))
        assert _blobs(server) == 0
        img.build(make_context({"Dockerfile": base + "COPY y /y\n", "y": "y"}))
        assert _blobs(server) == 1


def test_two_bases_with_a_layer_in_common_fetch_it_once(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    common = tar_of([Item(path="common", data=os.urandom(300_000))])
    for name in ("one", "two"):
        own = tar_of([Item(path=name, data=name.encode())])
        write_layout(tmp_path / name, [common, own], {})
    with Broken(tmp_path / "one", delay=0.2) as one, Broken(tmp_path / "two", delay=0.2) as two:
        dockerfile = (
            f"FROM {one.host}/a AS a\nCOPY f /a\nFROM {two.host}/b AS b\nCOPY f /b\n"
            "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n"
        )
        img.build(make_context({"Dockerfile": dockerfile, "f": "f"}), "--jobs", "4")
        assert _blobs(one) + _blobs(two) == 3
    assert {"one", "two", "common", "a", "b"} <= set(img.image().tree)


# ---- failures --------------------------------------------------------------------------------------


def _failing(busybox: str, beside: str) -> str:
    """A stage that fails once its neighbour has begun; and one that waits for neither."""
    return (
        f"FROM {busybox} AS beside\n{SHARED} mkfifo /m/begun; echo go > /m/begun; {beside}\n"
        f"FROM {busybox} AS failing\n"
        f"{SHARED} until [ -p /m/begun ]; do usleep 20000; done; \\\n"
        "    cat /m/begun; echo last words; \\\n    exit 7\n"
        "FROM failing AS dependant\nRUN echo never\n"
        "FROM scratch\nCOPY --from=beside /done /\nCOPY --from=dependant /etc /\n"
    )


def test_a_failure_lets_its_neighbour_end_and_be_recorded_and_nothing_new_begins(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    beside = "timeout 120 sh -c 'until [ -e /m/end ]; do usleep 20000; done'; touch /done"
    dockerfile = _failing(busybox_image, beside).replace("exit 7", "touch /m/end; exit 7")
    context = make_context({"Dockerfile": dockerfile})
    failed = img.fails(1, "build", "--jobs", "3", "--progress", "json", "-t", "t", context)
    done = {event["where"]: event for event in _done(failed)}
    assert done["Dockerfile:2"]["error"] == ""
    assert done["Dockerfile:4"]["exit_code"] == 7
    assert "never" not in failed.text.replace("echo never", "")
    alone = img.build(context, "--target", "beside")
    assert steps_run(alone) == [], "what ended beside the failure is a hit"


def test_fail_fast_ends_what_runs_beside_the_failure(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    """Without the end it would take an hour."""
    context = make_context({"Dockerfile": _failing(busybox_image, "sleep 3600")})
    failed = img.fails(1, "build", "--fail-fast", "--jobs", "3", "--progress", "json", context)
    done = {event["where"]: event for event in _done(failed)}
    assert done["Dockerfile:4"]["exit_code"] == 7
    assert done["Dockerfile:2"]["error"] == "ended before it was done"


def test_the_error_shows_the_instruction_s_lines_and_the_last_of_its_log(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    run = "RUN echo first && \\\n    # a comment\n    echo last words && \\\n    exit 7\n"
    failed = img.fails(1, "build", make_context({"Dockerfile": f"FROM {busybox_image}\n{run}"}))
    text = failed.stderr[failed.stderr.index("Dockerfile:2: the step failed with exit code 7") :]
    assert "    2 | RUN echo first && \\\n    3 |     # a comment\n" in text
    assert "    5 |     exit 7\n" in text
    assert "  last words" in text


def test_a_neighbour_s_failure_is_told_as_well(img: Img, make_context: Context, busybox_image: str) -> None:
    stages = "".join(
        f"FROM {busybox_image} AS s{n}\n"
        f"{SHARED} mkdir -p /m/here && touch /m/here/{n} && {MEET.format(count=2)}; exit {n + 3}\n"
        for n in range(2)
    )
    copies = "".join(f"COPY --from=s{n} /x /\n" for n in range(2))
    context = make_context({"Dockerfile": f"{stages}FROM scratch\n{copies}"})
    failed = img.fails(1, "build", "--jobs", "2", "--progress", "json", context)
    assert sorted(event["exit_code"] for event in _done(failed)) == [3, 4]


# ---- what runs again -------------------------------------------------------------------------------


@pytest.fixture
def stages(make_context: Context, busybox_image: str) -> Path:
    """Two stages whose steps give the same bytes each time, and one of a third that takes from both."""
    dockerfile = (
        f"FROM {busybox_image} AS one\nRUN echo 1 > /1\nRUN echo 1b > /1b\n"
        f"FROM {busybox_image} AS two\nRUN echo 2 \\\n    > /2\n"
        "FROM scratch\nCOPY --from=one /1 /1\nCOPY --from=two /2 /2\n"
    )
    return make_context({"Dockerfile": dockerfile})


ONE, ONE_B = "RUN [/bin/sh -c echo 1 > /1]", "RUN [/bin/sh -c echo 1b > /1b]"
TWO = "RUN [/bin/sh -c echo 2     > /2]"


@pytest.mark.parametrize(
    ("flags", "ran"),
    [
        (("--no-cache-filter", "one"), {ONE, ONE_B}),
        (("--no-cache-filter=ONE,1",), {ONE, ONE_B, TWO}),
        (("--no-cache-step", "6"), {TWO}),
        (("--no-cache-step", "echo 1 "), {ONE}),
        (("--no-cache-step=2", "--no-cache-step=5"), {ONE, TWO}),
    ],
)
def test_a_step_that_is_to_run_runs_and_equal_bytes_let_all_after_it_hit(
    flags: tuple[str, ...], ran: set[str], img: Img, stages: Path
) -> None:
    img.build(stages)
    digest = img.image().tree
    again = img.build(stages, *flags)
    assert set(steps_run(again)) == ran
    assert img.image().tree == digest
    assert steps_run(img.build(stages)) == [], "what ran is recorded"


def test_an_empty_filter_means_every_stage(img: Img, stages: Path) -> None:
    img.build(stages)
    assert {ONE, ONE_B, TWO} < set(steps_run(img.build(stages, "--no-cache-filter=")))


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--no-cache-filter=tow", "did you mean two?"),
        ("--no-cache-filter=7", "there is no stage '7'"),
        ("--no-cache-step=1", "no step of this build fits line 1"),
        ("--no-cache-step=99", "no step of this build fits line 99"),
        ("--no-cache-step=ECHO", "no step of this build fits 'ECHO'"),
    ],
)
def test_a_flag_that_fits_nothing_is_refused(flag: str, says: str, img: Img, stages: Path) -> None:
    assert says in img.fails(2, "build", flag, stages).stderr


# ---- two builds ------------------------------------------------------------------------------------


def _counting(busybox: str) -> str:
    """A step that counts its runs, says when it has begun, and waits until it may end."""
    return (
        f"FROM {busybox}\nRUN --mount=type=cache,id=race,target=/m echo run >> /m/runs; echo begun; "
        "timeout 120 sh -c 'until [ -e /m/end ]; do usleep 20000; done'; date +%N%s > /made\n"
    )


def _let_end(img: Img) -> Path:
    (data,) = img.state.glob("cache-mounts/*/data")
    subprocess.run(["touch", str(data / "end")], check=True)
    return data


def test_two_builds_of_one_step_run_it_once_and_the_second_takes_its_result(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": _counting(busybox_image)})
    first = img.start("build", "-t", "first", context)
    _read_until(first, b"begun\n")
    second = img.start("build", "-t", "second", context)
    _read_until(second, b"the same step is running already")
    data = _let_end(img)
    for process in (first, second):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    assert (data / "runs").read_text() == "run\n"
    assert img.image("first").text("made") == img.image("second").text("made")
    assert not any((img.state / "claims").iterdir())


def test_a_build_that_waits_runs_the_step_itself_where_the_other_was_killed(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": _counting(busybox_image)})
    first = img.start("build", "-t", "first", context)
    _read_until(first, b"begun\n")
    second = img.start("build", "-t", "second", context)
    _read_until(second, b"the same step is running already")
    first.kill()
    first.communicate()
    _read_until(second, b"begun\n")
    data = _let_end(img)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output.decode()
    assert (data / "runs").read_text() == "run\nrun\n"


def test_ctrl_c_ends_a_build_that_waits_for_another(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": _counting(busybox_image)})
    first = img.start("build", "-t", "first", context)
    _read_until(first, b"begun\n")
    second = img.start("build", "-t", "second", context)
    _read_until(second, b"the same step is running already")
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 130
    _let_end(img)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output.decode()


def test_without_the_cache_a_build_waits_for_nobody(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": _counting(busybox_image)})
    first = img.start("build", "-t", "first", context)
    _read_until(first, b"begun\n")
    second = img.start("build", "--no-cache", "-t", "second", context)
    _read_until(second, b"begun\n")
    data = _let_end(img)
    for process in (first, second):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    assert (data / "runs").read_text() == "run\nrun\n"


def test_equal_steps_of_one_build_run_once(img: Img, make_context: Context, busybox_image: str) -> None:
    run = "RUN --mount=type=cache,id=same,target=/m echo run >> /m/runs; date +%N%s > /made\n"
    stages = "".join(f"FROM {busybox_image} AS s{n}\n{run}" for n in range(4))
    copies = "".join(f"COPY --from=s{n} /made /{n}\n" for n in range(4))
    img.build(make_context({"Dockerfile": f"{stages}FROM scratch\n{copies}"}), "--jobs", "4")
    (data,) = img.state.glob("cache-mounts/*/data")
    assert (data / "runs").read_text() == "run\n"
    assert len({img.image().text(str(n)) for n in range(4)}) == 1


# ---- ends that nobody planned ------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_had_ended_before_an_interrupt_is_a_hit_afterwards(
    end: signal.Signals, img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS one\nRUN echo 1 > /1\nCOPY f /f\n"
        f"FROM {busybox_image} AS two\nCOPY --from=one /1 /1\nRUN echo begun; sleep 3600\n"
    )
    context = make_context({"Dockerfile": dockerfile, "f": "f"})
    process = img.start("build", "--target", "one", "--target", "two", context)
    _read_until(process, b"begun\n")
    process.send_signal(end)
    process.communicate(timeout=60)
    (context / "Dockerfile").write_text(dockerfile.replace("sleep 3600", "true"))
    again = img.ok("build", "--target", "one", "--target", "two", context)
    assert steps_run(again) == ["RUN [/bin/sh -c echo begun; true]"]
    assert not any((img.state / "claims").iterdir()) or end == signal.SIGKILL
