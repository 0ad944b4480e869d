"""A short, seeded part of the fuzzing in `dockerfile.py`, and inputs that once could take long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.fuzz.dockerfile import CALLS_AT_LEAST, CALLS_PER_BYTE, attack, calls_of, once


def test_any_bytes_are_a_plan_or_an_error_that_can_be_shown() -> None:
    once(1, 400, attack)


def test_no_bytes_take_more_calls_than_their_number_allows() -> None:
    def counted(data: bytes) -> None:
        assert calls_of(partial(attack, data)) <= CALLS_AT_LEAST + CALLS_PER_BYTE * len(data), data

    once(2, 150, counted)


SHAPES: dict[str, Callable[[int], str]] = {
    "continuations of nothing": lambda n: "FROM a\n" + "\\\n" * n + "RUN x",
    "a keyword in pieces": lambda n: "FROM a\n" + "R\\\n" * n + " x",
    "continuations": lambda n: "FROM a\nRUN x" + " y \\\n" * n,
    "comments in a continuation": lambda n: "FROM a\nRUN x \\\n" + "# c\n" * n + "y",
    "here-documents": lambda n: "FROM a\n" + "RUN <<E\nE\n" * n,
    "here-documents on one line": lambda n: "FROM a\nRUN x" + " <<E" * n + "\nE" * n,
    "a long here-document": lambda n: "FROM a\nCOPY <<E /x\n" + "$a 'b' \\$c\n" * n + "E\n",
    "pairs": lambda n: "FROM a\nENV" + " a=b" * n,
    "many ENV": lambda n: "FROM a\n" + "ENV a=$a\n" * n,
    "many ARG": lambda n: "FROM a\n" + "ARG a=$a\n" * n,
    "quotes": lambda n: "FROM a\nLABEL a=" + '"\'"' * n,
    "an open quote": lambda n: "FROM a\nRUN <<E " + "a" * n + "'" + "b" * n,
    "dollars": lambda n: "FROM a\nLABEL a=" + "$" * n,
    "braces": lambda n: "FROM a\nLABEL a=" + "${a:-b}" * n,
    "nesting": lambda n: "FROM a\nLABEL a=" + "${a:-" * n,
    "stars": lambda n: "FROM a\nENV A=" + "a" * n + "\nLABEL a=${A%%" + "*a" * 20 + "*b} b=${A//*a*a*b/x}",
    "arithmetic": lambda n: "FROM a\nRUN <<E " + "$((" * n + "\nE",
    "brackets": lambda n: "FROM a\nRUN " + "[" * n,
    "mounts": lambda n: "FROM a\nRUN" + " --mount=type=tmpfs,target=/x" * n + " y",
    "flags": lambda n: "FROM a\nCOPY" + " --exclude=x" * n + " a b",
    "stages": lambda n: "FROM a AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(n)),
    "stages of one name": lambda n: "FROM a AS a\n" * n,
    "copies": lambda n: "FROM a AS b\nRUN x\nFROM c\n" + "COPY --from=b a b\n" * n,
    "ports": lambda n: "FROM a\nEXPOSE" + " 1-9" * n,
    "a duration": lambda n: "FROM a\nHEALTHCHECK --interval=" + "1s" * n + " CMD x",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_twice_as_much_takes_twice_as_many_calls(shape: str) -> None:
    one, two = (calls_of(partial(attack, SHAPES[shape](n).encode())) for n in (60, 120))
    assert two <= 2.2 * one + 200
