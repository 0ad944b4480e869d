"""`fault`: makes the `DockerfileError` for a mistake, pointing at the words that are wrong.

Every module of this floor reports through it, so that all errors look alike: the place, the lines
around it, a caret, what was expected, and a hint. It raises nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from img import regex
from img.dockerfile.instructions import Span
from img.errors import DockerfileError

_LONGEST_LINE = 400
_USERINFO = regex.compile(r"(https?://)([^/\s@]+)@", re.IGNORECASE)


def fault(
    span: Span, message: str, *, at: str = "", offset: int = 0, hint: str = "", also: Iterable[Span] = ()
) -> DockerfileError:
    """Makes the error for a mistake in an instruction.

    Args:
        span: The instruction.
        message: What is wrong, in one clause.
        at: The text that is wrong: the caret goes under its first occurrence, a word of its own
            before a part of one. Without it, or where it spans a line end, the instruction's first
            line is marked.
        offset: Characters into `at` where the caret belongs.
        hint: What to write instead.
        also: Other instructions that have a part in it.
    """
    lines = span.text.split("\n")
    row, column = _locate(lines, at)
    column += offset if column else 0
    excerpt, column = _shortened(lines[row], column)
    return DockerfileError(
        spelled(message),
        path=span.path,
        line=span.start + row,
        column=column,
        excerpt=printable(excerpt),
        hint=spelled(hint),
        before=printable(_shortened(lines[row - 1], 0)[0]) if row else "",
        after=printable(_shortened(lines[row + 1], 0)[0]) if row + 1 < len(lines) else "",
        also=tuple(f"{other.where}: {printable(other.text.split(chr(10))[0])}" for other in also),
    )


def shown(span: Span, at: str) -> str:
    """The line of an instruction that a word stands in, numbered, with a caret below the word."""
    return str(fault(span, "", at=at)).partition("\n")[2]


def spelled(text: str) -> str:
    r"""Spells out what no terminal should be given, as in `\xa0`, for a message that quotes it."""
    text = without_passwords(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def printable(text: str) -> str:
    """Replaces what no terminal should be given, each character by one, in a line that is shown.

    Bytes that were not UTF-8 and characters that move the cursor or change the direction of text
    become U+FFFD; tabs and line ends stay. Nor is a password of a URL shown.
    """
    text = without_passwords(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\t\n" else "\ufffd" for char in text)


def without_passwords(text: str) -> str:
    """Stars in the place of what a URL in a text carries before its host; no column moves."""
    return _USERINFO.sub(lambda found: found.group(1) + "*" * len(found.group(2)) + "@", text)


def _locate(lines: list[str], at: str) -> tuple[int, int]:
    """The index of the line that `at` stands in, and its column from 1; 0 where it stands in none."""
    if at:
        word = re.compile(rf"(?<!\S){re.escape(at)}(?!\S)")
        for row, line in enumerate(lines):
            found = word.search(line) if at in line else None
            if found:
                return row, found.start() + 1
        for row, line in enumerate(lines):
            position = line.find(at)
            if position >= 0:
                return row, position + 1
    return 0, 0


def _shortened(line: str, column: int) -> tuple[str, int]:
    """A line that is too long to be shown, cut around the column, and the column in what is left."""
    if len(line) <= _LONGEST_LINE:
        return line, column
    start = max(0, column - _LONGEST_LINE // 2)
    cut = line[start : start + _LONGEST_LINE]
    front, back = "…" if start else "", "…" if start + _LONGEST_LINE < len(line) else ""
    return front + cut + back, column - start + len(front) if column else 0
