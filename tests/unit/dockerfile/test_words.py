"""Flags, lists and words of one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.dockerfile.words import (
    NotStrings,
    blank_words,
    heredoc_mark,
    heredoc_marks,
    json_words,
    quoted_words,
    split_flags,
)


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("--a=b --c  d --e", ("--a=b", "--c"), "d --e"),
        ("--a='b c' x", ("--a=b c",), "x"),
        ('--a="b \\" c"d x', ('--a=b " cd',), "x"),
        ("--a=b\\ c x", ("--a=b c",), "x"),
        ("--a -- --b", ("--a",), "--b"),
        ("-a b", (), "-a b"),
        ("--a", ("--a",), ""),
        ("--", (), ""),
        ("", (), ""),
        ("--a=\\", ("--a=",), ""),
    ],
)
def test_flags_come_off_the_front(text: str, flags: tuple[str, ...], rest: str) -> None:
    assert split_flags(text) == (flags, rest)


@pytest.mark.parametrize("text", ["", "a", '"a"', "['a']", '["a"', '["a"] b', "[NaN]", "[a]", "{}"])
def test_what_is_no_json_list_is_the_shell_form(text: str) -> None:
    assert json_words(text) is None


@pytest.mark.parametrize("text", ["[1]", '["a", null]', '[["a"]]', "[{}]"])
def test_a_json_list_of_anything_but_strings_is_a_mistake(text: str) -> None:
    with pytest.raises(NotStrings):
        json_words(text)


def test_half_a_surrogate_pair_in_json_is_replaced_as_go_does() -> None:
    assert json_words('["\\ud800", "\\ud83d\\ude00", "\udcff"]') == ("\ufffd", "\U0001f600", "\ufffd")


def test_blanks_alone_part_blank_words() -> None:
    assert blank_words('"a b"\t\v c\\ d') == ('"a', 'b"', "c\\", "d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=1  b=\"x y\" c='p q'", ("a=1", 'b="x y"', "c='p q'")),
        ("a=x\\ y b", ("a=x\\ y", "b")),
        ("a='x\\' b", ("a='x\\'", "b")),
        ('a="x\\" y" b', ('a="x\\" y"', "b")),
        ("a=\\", ("a=",)),
        ('a="b c', ('a="b c',)),
        ("''", ("''",)),
    ],
)
def test_quotes_and_escapes_bind_and_stay(text: str, words: tuple[str, ...]) -> None:
    assert quoted_words(text, "\\") == words


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=6))
def test_a_list_written_as_json_reads_back(values: list[str]) -> None:
    import json

    assert json_words(json.dumps(values)) == tuple(values)


@pytest.mark.parametrize("word", ["<<", "<<<x", "a<<b", "<<''", "<<-", "<x", "<<a b", "<<'a", "x"])
def test_words_that_start_no_heredoc(word: str) -> None:
    assert heredoc_mark(word) is None


def test_marks_are_found_in_order_outside_quotes() -> None:
    marks = heredoc_marks("RUN a 2<<A '<<no' x<<no <<-\"B C\" <<D\\E")
    assert [(m.name, m.fd, m.chomp, m.expand) for m in marks] == [
        ("A", 2, False, True),
        ("B C", 0, True, False),
        ("DE", 0, False, False),
    ]


def test_a_line_with_an_open_quote_has_no_heredoc() -> None:
    assert heredoc_marks("RUN echo don't <<EOF") == ()
