"""The plain renderer: the first img's lines, whatever runs at the same time."""

from __future__ import annotations

import io
import threading

from img.cli.render.plain import PlainRenderer
from img.progress import BuildStarted, Event, Note, StepDone, StepOutput, StepStarted, Transfer, Warned


def begin(step: int, why: str = "") -> Event:
    return StepStarted(step=step, title=f"RUN [{step}]", why=why)


def says(step: int, text: str) -> Event:
    return StepOutput(step=step, text=text)


def end(step: int, *, cached: bool = False, exit_code: int = 0, error: str = "") -> Event:
    return StepDone(
        step=step,
        title=f"RUN [{step}]",
        cached=cached,
        snapshot=f"id{step}",
        exit_code=exit_code,
        error=error,
    )


def lines(*events: Event, debug: bool = False) -> list[str]:
    out = io.StringIO()
    show = PlainRenderer(out, debug=debug)
    for event in events:
        show(event)
    return out.getvalue().splitlines()


def test_a_step_is_its_title_its_output_and_how_it_ended() -> None:
    assert lines(BuildStarted(name="me/app", steps=1), begin(1), says(1, "hello\n"), end(1)) == [
        "Building me/app...",
        "Setting up the rootfs... this may take a bit.",
        "RUN [1]",
        "--->",
        "hello",
        "<--- id1 0 <nil>",
    ]


def test_a_failed_step_shows_its_exit_code_and_its_error() -> None:
    assert lines(begin(1), end(1, exit_code=7, error="exit code 7"))[-1] == "<--- id1 7 exit code 7"


def test_a_miss_says_why_and_a_hit_says_that_it_is_one() -> None:
    assert lines(begin(1, "a.c changed"))[0] == "RUN [1] (a.c changed)"
    assert lines(end(1, cached=True)) == ["RUN [1]", "--->", "Using cache", "<--- id1 0 <nil>"]


def test_the_end_of_a_step_stands_on_a_line_of_its_own() -> None:
    assert lines(begin(1), says(1, "no line end"), end(1))[-2:] == ["no line end", "<--- id1 0 <nil>"]
    held = lines(begin(1), begin(2), says(2, "no line end"), end(2), end(1))
    assert held[-2:] == ["no line end", "<--- id2 0 <nil>"]


def test_steps_at_the_same_time_are_shown_one_after_the_other() -> None:
    shown = lines(begin(1), begin(2), says(2, "b\n"), says(1, "a\n"), end(2), says(1, "c\n"), end(1))
    assert shown == [
        "RUN [1]", "--->", "a", "c", "<--- id1 0 <nil>",
        "RUN [2]", "--->", "b", "<--- id2 0 <nil>",
    ]  # fmt: skip


def test_the_next_step_is_shown_live_once_the_one_before_it_has_ended() -> None:
    out = io.StringIO()
    show = PlainRenderer(out)
    for event in (begin(1), begin(2), begin(3), says(2, "held\n"), end(1)):
        show(event)
    assert out.getvalue().endswith("<--- id1 0 <nil>\nRUN [2]\n--->\nheld\n")
    show(says(2, "live\n"))
    assert out.getvalue().endswith("held\nlive\n")
    show(end(2))
    assert out.getvalue().endswith("<--- id2 0 <nil>\nRUN [3]\n--->\n")


def test_a_hit_that_comes_while_a_step_runs_waits_for_its_turn() -> None:
    assert lines(begin(1), end(2, cached=True), says(1, "a\n"), end(1))[3:] == [
        "<--- id1 0 <nil>", "RUN [2]", "--->", "Using cache", "<--- id2 0 <nil>",
    ]  # fmt: skip


def test_notes_for_debugging_and_finished_transfers_are_shown_when_asked_for() -> None:
    events = (
        Note(level="debug", text="detail"),
        Note(level="warning", text="careful"),
        Transfer(action="pull", digest="sha256:a", done_bytes=1, total_bytes=2),
        Transfer(action="pull", digest="sha256:a", done_bytes=2, total_bytes=2),
    )
    assert lines(*events) == ["warning: careful"]
    assert lines(*events, debug=True) == ["debug: detail", "warning: careful", "debug: pull sha256:a 2 bytes"]


def test_findings_are_one_block_with_a_head() -> None:
    one = Warned(number=1, total=1, rule="UndefinedVar", message="$x has no value here", line=3)
    assert lines(one) == ["1 warning found:", " - UndefinedVar: $x has no value here (line 3)"]
    two = [Warned(number=n, total=2, rule="", message=f"remark {n}") for n in (1, 2)]
    assert lines(*two) == ["2 warnings found:", " - remark 1", " - remark 2"]


def test_steps_of_many_threads_come_out_whole() -> None:
    out = io.StringIO()
    show = PlainRenderer(out)

    def work(step: int) -> None:
        show(begin(step))
        for number in range(50):
            show(says(step, f"{step}.{number}\n"))
        show(end(step))

    threads = [threading.Thread(target=work, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blocks = out.getvalue().split("RUN ")[1:]
    assert sorted(blocks) == [
        f"[{s}]\n--->\n" + "".join(f"{s}.{n}\n" for n in range(50)) + f"<--- id{s} 0 <nil>\n"
        for s in range(8)
    ]
