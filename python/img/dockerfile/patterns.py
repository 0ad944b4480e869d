"""`trim` and `replace`: the shell patterns of `${name#…}`, `${name%…}` and `${name/…}`.

A pattern has `*` and `?`, which do not match a line's end, and a backslash before either, before
itself, `}` or `/` makes it plain. Matching takes time in proportion to the text, whatever the pattern:
all ways to match are followed at once, one bit each.
Source: POSIX shell, sections 2.6.2 and 2.13, without bracket expressions.
"""

from __future__ import annotations

from collections.abc import Iterator


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
    pattern = _Pattern(glob[longest:])
    if side == "%":
        pattern, value = pattern.reversed(), value[::-1]
    ends = pattern.ends(value, 0, pattern.steps(value))
    end = max(ends, default=0) if longest else next(ends, 0)
    return value[end:] if side == "#" else value[end:][::-1]


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
    pattern = _Pattern(glob)
    steps = pattern.steps(value)
    pieces: list[str] = []
    done, earliest = 0, 0
    for start in pattern.starts(value):
        if start < earliest:
            continue
        end = max(pattern.ends(value, start, steps))
        if end == start == done and pieces:
            continue  # nothing, right behind a match, is no match of its own
        pieces += (value[done:start], replacement)
        done, earliest = end, max(end, start + 1)
        if len(pieces) == 2 * count:
            break
    return "".join(pieces) + value[done:]


class _Pattern:
    """A pattern as an automaton whose state is how many of its characters have matched.

    Attributes:
        chars: Its characters, stars left out; None is a question mark.
        stars: Bit n: a star stands before character n (or at the end).
    """

    def __init__(self, glob: str) -> None:
        self.chars: list[str | None] = []
        self.stars = 0
        position = 0
        while position < len(glob):
            char = glob[position]
            if char == "\\":
                position += 1
                char = glob[position : position + 1]
                if not char or char not in "*?\\}/":
                    raise ValueError(f"a pattern cannot hold the escape \\{char}")
                self.chars.append(char)
            elif char == "*":
                self.stars |= 1 << len(self.chars)
            else:
                self.chars.append(None if char == "?" else char)
            position += 1

    def reversed(self) -> _Pattern:
        """The pattern that matches every text backwards."""
        other = _Pattern("")
        other.chars = self.chars[::-1]
        last = len(self.chars)
        other.stars = sum(1 << (last - n) for n in range(last + 1) if self.stars >> n & 1)
        return other

    def ends(self, text: str, start: int, steps: dict[str, int]) -> Iterator[int]:
        """Every position at which a match that begins at `start` may end, in order."""
        accept, states = 1 << len(self.chars), 1
        position = start
        while states:
            if states & accept:
                yield position
            if position == len(text):
                return
            states = self._step(states, steps, text[position])
            position += 1

    def starts(self, text: str) -> list[int]:
        """Every position at which a match begins, in order."""
        backwards = self.reversed()
        accept, steps = 1 << len(self.chars), backwards.steps(text)
        states, found = 1, []
        for position in range(len(text), -1, -1):
            if states & accept:
                found.append(position)
            if position:
                states = backwards._step(states, steps, text[position - 1]) | 1
        return found[::-1]

    def steps(self, text: str) -> dict[str, int]:
        """For each character, the bits of the states that it leads on from."""
        unknown = sum(1 << n for n, char in enumerate(self.chars) if char is None)
        steps = dict.fromkeys(text, unknown)
        for n, char in enumerate(self.chars):
            if char is not None and char in steps:
                steps[char] |= 1 << n
        if "\n" in steps:
            steps["\n"] &= ~unknown
        return steps

    def _step(self, states: int, steps: dict[str, int], char: str) -> int:
        return (states & steps[char]) << 1 | (states & self.stars if char != "\n" else 0)
