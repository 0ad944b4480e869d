"""The name that somebody may have meant."""

from __future__ import annotations

import pytest
from img.dockerfile import near


@pytest.mark.parametrize(
    ("word", "meant"), [("COPPY", "COPY"), ("env", "ENV"), ("wrokdir", "WORKDIR"), ("zzzz", None), ("", None)]
)
def test_the_nearest_choice_is_given_in_its_own_spelling(word: str, meant: str | None) -> None:
    assert near(word, ["COPY", "ENV", "WORKDIR"]) == meant
