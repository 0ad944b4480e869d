"""Secrets in a step's output: found wherever the pieces are cut, and nothing else is changed."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from img.builder.perform.veil import Veil


def shown(veil: Veil, *pieces: bytes) -> bytes:
    return b"".join([*map(veil, pieces), veil.rest()])


def test_a_secret_is_veiled_however_it_comes() -> None:
    assert shown(Veil([b"hunter22\n"]), b"a hunter22 b hunter2 c") == b"a *** b hunter2 c"
    assert shown(Veil([b"hunter22"]), b"hunt", b"er", b"22", b"!hunt") == b"***!hunt"
    assert shown(Veil([b"hunter22", b"hunter22-and-more"]), b"hunter22", b"-and-", b"more") == b"***"


def test_what_cannot_become_a_secret_is_passed_on_at_once() -> None:
    veil = Veil([b"hunter22"])
    assert veil(b"working: ") == b"working: "
    assert veil(b"hun") == b""
    assert veil(b"dred") == b"hundred"


def test_lines_of_a_key_file_are_veiled_one_by_one() -> None:
    key = b"-----BEGIN KEY-----\nAAAABBBBCCCC\nend\n-----END KEY-----\n"
    assert shown(Veil([key]), b"x" + key) == b"x***\n"
    assert shown(Veil([key]), b"first AAAABBBBCCCC last, the end") == b"first *** last, the end"


def test_words_too_short_for_a_secret_and_no_secret_at_all_change_nothing() -> None:
    assert shown(Veil([b"1", b"yes", b""]), b"1 yes", b" no") == b"1 yes no"
    assert shown(Veil([]), b"a", b"b") == b"ab"


LETTERS = st.binary(max_size=40).map(lambda raw: bytes(97 + byte % 3 for byte in raw))


@given(st.lists(LETTERS, max_size=4), st.lists(LETTERS, max_size=8))
def test_where_the_pieces_are_cut_makes_no_difference(secrets: list[bytes], pieces: list[bytes]) -> None:
    words = sorted({s for s in secrets if len(s) >= 4}, key=lambda word: -len(word))
    text = b"".join(pieces)
    whole = re.sub(b"|".join(words), b"***", text) if words else text
    assert shown(Veil(secrets), *pieces) == whole
