"""`TerminalRenderer`: what a person at a terminal sees: steps with times, and one live status line.

Output of steps scrolls by as plain text; the last line is redrawn with what is running and what
moves. It is built on plain ANSI sequences, so that nothing is imported for it.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TextIO

from img.cli.common import human_size
from img.cli.render.plain import PlainRenderer
from img.progress import Event, StepDone, StepStarted, Transfer

_CLEAR = "\r\x1b[K"
_PERIOD = 0.1


class TerminalRenderer(PlainRenderer):
    """The plain lines, and below them a status line."""

    def __init__(self, out: TextIO, *, debug: bool = False) -> None:
        """Writes to a terminal."""
        super().__init__(out, debug=debug)
        self._running: dict[int, tuple[str, float]] = {}
        self._moving: dict[tuple[str, str], Transfer] = {}
        self._status = False
        self._over = threading.Event()
        self._drawer = threading.Thread(target=self._draw_regularly, daemon=True)
        self._started = False

    def __enter__(self) -> TerminalRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._started:
            self._drawer.join()
        with self._lock:
            self._erase()
            self._out.flush()

    def __call__(self, event: Event) -> None:
        """Shows one event above the status line."""
        with self._lock:
            self._erase()
            self._track(event)
            self._show(event)
            self._out.flush()
            # The thread starts with the first event of a step: the namespace is entered by then.
            if not self._started and isinstance(event, (StepStarted, Transfer)):
                self._started = True
                self._drawer.start()

    def _track(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._running[event.step] = (event.title, time.monotonic())
        elif isinstance(event, StepDone):
            self._running.pop(event.step, None)
        elif isinstance(event, Transfer):
            key = (event.action, event.digest)
            if event.done_bytes == event.total_bytes:
                self._moving.pop(key, None)
            else:
                self._moving[key] = event

    def _draw_regularly(self) -> None:
        while not self._over.wait(_PERIOD):
            with self._lock:
                if not self._line_open:
                    self._erase()
                    self._draw()
                    self._out.flush()

    def _erase(self) -> None:
        if self._status:
            self._out.write(_CLEAR)
            self._status = False

    def _draw(self) -> None:
        parts = [f"{title[:40]} {time.monotonic() - since:.1f}s" for title, since in self._running.values()]
        for action in sorted({action for action, _ in self._moving}):
            transfers = [t for (a, _), t in self._moving.items() if a == action]
            done = sum(t.done_bytes for t in transfers)
            total = sum(t.total_bytes for t in transfers)
            of_all = f"/{human_size(total)}" if all(t.total_bytes for t in transfers) else ""
            parts.append(f"{action} {human_size(done)}{of_all}")
        if parts:
            self._out.write(f"\x1b[2m[{' | '.join(parts)}]\x1b[0m"[:200])
            self._status = True
