"""`img logs`: what the steps of a build wrote, byte by byte; of a build that is running, as it comes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from img.cli import clicks as click
from img.cli.common import find_globals, show_warnings, verb

if TYPE_CHECKING:
    from img.store import BuildRow, BuildStore
    from img.store.build_record import BuildRecord, StepRecord

_PERIOD = 0.1
"""Seconds between two looks at a build that is running."""


@verb(
    "logs",
    short="Show what the steps of a build wrote.",
    example="img logs\nimg logs me/app 'npm install'\nimg logs ^1 Dockerfile:12\nimg logs -f",
)
@click.argument("words", nargs=-1, metavar="[BUILD] [STEP]")
@click.option("-f", "-follow", "--follow", is_flag=True, help="Wait for more while the build is running.")
def logs_command(words: tuple[str, ...], follow: bool) -> None:
    """Show what the steps of a build wrote, whole and as they wrote it.

    BUILD is an ID or its beginning, the name of an image, or ^N for the Nth before the newest; without
    it, the newest. STEP is a number as img history inspect shows it, Dockerfile:LINE or :LINE, or a part
    of the instruction's text; without it, all steps, each under a head. One word that is no build is a
    step of the newest build.
    """
    from img.engine import Engine

    if len(words) > 2:
        raise click.UsageError("img logs takes a BUILD and a STEP; quote a text that has blanks.")
    with Engine(find_globals().settings(), show_warnings) as engine:
        builds = engine.store.builds
        row, step = _named(builds, words)
        show = _Shower(builds, row.id, step, sys.stdout.buffer)
        if not (show.follow() if follow else show.all()):
            what = f"step {step!r}" if step else "no step"
            print(f"{what} of build {row.id} wrote {'nothing' if step else 'anything'}", file=sys.stderr)


def _named(builds: BuildStore, words: Sequence[str]) -> tuple[BuildRow, str]:
    """The build and the step that one or two words name."""
    if len(words) == 2:
        return builds.find(words[0]), words[1]
    if not words:
        return builds.find(), ""
    row = builds.match(words[0])
    if row is not None:
        return row, ""
    newest = builds.find()
    if words[0].startswith("^"):
        builds.find(words[0])
    return newest, words[0]


class _Shower:
    """Writes the logs of one build."""

    def __init__(self, builds: BuildStore, build: str, step: str, out: BinaryIO) -> None:
        """`step` names what is shown; empty for all."""
        self._builds = builds
        self._build = build
        self._step = step
        self._out = out
        self._last = b"\n"

    def all(self) -> bool:
        """Shows what there is; tells whether that was anything."""
        record, _ = self._look()
        steps = [step for step in self._chosen(record) if step.log_bytes]
        for step in steps:
            self._head(record, step)
            self._copy(step, 0)
        return bool(steps)

    def follow(self) -> bool:
        """Shows one step after the other, in the order of their beginning, until the build is over."""
        seen: set[int] = set()
        any_bytes = False
        while True:
            record, over = self._look()
            chosen = self._chosen(record) if record.steps or over else ()
            for step in sorted(chosen, key=lambda step: step.started or 0.0):
                if step.started is not None and step.number not in seen:
                    seen.add(step.number)
                    any_bytes |= self._follow_step(record, step)
            if over:
                return any_bytes
            self._out.flush()
            time.sleep(_PERIOD)

    def _follow_step(self, record: BuildRecord, step: StepRecord) -> bool:
        """Shows one step until it is over; its head comes with its first bytes."""
        number, position = step.number, 0
        while True:
            now, over = self._look()
            step = next((s for s in now.steps if s.number == number), step)
            if self._builds.log_path(self._build, number).exists():
                if not position:
                    self._head(record, step)
                position = self._copy(step, position)
            if over or step.status != "running":
                return position > 0
            self._out.flush()
            time.sleep(_PERIOD)

    def _look(self) -> tuple[BuildRecord, bool]:
        """The record as it is now, and whether its build is over."""
        row = self._builds.find(self._build)
        return self._builds.record(row), row.status != "running"

    def _chosen(self, record: BuildRecord) -> Sequence[StepRecord]:
        return record.find_steps(self._step) if self._step else record.steps

    def _head(self, record: BuildRecord, step: StepRecord) -> None:
        """A line above a step's log, where several may be shown: one that was asked for comes bare."""
        if len(self._chosen(record)) == 1 and self._step:
            return
        self._out.write(b"" if self._last.endswith(b"\n") else b"\n")
        self._out.write(f"#{step.number} {step.where} {step.title}\n".encode("utf-8", "surrogateescape"))

    def _copy(self, step: StepRecord, position: int) -> int:
        """Writes a log from a position on; gives the position of its end."""
        with self._builds.log_path(self._build, step.number).open("rb") as log:
            log.seek(position)
            shutil.copyfileobj(log, self._out, 1 << 20)
            end = log.tell()
            if end > position:
                log.seek(end - 1)
                self._last = log.read(1)
        return end
