"""`BuildRecord`: what one build left, read again: its request, its steps, what moved, how it ended.

`engine.recording` writes the document and `BuildStore` finds it. While a build runs there is a journal in
the document's place: the document as it began, then one line for each change. Nothing here touches disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from img.errors import StoreError, UsageError
from img.progress import StepExplained
from img.store.builds import VERSION, BuildStatus
from img.values import dataclass, field

StepStatus = Literal["waiting", "running", "done", "cached", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One node of the plan, and what became of it.

    Attributes:
        number: Its place in the plan, from 0; the name of its log.
        kind: `run`, `copy`, `workdir`, `config`; or `source`, `http`, `git`, `tree` for what comes in.
        text: The first line of its instruction as the Dockerfile has it; empty where the title is that.
        inputs: Numbers of the nodes that it stands on.
        status: `waiting` where it never began, `stopped` where the end of the build ended it.
        started: Seconds after the build's beginning; None where nothing ran.
        seconds: Wall-clock time.
        key: Digest of the cache key that was known, or of the last that it was asked for by; or empty.
        why: Why the cache had nothing, or empty.
        size_bytes: Content bytes of the layer that it made, or that the cache had.
        log_bytes: Length of its log.
        explained: What its key was compared with; None where it has none, or the build did not come to it.
    """

    number: int
    kind: str
    title: str
    text: str = ""
    stage: str = ""
    where: str = ""
    inputs: tuple[int, ...] = ()
    status: StepStatus = "waiting"
    started: float | None = None
    seconds: float = 0.0
    key: str = ""
    why: str = ""
    snapshot: str = ""
    size_bytes: int = 0
    exit_code: int = 0
    error: str = ""
    log_bytes: int = 0
    explained: StepExplained | None = None

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> StepRecord:
        """Reads one step of the document, which has its key and its reason beside the rest of `explained`."""
        values = {**data, "inputs": tuple(data.get("inputs", ()))}
        known = values.pop("explained", None)
        if known is not None:
            values["explained"] = StepExplained(
                **{**known, "differences": tuple(known.get("differences", ()))},
                step=data["number"],
                title=data["title"],
                where=data.get("where", ""),
                stage=data.get("stage", ""),
                key=data.get("key", ""),
                why="" if known.get("hit") else data.get("why", ""),
            )
        return cls(**values)

    @property
    def cached(self) -> bool:
        """Nothing ran for it."""
        return self.status == "cached"

    @property
    def keyless(self) -> bool:
        """The cache is never asked for it: it touches the config alone, or is what others read."""
        return self.kind == "config" or not self.shown

    @property
    def shown(self) -> bool:
        """It is an instruction, and not only what one reads."""
        return self.kind not in ("source", "http", "git", "tree")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """One build.

    Attributes:
        started: Seconds since 1970.
        request: What was asked for, by field; without any secret.
        critical_path: Numbers of the steps that the build's length came from, first to last.
        critical_seconds: The sum of their times.
        moved: By kind of transfer (`pull`, `push`, `fetch`, …): how many, and bytes.
        notes: Remarks on the way: `level` and `text`.
        warnings: What the checks found: `rule`, `message`, `path`, `line`.
        result: `digest`, `id`, `tags`, `pushed` and the rest of the `BuildResult`; empty without one.
        error: `kind`, `text` and the error's fields; empty where the build succeeded.
        data: The whole document.
    """

    id: str
    status: BuildStatus
    started: float
    seconds: float
    request: Mapping[str, Any]
    steps: tuple[StepRecord, ...] = ()
    critical_path: tuple[int, ...] = ()
    critical_seconds: float = 0.0
    moved: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: tuple[Mapping[str, str], ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BuildRecord:
        """Reads the document.

        Raises:
            StoreError: a newer `img` wrote it, or it is no such document.
        """
        version = data.get("version")
        if version != VERSION:
            raise StoreError(
                f"the record of build {data.get('id', '?')} has version {version}; this img knows {VERSION}",
                hint="use the img that wrote it, or remove it with img history rm",
            )
        try:
            steps = tuple(map(StepRecord.from_data, data["steps"]))
            path = data.get("critical_path", {})
            return cls(
                id=data["id"],
                status=data["status"],
                started=data["started"],
                seconds=data["seconds"],
                request=data["request"],
                steps=steps,
                critical_path=tuple(path.get("steps", ())),
                critical_seconds=path.get("seconds", 0.0),
                moved=data.get("moved", {}),
                notes=tuple(data.get("notes", ())),
                warnings=tuple(data.get("warnings", ())),
                result=data.get("result", {}),
                error=data.get("error", {}),
                data=data,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"the record of build {data.get('id', '?')} cannot be read: {error}") from error

    def find_steps(self, text: str) -> tuple[StepRecord, ...]:
        """The steps that a word names.

        Args:
            text: A number; `Dockerfile:LINE` or `:LINE`; or a part of the text, as it is shown or as the
                Dockerfile has it, whatever its letters' case. Empty for every instruction.
        Returns:
            Several where they stand in one line, or all hold the text.
        Raises:
            UsageError: it names none, or nothing is known of any.
        """
        _, colon, line = text.rpartition(":")
        if text.isdecimal():
            found = [step for step in self.steps if step.number == int(text)]
        elif colon and line.isdecimal():
            found = [
                step
                for step in self.steps
                if f"/{step.where}".endswith(text if text[0] == ":" else f"/{text}")
            ]
        else:
            wanted = text.casefold()
            found = [
                step
                for step in self.steps
                if step.shown and (wanted in step.title.casefold() or wanted in step.text.casefold())
            ]
        if not self.steps:
            raise UsageError(
                f"nothing is known of any step of build {self.id}",
                hint=f"img history inspect {self.id} shows how far it came",
            )
        if text and not found:
            raise UsageError(
                f"build {self.id} has no step {text!r}",
                hint=f"name one by number, Dockerfile:LINE or its text, see img history inspect {self.id}",
            )
        return tuple(found)


def read_journal(lines: Iterable[bytes]) -> dict[str, Any] | None:
    """The document that a journal stands for; None where not even its first line is whole.

    Each line is written at once, so only the last can be cut off: by a kill, or by being read too early.
    """
    document: dict[str, Any] | None = None
    steps: dict[int, dict[str, Any]] = {}
    for line in lines:
        if not line.endswith(b"\n"):
            break
        entry = json.loads(line)
        if document is None:
            document = entry
            steps = {step["number"]: step for step in entry["steps"]}
        elif entry["number"] in steps:
            steps[entry["number"]].update(entry)
    return document
