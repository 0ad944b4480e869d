"""`TerminalRenderer`: what a person at a terminal sees: plain lines, and below them a frame that is redrawn.

The frame has a line for each transfer, where there are several, and a last line with the steps that run, what
moves in all, how fast, and how long it will take. It never has more lines than the terminal, nor longer ones.
Every change is one write, so that nothing flickers. It is built on plain ANSI sequences, so that nothing is
imported for it.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from img.amounts import human_time
from img.cli.render.plain import PlainRenderer
from img.cli.render.transfers import Board
from img.progress import Event, StepDone, StepStarted, Transfer

_PERIOD = 0.1
_MOST_TRANSFERS = 6
_FORMS = ((40, False), (20, False), (20, True), (12, True), (6, True), (0, True))
"""How long titles may be in the last line, and whether transfers are told in few words: the widest first."""
_USUAL_SIZE = (80, 24)

_TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[K", "\x1b[J"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_WIDE = frozenset("WF")
"""What Unicode calls characters that take two columns."""


class TerminalRenderer(PlainRenderer):
    """The plain lines, and below them the frame. Use it in a `with` block."""

    def __init__(
        self,
        out: TextIO,
        *,
        debug: bool = False,
        colour: bool = True,
        clock: Callable[[], float] = time.monotonic,
        size: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """Writes to a terminal.

        Args:
            colour: The frame is dim.
            clock: Gives seconds.
            size: Gives columns and lines; by default those of the terminal.
        """
        super().__init__(io.StringIO(), debug=debug, clock=clock)
        self._lines = self._out  # what `PlainRenderer` writes, until it is written to the terminal
        self._terminal = out
        self._size = size or self._ask_size
        self._marks = (_DIM, _PLAIN) if colour else ("", "")
        self._running: dict[int, tuple[str, float]] = {}
        self._frame: list[str] = []
        self._over = threading.Event()
        self._drawer = threading.Thread(target=self._draw_regularly, daemon=True)
        self._started = False

    def __enter__(self) -> TerminalRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._drawer.ident is not None:
            self._drawer.join()
        with self._lock:
            self._running.clear()
            self._boards.clear()
            self._draw()

    def __call__(self, event: Event) -> None:
        """Shows one event above the frame; one of a transfer, when the frame is drawn the next time."""
        with self._lock:
            if isinstance(event, StepStarted):
                self._running[event.step] = (event.title, self._clock())
            elif isinstance(event, StepDone):
                self._running.pop(event.step, None)
            self._show(event)
            self._draw(above=self._taken())
            # The thread starts with the first event of a step: the namespace is entered by then.
            if not self._started and isinstance(event, (StepStarted, Transfer)):
                self._started = True
                self._drawer.start()

    def _transfer(self, event: Transfer) -> None:
        if self._debug:
            super()._transfer(event)
        else:
            self._track(event)

    def _taken(self) -> str:
        """The plain lines that were written since the last time."""
        assert isinstance(self._lines, io.StringIO)
        text = self._lines.getvalue()
        if text:
            self._lines.seek(0)
            self._lines.truncate()
        return text

    # ---- the frame ---------------------------------------------------------------------------

    def _draw_regularly(self) -> None:
        while not self._over.wait(_PERIOD):
            with self._lock:
                self.draw()

    def draw(self) -> None:
        """Draws the frame anew, where it has changed."""
        if not self._line_open:
            frame = self._lines_now()
            if frame != self._frame:
                self._write_frame("", frame)

    def _draw(self, above: str | None = None) -> None:
        """Writes plain lines above the frame, and the frame below them; without any, ends the frame."""
        if above is None:
            self._write_frame("", [])
        elif above:
            self._write_frame(above, [] if self._line_open else self._lines_now())

    def _write_frame(self, above: str, frame: list[str]) -> None:
        text = []
        if self._frame:
            up = len(self._frame) - 1
            text.append("\r" + (f"\x1b[{up}A" if up else ""))
            if above or not frame:
                text.append(_TO_END_OF_SCREEN)
        text.append(above)
        if frame:
            on, off = self._marks
            text.append("\n".join(f"{on}{line}{off}{_TO_END_OF_LINE}" for line in frame))
            if len(self._frame) > len(frame):
                text.append(_TO_END_OF_SCREEN)
        self._frame = frame
        if written := "".join(text):
            self._terminal.write(written)
            self._terminal.flush()

    def _lines_now(self) -> list[str]:
        """What the frame has now, within the terminal."""
        columns, height = self._size()
        now = self._clock()
        # A terminal may wrap a line that fills it, and writes ^C behind it.
        width = max(1, columns - 3)
        lines: list[str] = []
        boards = [(action, board) for action, board in sorted(self._boards.items()) if board.moving]
        for action, board in boards:
            if len(board.moving) > 1:
                lines += board.lines(action, min(_MOST_TRANSFERS, height - 2 - len(lines)), width)
        if self._running or boards:
            lines.append(self._summary(boards, now, width))
        return [fitted(line, width) for line in lines]

    def _summary(self, boards: Sequence[tuple[str, Board]], now: float, width: int) -> str:
        """The last line, in as many words as there is room for."""
        line = ""
        for title_width, brief in _FORMS:
            parts = [
                f"{fitted(title, title_width)} {human_time(now - since)}"
                for title, since in self._running.values()
                if title_width or not boards
            ]
            parts += [board.line(action, brief=brief) for action, board in boards]
            line = f"[{' | '.join(parts)}]"
            if columns_of(line) <= width:
                break
        return line

    def _ask_size(self) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(self._terminal.fileno())
        except (OSError, ValueError):
            return _USUAL_SIZE
        return (columns, lines) if columns and lines else _USUAL_SIZE


def columns_of(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 1 + (east_asian_width(c) in _WIDE) for c in text)


def fitted(text: str, width: int) -> str:
    """A text in one line of at most `width` columns, without anything that a terminal would obey."""
    flat = " ".join(text.split())
    if not flat.isprintable():
        flat = "".join(c if c.isprintable() else "?" for c in flat)
    if columns_of(flat) <= width or not width:
        return flat if width else ""
    kept, room = "", width - 1
    for character in flat:
        room -= columns_of(character)
        if room < 0:
            break
        kept += character
    return f"{kept}…"
