"""`Veil`: puts stars in the place of secrets in what a step writes, before anybody sees or keeps it.

`perform.run` passes a RUN's output through one where the RUN has secrets. A log lies on disk and an error
goes to CI's web page, and neither may hold a secret that a program was told to print (`set -x`, say). Only
the value itself is known: what a program makes of it (base64, a hash) passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORTEST = 4
"""Bytes of a value that is veiled. A shorter one is found in anybody's words, and is no secret."""
_SHORTEST_LINE = 8
"""Bytes of one line of a value with several, which is veiled on its own, too: a key file printed in part."""
_MOST_LINES = 100
"""Lines that a value may have for that: each is looked for in all that the step writes."""
_STARS = b"***"


class Veil:
    """The output of one step, piece by piece; not safe for several threads."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        """Takes the values; a line end at the end of one is no part of it."""
        words: set[bytes] = set()
        for secret in secrets:
            whole = secret.strip(b"\r\n")
            lines = whole.splitlines()
            lines = lines if 1 < len(lines) <= _MOST_LINES else []
            words |= {word for word in [whole] if len(word) >= SHORTEST}
            words |= {line for line in lines if len(line) >= _SHORTEST_LINE}
        # Where two begin at one place, the longer is taken.
        self._words = sorted(words, key=lambda word: (-len(word), word))
        self._pattern = re.compile(b"|".join(map(re.escape, self._words))) if words else None
        self._held = b""

    def __call__(self, piece: bytes) -> bytes:
        """Veils a piece; holds back its end where a secret may begin there."""
        if self._pattern is None:
            return piece
        text = self._held + piece
        shown: list[bytes] = []
        position = 0
        # Most pieces hold none, and looking for a word is many times faster than matching a pattern.
        if any(word in text for word in self._words):
            for found in self._pattern.finditer(text):
                if found.start() >= self._clear(text, position):
                    break  # it may be the end of a longer one, or part of it
                shown += (text[position : found.start()], _STARS)
                position = found.end()
        clear = self._clear(text, position)
        self._held = text[clear:]
        return b"".join((*shown, text[position:clear]))

    def rest(self) -> bytes:
        """What was held back, once there is no more to come."""
        held, self._held = self._held, b""
        return self._pattern.sub(_STARS, held) if self._pattern is not None else held

    def _clear(self, text: bytes, position: int) -> int:
        """Where what may yet become a secret begins, from `position` on; the end where nothing may."""
        clear = len(text)
        for word in self._words:
            begin = max(position, len(text) - len(word) + 1)
            while (begin := text.find(word[:1], begin, clear)) >= 0:
                if word.startswith(text[begin:]):
                    clear = begin
                    break
                begin += 1
        return clear
