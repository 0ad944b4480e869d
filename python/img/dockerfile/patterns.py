"""`trim` and `replace`: the shell patterns of `${name#…}`, `${name%…}` and `${name/…}`.

A pattern has `*` and `?`, and a backslash before either, before itself, `}` or `/` makes it plain.
Source: POSIX shell, sections 2.6.2 and 2.13, without bracket expressions.
"""

from __future__ import annotations

import re


def trim(value: str, side: str, glob: str) -> str:
    """Takes what a pattern matches off one end.

    Args:
        value: The text.
        side: `#` for the front, `%` for the end.
        glob: The pattern for the shortest match; `side` before it asks for the longest.
    Raises:
        ValueError: the pattern has an escape that means nothing.
    """
    longest = glob.startswith(side)
    pattern = _expression(glob[longest:], "*" if longest else "*?")
    if side == "#":
        match = pattern.match(value)
        return value[match.end() :] if match else value
    ends = range(len(value) + 1) if longest else range(len(value), -1, -1)
    for end in ends:
        if pattern.fullmatch(value, end):
            return value[:end]
    return value


def replace(value: str, glob: str, replacement: str, *, count: int) -> str:
    """Replaces the longest matches of a pattern, from the left.

    Args:
        value: The text.
        glob: The pattern.
        replacement: Plain text; nothing in it is special.
        count: How many matches; 0 for all.
    Raises:
        ValueError: the pattern has an escape that means nothing.
    """
    return _expression(glob, "*").sub(lambda _: replacement, value, count=count)


def _expression(glob: str, star: str) -> re.Pattern[str]:
    """The regular expression of a pattern. `star`: `*` greedy, `*?` lazy."""
    expression = ""
    position = 0
    while position < len(glob):
        char = glob[position]
        position += 1
        if char == "\\":
            escaped = glob[position : position + 1]
            if not escaped or escaped not in "*?\\}/":
                raise ValueError(f"a pattern cannot hold the escape \\{escaped}")
            expression += re.escape(escaped)
            position += 1
        elif char == "*":
            expression += "." + star
        else:
            expression += "." if char == "?" else re.escape(char)
    return re.compile(expression)
