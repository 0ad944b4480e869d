"""`fault`: makes the `DockerfileError` for a mistake, pointing at the words that are wrong.

Every module of this floor reports through it, so that all errors look alike. It raises nothing itself.
"""

from __future__ import annotations

import re

from img.dockerfile.instructions import Span
from img.errors import DockerfileError

_UNPRINTABLE = re.compile("[\ud800-\udfff]")
_USERINFO = re.compile(r"(https?://)([^/\s@]+)@", re.IGNORECASE)


def fault(span: Span, message: str, *, at: str = "", offset: int = 0, hint: str = "") -> DockerfileError:
    """Makes the error for a mistake in an instruction.

    Args:
        span: The instruction.
        message: What is wrong, in one clause.
        at: The text that is wrong: the caret goes under its first occurrence. Without it, or where
            it spans a line end, the instruction's first line is marked.
        offset: Characters into `at` where the caret belongs.
        hint: What to write instead.
    """
    line, column, excerpt = _locate(span, at, offset)
    return DockerfileError(
        printable(message),
        path=span.path,
        line=line,
        column=column,
        excerpt=printable(excerpt),
        hint=printable(hint),
    )


def printable(text: str) -> str:
    """A text as a message may have it: no bytes that were not UTF-8, and no password of a URL."""
    return without_passwords(_UNPRINTABLE.sub("\ufffd", text))


def without_passwords(text: str) -> str:
    """Stars in the place of what a URL in a text carries before its host; no column moves."""
    return _USERINFO.sub(lambda found: found.group(1) + "*" * len(found.group(2)) + "@", text)


def _locate(span: Span, at: str, offset: int) -> tuple[int, int, str]:
    lines = span.text.split("\n")
    if at:
        for number, line in enumerate(lines):
            position = _find(line, at)
            if position >= 0:
                return span.start + number, position + offset + 1, line
    return span.start, 0, lines[0]


def _find(line: str, text: str) -> int:
    """Where `text` stands in the line as a word of its own, else where it stands at all."""
    position = line.find(text)
    if position < 0:
        return -1
    found = re.search(rf"(?<!\S){re.escape(text)}(?!\S)", line)
    return found.start() if found else position
