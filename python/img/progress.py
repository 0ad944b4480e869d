"""Typed events of a build or a transfer, the `Progress` that takes them, and `Meter`, which makes some.

Events leave every floor sideways through one callable; what they look like is a renderer's
business (`cli/render`). They cross a process boundary as JSON lines (`to_json`, `from_json`).
A `Progress` may be called from several threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from img.values import asdict, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The root of all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStarted(Event):
    """A build began. `name` is the first tag, or empty; `steps` counts the instructions to come."""

    name: str
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """A step that is no cache hit began.

    Attributes:
        step: Its number, from 0, in the plan's order.
        title: The line for people: `RUN [/bin/sh -c make]`.
        where: `Dockerfile:12`.
        stage: The stage's name or number.
        why: One clause that says why the cache had nothing, or empty.
    """

    step: int
    title: str
    where: str = ""
    stage: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput(Event):
    """A step's process wrote something: whole lines where it can be, text decoded leniently."""

    step: int
    text: str


ENDED = "ended before it was done"
"""`StepDone.error` of a step that did not fail itself: the end of the build ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(Event):
    """A step ended.

    Attributes:
        cached: Nothing ran; no `StepStarted` came before.
        snapshot: Identity of the step's result as `img ls` shows it; empty for one without a layer.
        exit_code: 0, or what the step's process returned.
        error: Empty, or what went wrong; `ENDED` where that was something else.
        seconds: Wall-clock time.
        size_bytes: Content bytes of the layer that it made.
        key: Digest of the cache key that was known, or of the last that it was asked for by; empty for a
            step that has none.
        why: Why the cache had nothing, as `StepStarted` has it.
    """

    step: int
    title: str
    cached: bool = False
    snapshot: str = ""
    exit_code: int = 0
    error: str = ""
    seconds: float = 0.0
    size_bytes: int = 0
    where: str = ""
    stage: str = ""
    key: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExplained(Event):
    """What a step's cache key was compared with; comes before the step begins, where that was asked for.

    Attributes:
        key: Digest of the key; of several the one that says most.
        hit: The cache had it.
        record: Key of the record that was found, or that is nearest; empty where there is none.
        created: RFC 3339 time at which that record's step ran.
        why: One clause that says why the cache had nothing, or empty.
        differences: Each with `field`, `name`, `change`, `old`, `new`, and `text` for people.
        more: Differences that are not among them.
    """

    step: int
    title: str
    where: str = ""
    stage: str = ""
    key: str = ""
    hit: bool = False
    record: str = ""
    created: str = ""
    why: str = ""
    differences: tuple[dict[str, str], ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Event):
    """A blob or a file moves, or is read. `done_bytes` of `total_bytes`; equal where it is finished.

    Attributes:
        action: `pull`, `push`, `copy`, `save`, `load`, `extract`, `compress`, `check`, `prune`, or `fetch`
            for a file of the web.
        digest: The blob, or the layer that is checked. Of a file, its URL or path; of a collection, the
            store's. Of a blob that is made, or sent while it is made, its diff ID.
        total_bytes: 0 where it is not known.
        name: The image that it is of, as people write it; empty where nobody knows.
        kind: Once it is finished, how it came to be there: `fetched`, `sent`, `written`, `read`, `removed`,
            `mounted` (from another repository of the registry), `present`; or `dropped`: it is sent anew.
            Empty on the way.
        tar_total_bytes: Of a blob that is made meanwhile, so that nobody knows its length: that of its tar,
            which is not compressed. Else 0, as where that is not known either.
        tar_done_bytes: How many of those are in `done_bytes`: the share that is done, and what tells how much
            is left.
    """

    action: str
    digest: str
    done_bytes: int
    total_bytes: int
    name: str = ""
    kind: str = ""
    tar_done_bytes: int = 0
    tar_total_bytes: int = 0

    @property
    def expected_bytes(self) -> int:
        """`total_bytes`; of a blob that is made meanwhile, what it will be if it goes on as so far; or 0."""
        if self.total_bytes or not self.tar_done_bytes:
            return self.total_bytes
        return max(self.done_bytes, self.done_bytes * self.tar_total_bytes // self.tar_done_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferring(Event):
    """Work begins of which the size is known beforehand: of a `pull`, `save`, `load` or `check`.

    `Transfer` events follow, and a `Transferred` for all but a check, which gives a report.

    Attributes:
        action: As theirs, and `name` likewise.
        blobs: How many will move, or be read; `total_bytes` is their size.
    """

    action: str
    name: str
    blobs: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred(Event):
    """All blobs of an image, or of several, are where they should be: the sum of its `Transfer` events.

    Attributes:
        action: `pull`, `push`, `copy`, `save` or `load`.
        name: The images, as people write them.
        moved: Blobs that were fetched, sent, written or read; `moved_bytes` is their size.
        mounted: Blobs that the registry took from another repository.
        present: Blobs that were there already.
        seconds: Time in which anything was under way.
    """

    action: str
    name: str
    moved: int = 0
    moved_bytes: int = 0
    mounted: int = 0
    present: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Event):
    """A line for people. `level`: `debug`, `info` or `warning`."""

    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """A check of the Dockerfile found something; comes once for each finding, after the build.

    Attributes:
        number: Which it is of `total`, from 1.
        rule: The rule's name; empty for a remark that no rule makes.
        path: The Dockerfile.
        line: From 1; 0 where it is about no line. `end_line` is the last.
        hint: How to mend it, or empty.
    """

    number: int
    total: int
    rule: str
    message: str
    path: str = ""
    line: int = 0
    end_line: int = 0
    hint: str = ""


Progress = Callable[[Event], None]
"""Takes events, from any thread; must not raise."""


def silent(event: Event) -> None:
    """A `Progress` that drops every event."""


class Meter:
    """Turns the bytes of one transfer into `Transfer` events, some ten a second. For one thread at a time."""

    _EVERY_SECONDS = 0.1

    def __init__(
        self, progress: Progress, action: str, digest: str, total_bytes: int, name: str = ""
    ) -> None:
        """Says nothing yet. The arguments are the events' fields."""
        self._progress = progress
        self._action = action
        self._digest = digest
        self._total = total_bytes
        self._name = name
        self._last = 0.0

    def at(self, done_bytes: int) -> None:
        """Says where the transfer stands, unless it was said just before."""
        now = time.monotonic()
        if now - self._last >= self._EVERY_SECONDS and (done_bytes < self._total or not self._total):
            self._last = now
            self._say(done_bytes, self._total)

    def finished(self, kind: str, total_bytes: int | None = None) -> None:
        """Says that all bytes are there, and how they came to be (`Transfer.kind`).

        Args:
            total_bytes: How many they were, where that was not known before.
        """
        total = self._total if total_bytes is None else total_bytes
        self._say(total, total, kind)

    def _say(self, done_bytes: int, total_bytes: int, kind: str = "") -> None:
        self._progress(
            Transfer(
                action=self._action,
                digest=self._digest,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
                name=self._name,
                kind=kind,
            )
        )


_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        BuildStarted,
        StepStarted,
        StepOutput,
        StepDone,
        StepExplained,
        Transfer,
        Transferring,
        Transferred,
        Note,
        Warned,
    )
}


def to_json(event: Event) -> dict[str, Any]:
    """Gives an event as plain data: `{"event": "StepDone", …}`."""
    return {"event": type(event).__name__, **asdict(event)}


def from_json(data: dict[str, Any]) -> Event:
    """Makes the event again.

    Raises:
        KeyError: the data names no event of this version.
    """
    kind = _KINDS[data["event"]]
    known = {f.name for f in fields(kind)}
    return kind(**{k: v for k, v in data.items() if k in known})
