"""How a mistake is shown: the right word, the lines around it, nothing that moves a terminal's cursor."""

from __future__ import annotations

import pytest
from img.dockerfile.faults import fault, shown
from img.dockerfile.instructions import Span

SPAN = Span(path="D", start=7, end=10, text="COPY abc \\\n  # ab\n  ab \\\n  ab/c")


def test_the_caret_goes_under_a_word_of_its_own_before_a_part_of_one() -> None:
    error = fault(SPAN, "no", at="abc")
    assert (error.line, error.column) == (7, 6)
    error = fault(SPAN, "no", at="ab/c", offset=3)
    assert (error.line, error.column, error.excerpt) == (10, 6, "  ab/c")


def test_the_lines_around_are_those_of_the_instruction() -> None:
    first, last = fault(SPAN, "no", at="abc"), fault(SPAN, "no", at="ab/c")
    assert (first.before, first.after) == ("", "  # ab")
    assert (last.before, last.after) == ("  ab \\", "")


def test_without_a_word_to_point_at_the_first_line_is_marked() -> None:
    error = fault(SPAN, "no", at="nowhere")
    assert (error.line, error.column) == (7, 0)
    assert str(error).splitlines()[2].endswith("^" * len("COPY abc \\"))


@pytest.mark.parametrize(
    ("text", "spelled", "line"),
    [
        ("\x1b[2J", "\\x1b[2J", "\ufffd[2J"),
        ("\u202e", "\\u202e", "\ufffd"),
        ("\udcff", "\\xff", "\ufffd"),
        ("\ud800", "\\ud800", "\ufffd"),
        ("\xa0", "\\xa0", "\ufffd"),
        ("a\tb", "a\\tb", "a\tb"),
        ("ü", "ü", "ü"),
    ],
)
def test_what_no_terminal_should_get_is_spelled_in_messages_and_replaced_in_lines(
    text: str, spelled: str, line: str
) -> None:
    span = Span(path="D", start=1, end=1, text=f"RUN {text}x")
    error = fault(span, f"no {text}", at=f"{text}x", hint=f"try {text}", also=[span])
    assert (error.message, error.hint) == (f"no {spelled}", f"try {spelled}")
    assert error.excerpt == f"RUN {line}x"
    assert error.also == (f"D:1: RUN {line}x",)
    assert error.column == 5


def test_a_very_long_line_is_cut_around_the_caret() -> None:
    span = Span(path="D", start=1, end=1, text="RUN " + "a" * 5000 + " wrong " + "b" * 5000)
    error = fault(span, "no", at="wrong")
    assert len(error.excerpt) < 500
    assert error.excerpt[error.column - 1 :].startswith("wrong")


def test_a_line_can_be_shown_for_errors_of_another_kind() -> None:
    assert shown(SPAN, "ab/c").splitlines() == ["    9 |   ab \\", "   10 |   ab/c", "      |   ^"]
