"""Rates, what is left, the lines of transfers, and the frame at a terminal; the clock is the test's."""

from __future__ import annotations

import io
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.cli.render.plain import TOLD_EVERY_SECONDS, PlainRenderer
from img.cli.render.transfers import WINDOW_SECONDS, Board, Rate, transferred_line
from img.cli.render.tty import TerminalRenderer, columns_of, fitted
from img.progress import (
    Note,
    StepDone,
    StepOutput,
    StepStarted,
    Transfer,
    Transferred,
    Transferring,
    from_json,
    to_json,
)
from img.values import replace

MIB = 1 << 20
LONG = "https://example.com/" + "x/" * 60 + "end.tar"
TITLES = ["RUN " + "long " * 30, "RUN " + "\u6f22" * 40]


def moves(digest: str, done: int, total: int, *, kind: str = "", action: str = "pull") -> Transfer:
    return Transfer(action=action, digest=digest, done_bytes=done, total_bytes=total, kind=kind)


# ---- rates -----------------------------------------------------------------------------------------


def test_a_rate_is_of_the_last_seconds_alone() -> None:
    rate = Rate()
    for second in range(20):
        rate.at(second * 100 if second < 10 else 900 + (second - 9) * 1000, float(second))
    assert rate.bytes_per_second == pytest.approx(1000)
    assert rate.seconds_left(10_900, 20_900) == pytest.approx(10)


def test_too_little_is_no_rate_and_leaves_no_time() -> None:
    rate = Rate()
    assert rate.bytes_per_second is None and rate.seconds_left(0, 100) is None
    rate.at(0, 0.0)
    rate.at(50, 0.1)
    assert rate.bytes_per_second is None
    rate.at(50, 100.0)  # it stands
    rate.at(50, 100.0 + WINDOW_SECONDS)
    assert rate.bytes_per_second == 0 and rate.seconds_left(50, 100) is None


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.floats(0, 60)), max_size=40))
def test_a_rate_is_never_negative_and_keeps_only_its_window(steps: list[tuple[int, float]]) -> None:
    rate, now = Rate(), 0.0
    for count, seconds in steps:
        now += seconds
        rate.at(count, now)
        assert rate.bytes_per_second is None or rate.bytes_per_second >= 0


def test_a_board_sums_what_moves_and_forgets_it_once_it_is_idle() -> None:
    board = Board()
    board.take(moves("a", 10 * MIB, 40 * MIB), 0.0)
    board.take(moves("b", 10 * MIB, 60 * MIB), 1.0)
    board.take(moves("a", 40 * MIB, 40 * MIB, kind="fetched"), 2.0)
    board.take(moves("c", 7 * MIB, 7 * MIB, kind="present"), 2.0)
    assert (board.done_bytes, board.total_bytes) == (50 * MIB, 100 * MIB)
    assert board.line("pull") == "pull 50MiB of 100MiB, 25MiB/s, 2.00s left"
    board.take(moves("d", 5, 0), 3.0)
    assert board.total_bytes == 0 and " of " not in board.line("pull") and "left" not in board.line("pull")
    board.take(moves("d", 5, 5), 3.0)
    board.take(moves("b", 60 * MIB, 60 * MIB), 3.0)
    board.take(moves("e", 1, 10), 90.0)
    assert (board.done_bytes, board.total_bytes) == (1, 10)


def test_more_transfers_than_lines_are_counted() -> None:
    board = Board()
    for number in range(9):
        board.take(moves(f"sha256:{number}{'0' * 63}", 1 * MIB, 4 * MIB), 0.0)
    lines = board.lines("pull", 4, 80)
    assert lines[0] == "pull 000000000000 1MiB of 4MiB 25%"
    assert len(lines) == 4 and lines[-1] == "pull of 6 more"
    assert board.lines("pull", 0, 80) == []


def test_what_was_announced_is_the_total_before_it_has_begun_and_what_began_anew_counts_once() -> None:
    board = Board()
    board.announce(Transferring(action="pull", name="a", blobs=3, total_bytes=90 * MIB), 0.0)
    one, two = (replace(moves(digest, 0, 30 * MIB), name="a") for digest in ("sha256:1", "sha256:2"))
    board.take(replace(one, done_bytes=30 * MIB, kind="fetched"), 1.0)
    assert (board.done_bytes, board.total_bytes, board.idle) == (30 * MIB, 90 * MIB, False)
    # Its bytes were wrong: it comes once more.
    board.take(replace(one, done_bytes=10 * MIB), 2.0)
    assert (board.done_bytes, board.total_bytes) == (10 * MIB, 90 * MIB)
    board.take(replace(one, done_bytes=30 * MIB, kind="fetched"), 3.0)
    board.take(replace(two, done_bytes=30 * MIB, kind="present"), 3.0)
    assert (board.done_bytes, board.total_bytes) == (30 * MIB, 60 * MIB)
    board.take(moves("sha256:other", 5 * MIB, 10 * MIB), 3.0)
    assert board.total_bytes == 70 * MIB
    board.close(Transferred(action="pull", name="a"))
    board.take(moves("sha256:other", 10 * MIB, 10 * MIB, kind="fetched"), 4.0)
    assert board.idle


def test_a_blob_that_is_made_meanwhile_is_as_long_as_its_tar_promises() -> None:
    board = Board()
    growing = moves("sha256:" + "d" * 64, 10 * MIB, 0, action="push")
    board.take(replace(growing, tar_done_bytes=40 * MIB, tar_total_bytes=400 * MIB), 2.0)
    assert growing.expected_bytes == 0 and board.total_bytes == 100 * MIB
    board.take(replace(growing, done_bytes=20 * MIB, tar_done_bytes=80 * MIB, tar_total_bytes=400 * MIB), 4.0)
    assert board.line("push") == "push 20MiB of about 100MiB, 10MiB/s, 8.00s left"
    assert board.line("push", brief=True) == "push 20%, 8.00s left"
    assert board.lines("push", 3, 80) == ["push dddddddddddd 20MiB of about 100MiB 20%"]
    board.take(replace(growing, done_bytes=90 * MIB, total_bytes=90 * MIB, kind="sent"), 5.0)
    assert board.idle and board.done_bytes == 90 * MIB


@given(st.integers(18, 200), st.sampled_from(["sha256:" + "ab" * 32, LONG]))
def test_a_line_of_a_transfer_has_how_far_it_is_whatever_the_width(width: int, digest: str) -> None:
    board = Board()
    board.take(moves(digest, 12 * MIB, 48 * MIB), 0.0)
    (line,) = board.lines("pull", 3, width)
    assert len(line) <= width and line.endswith("25%")
    if "://" in digest and width >= 30:
        assert "d.tar" in line  # its end tells it from its like


def test_one_blob_that_goes_to_two_places_is_told_apart_by_them() -> None:
    board = Board()
    for name in ("one.example/app:1", "two.example/app:1"):
        board.take(replace(moves("sha256:" + "e" * 64, MIB, 4 * MIB, action="push"), name=name), 0.0)
    lines = board.lines("push", 6, 80)
    assert lines[0] == "push eeeeee one.example/app:1 1MiB of 4MiB 25%" and "two.example" in lines[1]
    narrow = board.lines("push", 6, 40)
    assert len(set(narrow)) == 2 and all(len(line) <= 40 for line in narrow)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Transferred(action="pull", name="alpine", moved=5, moved_bytes=1 << 30, present=2, seconds=3.2),
            "pulled 5 layers of alpine, 1GiB in 3.20s (320MiB/s), 2 were here",
        ),
        (Transferred(action="pull", name="alpine", present=1), "pulled alpine: of its layers, 1 was here"),
        (
            Transferred(action="push", name="a, b", moved=1, moved_bytes=9, mounted=2, present=3),
            "pushed 1 layer of a, b, 9B, 2 mounted, 3 were there",
        ),
        (Transferred(action="push", name="scratch"), "pushed scratch"),
        (
            Transferred(action="load", name="a.tar", moved=1, moved_bytes=1 << 20, seconds=2.0),
            "loaded 1 layer of a.tar, 1MiB in 2.00s (512KiB/s)",
        ),
    ],
)
def test_the_sum_of_a_transfer_is_a_line_and_travels_as_json(event: Transferred, line: str) -> None:
    assert transferred_line(event) == line
    assert from_json(to_json(event)) == event


# ---- plain -----------------------------------------------------------------------------------------


def test_a_long_transfer_is_told_of_now_and_then_and_a_short_one_never() -> None:
    out, now = io.StringIO(), [0.0]
    show = PlainRenderer(out, clock=lambda: now[0])
    for tick in range(int(TOLD_EVERY_SECONDS) * 3 * 10):
        now[0] = tick / 10
        show(moves("a", tick * MIB, 4000 * MIB))
    assert len(out.getvalue().splitlines()) == 2
    assert re.fullmatch(r"pull 100MiB of 3.906GiB, 10MiB/s, 6m30s left", out.getvalue().splitlines()[0])
    show(StepStarted(step=1, title="RUN"))
    show(StepOutput(step=1, text="no line end"))
    now[0] += 100
    show(moves("a", 3999 * MIB, 4000 * MIB))
    assert out.getvalue().endswith("no line end")


# ---- at a terminal ---------------------------------------------------------------------------------


class Screen(io.StringIO):
    """What a terminal shows; it knows the sequences that are used, and refuses others. Nothing wraps."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self.height = height
        self.rows = [""]
        self.row = self.column = 0
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        for token in re.findall(r"\x1b\[\d*[A-Za-z]|.|\n", text, re.DOTALL):
            if token == "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif token == "\r":
                self.column = 0
            elif token.endswith("A"):
                count = int(token[2:-1])
                assert count < self.height
                self.row -= count
            elif token == "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif token == "\x1b[J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            elif token.startswith("\x1b"):
                assert token in ("\x1b[2m", "\x1b[0m"), token
            else:
                row = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = row[: self.column] + token + row[self.column + 1 :]
                self.column += 1
        return len(text)


def test_the_frame_stays_below_the_lines_and_within_the_terminal() -> None:
    choose, now = random.Random(1), [0.0]
    screen = Screen(8)
    with TerminalRenderer(screen, clock=lambda: now[0], size=lambda: (60, 8)) as show:
        show._started = True  # the test draws itself
        said = []
        for number in range(300):
            now[0] += 0.1
            digest = f"sha256:{choose.randrange(12):064}"
            done = choose.randrange(0, 11)
            show(moves(digest, done, 10, action=choose.choice(["pull", "push"])))
            if choose.random() < 0.2:
                said.append(f"line {number}")
                show(Note(level="info", text=said[-1]))
            if choose.random() < 0.1:
                show(
                    StepStarted(
                        step=number,
                        title=choose.choice(TITLES),
                    )
                )
                show(StepDone(step=number, title="RUN", snapshot="s"))
            show.draw()
            assert len(show._frame) <= 8 and all(columns_of(line) < 60 for line in show._frame)
            plain = screen.rows[: len(screen.rows) - len(show._frame)]
            assert [row for row in plain if row.startswith("line ")] == said
            assert screen.rows[len(plain) :] == show._frame
    assert "[" not in screen.rows[-1] and [row for row in screen.rows if row.startswith("line ")] == said


def test_a_transfer_writes_nothing_itself_and_an_unchanged_frame_neither() -> None:
    screen = Screen(24)
    with TerminalRenderer(screen, clock=lambda: 1.0, size=lambda: (80, 24)) as show:
        show._started = True
        for number in range(1000):
            show(moves("sha256:a", number, 2000))
        assert screen.writes == 0
        show.draw()
        show.draw()
        assert screen.writes == 1 and screen.rows == ["[pull 999B of 1.953KiB]"]
    assert screen.rows == [""]


@given(st.text(max_size=80), st.integers(1, 60))
def test_whatever_is_shown_fits_and_is_nothing_that_a_terminal_obeys(text: str, width: int) -> None:
    shown = fitted(text, width)
    assert columns_of(shown) <= width and (shown.isprintable() or not shown)


def test_a_narrow_terminal_gets_fewer_words_and_one_without_colour_no_colour() -> None:
    out, now = io.StringIO(), [0.0]
    with TerminalRenderer(out, colour=False, clock=lambda: now[0], size=lambda: (40, 24)) as show:
        show._started = True
        show(StepStarted(step=1, title="RUN make all of it and more"))
        for now[0] in (1.0, 2.0):
            show(moves("sha256:a", int(now[0]) * 10 * MIB, 100 * MIB))
        show.draw()
        assert show._frame == ["[RUN m… 2.00s | pull 20%, 4.00s left]"]
    assert "\x1b[2m" not in out.getvalue()
