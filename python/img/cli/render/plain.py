"""`PlainRenderer`: the first img's output: a step, `--->`, what it prints, `<---` and how it ended.

Steps that run at the same time are not mixed up: the first to begin is shown live, the others are
held back until it has ended, then follow in the order of their beginning. A transfer that takes long has a
line every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

from img.cli.render.transfers import Board, transferred_line
from img.progress import (
    BuildStarted,
    Event,
    Note,
    StepDone,
    StepExplained,
    StepOutput,
    StepStarted,
    Transfer,
    Transferred,
    Transferring,
    Warned,
)

TOLD_EVERY_SECONDS = 10.0
"""How often a transfer that takes long is told of."""


class PlainRenderer:
    """Writes plain lines; safe for several threads."""

    def __init__(
        self, out: TextIO, *, debug: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Writes to `out`; `debug` shows notes for debugging as well."""
        self._clock = clock
        self._boards: dict[str, Board] = {}
        self._told = 0.0
        self._out = out
        self._debug = debug
        self._lock = threading.Lock()
        self._order: list[int] = []
        self._held: dict[int, list[str]] = {}
        self._ended: set[int] = set()
        self._explained: dict[int, str] = {}
        self._line_open = False

    def __call__(self, event: Event) -> None:
        """Shows one event."""
        with self._lock:
            self._show(event)
            self._out.flush()

    def _show(self, event: Event) -> None:
        if isinstance(event, BuildStarted):
            self._write(f"Building {event.name or 'an image'}...\n")
            self._write("Setting up the rootfs... this may take a bit.\n")
        elif isinstance(event, StepStarted):
            why = f" ({event.why})" if event.why else ""
            self._begin(event.step, f"{event.title}{why}\n--->\n{self._explained.pop(event.step, '')}")
        elif isinstance(event, StepExplained):
            self._explain(event)
        elif isinstance(event, StepOutput):
            self._put(event.step, event.text)
        elif isinstance(event, StepDone):
            self._end(event)
        elif isinstance(event, Warned):
            self._warn(event)
        elif isinstance(event, Note) and (self._debug or event.level != "debug"):
            self._write(event.text + "\n" if event.level == "info" else f"{event.level}: {event.text}\n")
        elif isinstance(event, Transferring):
            self._board(event.action).announce(event, self._clock())
        elif isinstance(event, Transferred):
            self._board(event.action).close(event)
            self._write(transferred_line(event) + "\n")
        elif isinstance(event, Transfer):
            self._transfer(event)

    def _transfer(self, event: Transfer) -> None:
        """Says now and then where a long transfer stands, between the lines of others."""
        if self._debug and event.done_bytes == event.total_bytes:
            self._write(f"debug: {event.action} {event.digest} {event.total_bytes} bytes\n")
        board, now = self._track(event)
        if board.moving and not self._line_open and now - max(board.since, self._told) >= TOLD_EVERY_SECONDS:
            self._told = now
            self._write(board.line(event.action) + "\n")

    def _track(self, event: Transfer) -> tuple[Board, float]:
        """Has the board of an action take an event; gives the board, and the time."""
        board, now = self._board(event.action), self._clock()
        board.take(event, now)
        return board, now

    def _board(self, action: str) -> Board:
        return self._boards.setdefault(action, Board())

    def _explain(self, event: StepExplained) -> None:
        """Keeps what is said of a step until it begins, or is found to be known."""
        from img.cli.render.explained import explained_lines  # only --explain needs it

        self._explained[event.step] = "".join(f"   {line}\n" for line in explained_lines(event))

    def _warn(self, event: Warned) -> None:
        """One block for all: a head above the first, a line for each."""
        if event.number == 1:
            self._write("1 warning found:\n" if event.total == 1 else f"{event.total} warnings found:\n")
        rule = f"{event.rule}: " if event.rule else ""
        line = f" (line {event.line})" if event.line else ""
        self._write(f" - {rule}{event.message}{line}\n")

    def _begin(self, step: int, text: str) -> None:
        self._order.append(step)
        self._put(step, text)

    def _put(self, step: int, text: str) -> None:
        """Writes a step's text now, or holds it back."""
        if self._order and self._order[0] == step:
            self._write(text)
        else:
            self._held.setdefault(step, []).append(text)

    def _end(self, event: StepDone) -> None:
        if event.step not in self._order:
            # Nothing ran. An instruction that touches no file has no line of cache to show.
            note = "Using cache\n" if event.cached and event.title.startswith(("RUN", "WORKDIR")) else ""
            self._begin(event.step, f"{event.title}\n--->\n{self._explained.pop(event.step, '')}{note}")
        elif self._order[0] == event.step and self._line_open:
            self._write("\n")
        elif self._held.get(event.step) and not self._held[event.step][-1].endswith("\n"):
            self._put(event.step, "\n")
        self._put(event.step, f"<--- {event.snapshot or '-'} {event.exit_code} {event.error or '<nil>'}\n")
        self._ended.add(event.step)
        self._advance()

    def _advance(self) -> None:
        """Once the step shown live has ended, those held back behind it follow."""
        while self._order and self._order[0] in self._ended:
            self._ended.discard(self._order.pop(0))
            if self._order:
                for text in self._held.pop(self._order[0], []):
                    self._write(text)

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._line_open = not text.endswith("\n")
