"""Expansion beyond the corpus: here-documents, names asked for, places of mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.dockerfile import (
    ExpandError,
    Span,
    expand,
    expand_at,
    expand_heredoc,
    expand_words,
    referenced,
    referenced_heredoc,
)
from img.errors import DockerfileError

words = st.text(st.sampled_from("ab $\\{}:-+?#%/*'\"`_1\n"), max_size=24)


def test_a_heredoc_expands_variables_and_keeps_quotes() -> None:
    body = "\"$X\" '${Y:-d}' it's\n"
    assert expand_heredoc(body, {"X": "1"}) == "\"1\" 'd' it's\n"


def test_a_backslash_in_a_heredoc_protects_and_vanishes() -> None:
    assert expand_heredoc("\\$X \\\\ \\\n", {"X": "1"}) == "$X \\ \n"


def test_names_are_given_once_in_order_with_those_of_operands() -> None:
    assert referenced("$B${A:-$C}${B}'$D'\\$E\"$F\"${G%$H}${I/$J/$K}") == tuple("BCAFHGJKI")


def test_names_before_a_mistake_are_given() -> None:
    assert referenced('$A"${B') == ("A",)


def test_the_escape_character_tells_what_is_a_name() -> None:
    assert referenced("`$A\\$B", "`") == ("B",)


def test_a_heredoc_asks_for_names_in_quotes_too() -> None:
    assert referenced_heredoc("'$A' \\$B \"$C") == ("A", "C")


def test_a_mistake_carries_its_column() -> None:
    with pytest.raises(ExpandError) as caught:
        expand("ab${X:?need it}", {})
    assert (caught.value.message, caught.value.column) == ("X: need it", 3)
    assert "--build-arg X=" in caught.value.hint


def test_a_mistake_in_an_instruction_points_into_it() -> None:
    span = Span(path="Dockerfile", start=4, end=5, text="COPY a \\\n  b/${X?} /d")
    with pytest.raises(DockerfileError) as caught:
        expand_at(span, "b/${X?}", {})
    assert (caught.value.line, caught.value.column, caught.value.excerpt) == (5, 5, "  b/${X?} /d")
    assert expand_at(span, "b/${X?}", {"X": "1"}) == "b/1"


@given(words, st.sampled_from("\\`"))
def test_any_word_expands_or_is_refused(word: str, escape: str) -> None:
    try:
        text, column = expand(word, {"a": "x y", "b": ""}, escape), 1
    except ExpandError as error:
        text, column = "", error.column
    assert 1 <= column <= len(word) + 1
    if not text:
        return
    parts = expand_words(word, {"a": "x y", "b": ""}, escape)
    assert "".join("".join(parts).split()) == "".join(text.split())


@given(st.text(max_size=20))
def test_a_value_is_never_read_again(value: str) -> None:
    assert expand('"$v"', {"v": value}) == value
    assert expand("${x:-$v}", {"v": value}) == value


@given(st.text(st.sampled_from("abc/."), max_size=10), st.text(st.sampled_from("ab/.*?"), max_size=5))
def test_trimming_takes_the_shortest_or_longest_match(value: str, glob: str) -> None:
    def matches(text: str, pattern: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(matches(text[n:], pattern[1:]) for n in range(len(text) + 1))
        return bool(text) and pattern[0] in (text[0], "?") and matches(text[1:], pattern[1:])

    variables = {"v": value, "g": glob}
    heads = [n for n in range(len(value) + 1) if matches(value[:n], glob)]
    tails = [n for n in range(len(value) + 1) if matches(value[n:], glob)]
    assert expand("${v#$g}", variables) == value[min(heads, default=0) :]
    assert expand("${v##$g}", variables) == value[max(heads, default=0) :]
    assert expand("${v%$g}", variables) == value[: max(tails, default=len(value))]
    assert expand("${v%%$g}", variables) == value[: min(tails, default=len(value))]
