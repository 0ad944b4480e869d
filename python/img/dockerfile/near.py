"""`near`: the one name out of several that somebody may have meant.

Called where a name of a Dockerfile is not known, to end the message with "did you mean …?".
"""

from __future__ import annotations

from collections.abc import Iterable


def near(word: str, choices: Iterable[str]) -> str | None:
    """Finds the choice most like `word`, whatever the case of its letters.

    Args:
        word: What was written.
        choices: What would have been valid.
    Returns:
        A choice as given, or None where none is like the word.
    """
    from difflib import get_close_matches  # only a mistake pays for this import

    known = {choice.casefold(): choice for choice in choices}
    found = get_close_matches(word.casefold(), known, n=1, cutoff=0.6)
    return known[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str], *, mark: str = "") -> str:
    """The hint `did you mean X?`, or an empty one. `mark` is written before X."""
    found = near(word, choices)
    return f"did you mean {mark}{found}?" if found else ""
