"""What was measured, kept: `Results` in a JSON file, a `Sitting` for each time that a row was run.

Rows and peers are measured at different times, and a ratio counts within one sitting only. So a sitting
is kept whole, with its date, command and machine; a later one takes over what it measured again. The table
that people read is `benches.report`'s.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
REFERENCE = "img"
"""Who the others are compared with; it takes part in every sitting."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one contestant took in a sitting.

    Attributes:
        limit: Not a peer, but what the machine can do.
        identity: `root` or `user`.
        memory_bytes: Peak of the process tree; 0: not weighed.
        stored_bytes: What a push left in its registry, or a limit in its file; 0: not asked.
        problem: Why there are no figures; empty: there are.
    """

    name: str
    limit: bool
    identity: str
    version: str
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    memory_bytes: int
    stored_bytes: int
    problem: str

    @property
    def median_seconds(self) -> float:
        """By the clock; nan where there is none."""
        return statistics.median(self.seconds) if self.seconds else float("nan")

    @property
    def median_cpu_seconds(self) -> float:
        """User and system time; nan where there is none."""
        return statistics.median(self.cpu_seconds) if self.cpu_seconds else float("nan")


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """One row, run once with some contestants in turns.

    Attributes:
        fresh: Each run had a new file system.
        load: How many processes the machine ran or had waiting before it began, as a mean of a minute.
        figures: By contestant.
    """

    row: str
    date: str
    command: str
    machine: str
    scale: float
    fresh: bool
    load: float
    figures: dict[str, Figures]

    def ratio(self, name: str) -> float:
        """A contestant's median by the reference's; nan where one is missing."""
        ours, theirs = self.figures.get(REFERENCE), self.figures.get(name)
        if ours is None or theirs is None:
            return float("nan")
        return theirs.median_seconds / ours.median_seconds


@dataclass(frozen=True, kw_only=True)
class Results:
    """All sittings that still count, oldest first."""

    sittings: tuple[Sitting, ...] = ()

    def with_sitting(self, new: Sitting) -> Results:
        """Adds one. What it measured counts no more in earlier ones of the row; the reference stays beside
        whoever was measured with it."""
        kept = []
        for old in self.sittings:
            if old.row == new.row:
                left = {
                    name: one
                    for name, one in old.figures.items()
                    if name not in new.figures or name == REFERENCE
                }
                if not left.keys() - {REFERENCE}:
                    continue
                old = dataclasses.replace(old, figures=left)
            kept.append(old)
        return Results(sittings=(*kept, new))

    def of_row(self, row: str) -> tuple[Sitting, ...]:
        """The sittings of a row, the latest first."""
        return tuple(sitting for sitting in reversed(self.sittings) if sitting.row == row)


def load(path: Path) -> Results:
    """Reads a file; a missing one is empty.

    Raises:
        ValueError: it has another format.
    """
    if not path.exists():
        return Results()
    document = json.loads(path.read_text())
    if document.get("format") != FORMAT:
        raise ValueError(f"{path} has format {document.get('format')}, not {FORMAT}: measure again")
    return Results(
        sittings=tuple(
            Sitting(**{**sitting, "figures": {one["name"]: _figures(one) for one in sitting["figures"]}})
            for sitting in document["sittings"]
        )
    )


def _figures(document: dict[str, object]) -> Figures:
    return Figures(**{name: tuple(v) if isinstance(v, list) else v for name, v in document.items()})  # type: ignore[arg-type]


def save(results: Results, path: Path) -> None:
    """Writes the file, at once or not at all."""
    sittings = [
        {
            **dataclasses.asdict(sitting),
            "figures": [dataclasses.asdict(one) for one in sitting.figures.values()],
        }
        for sitting in results.sittings
    ]
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps({"format": FORMAT, "sittings": sittings}, indent=1) + "\n")
    temporary.replace(path)
