"""`Recorder`: writes the record of one build while it runs: what was planned, what came of it, every log.

`Engine.build` makes it. It is a `Progress` among others (`relay.Relay`), is told of the plan and of the end,
and takes what steps write as bytes. A build that finds all in the cache costs two rows and one small
file: folders and logs are made when there is something for them. Recording never fails a build; where it
cannot go on, the build says so once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from img.builder.graph import INPUTS, Node
from img.dockerfile.faults import without_passwords
from img.engine.requests import BuildRequest, BuildResult
from img.errors import BuildError, ImgError, StoreError, to_fields
from img.oci import Reference
from img.progress import (
    ENDED,
    Event,
    Note,
    Progress,
    StepDone,
    StepExplained,
    StepOutput,
    StepStarted,
    Transfer,
)
from img.store import BuildRow, Store, new_build_id
from img.store.builds import VERSION, dump_line
from img.version import __version__

if TYPE_CHECKING:
    from img.store.builds import BuildStatus


class Recorder:
    """The record of one build. Use it in a `with` block: how that ends is how the build ended."""

    def __init__(self, store: Store, request: BuildRequest, warn: Progress) -> None:
        """Writes nothing yet.

        Args:
            warn: Told once where the record cannot be written.
        """
        self.build = ""
        self._store = store
        self._request = request
        self._warn = warn
        self._lock = threading.Lock()
        self._since = 0.0
        self._document: dict[str, Any] = {}
        self._steps: dict[int, dict[str, Any]] = {}
        self._moved: dict[tuple[str, str], int] = {}
        self._result: BuildResult | None = None
        self._journal = -1
        self._logs: dict[int, int] = {}
        self._broken = False

    # ---- told by the engine ------------------------------------------------------------------

    def begin(self) -> str:
        """Writes the row of a build that begins; gives the build's ID."""
        request = describe(self._request)
        started = time.time()
        self._since = time.monotonic()
        self.build = new_build_id()
        self._document = {
            "version": VERSION,
            "id": self.build,
            "img": __version__,
            "status": "running",
            "started": started,
            "seconds": 0.0,
            "request": request,
            "steps": [],
            "notes": [],
        }
        row = BuildRow(
            id=self.build,
            started=started,
            seconds=0.0,
            status="running",
            lease=self._store.lease().path.name,
            names=tuple(str(Reference.parse(tag.rpartition("=")[2])) for tag in self._request.tags),
            context=request["context"],
            dockerfile=request.get("dockerfile", ""),
        )
        with self._going_on():
            self._store.builds.begin(row)
        return self.build

    def planned(self, nodes: Sequence[Node]) -> None:
        """Takes the plan: its nodes, inputs first."""
        steps = [_planned(node) for node in nodes]
        with self._lock:
            self._document["steps"] = steps
            self._steps = {step["number"]: step for step in steps}

    def done(self, result: BuildResult) -> None:
        """Takes what the build gave."""
        self._result = result

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.build:
            return
        if isinstance(error, BuildError) and not error.hint:
            error.hint = self._hint()
        status: BuildStatus = "done"
        if error is not None:
            status = "failed" if isinstance(error, Exception) else "interrupted"
        try:
            self._end(status, error)
        finally:
            self._close()

    # ---- told by the build -------------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        if isinstance(event, StepOutput) or not self.build:
            return
        with self._lock:
            if isinstance(event, Transfer):
                if event.kind == "dropped":
                    self._moved.pop((event.action, event.digest), None)
                elif event.kind not in ("present", "mounted"):
                    self._moved[event.action, event.digest] = event.done_bytes
            elif isinstance(event, StepStarted):
                started = round(time.monotonic() - self._since, 6)
                self._change(event.step, status="running", started=started, why=event.why)
            elif isinstance(event, StepDone):
                self._step_done(event)
            elif isinstance(event, Note) and event.level != "debug":
                self._document["notes"].append({"level": event.level, "text": event.text})

    def write(self, step: int, piece: bytes) -> None:
        """Adds to a step's log what its process wrote; one thread for each step. Never raises."""
        if self._broken or not self.build:
            return
        with self._going_on():
            log = self._logs.get(step)
            if log is None:
                path = self._store.builds.log_path(self.build, step)
                with self._lock:
                    self._open_journal()
                log = self._logs[step] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while piece:
                piece = piece[os.write(log, piece) :]

    def explained(self, event: StepExplained) -> None:
        """Takes what a step's key was compared with; comes before the step begins. Never raises."""
        names = ("record", "created", "differences", "more")
        said = {name: value for name in names if (value := getattr(event, name))}
        with self._lock:
            self._change(event.step, key=event.key, why=event.why, explained={"hit": event.hit, **said})

    # ---- writing -----------------------------------------------------------------------------

    def _step_done(self, event: StepDone) -> None:
        step = self._steps.get(event.step, {})
        status = "cached" if event.cached else "done"
        if event.error or event.exit_code:
            status = "stopped" if event.error == ENDED else "failed"
        seconds = event.seconds
        if not seconds and "started" in step:
            seconds = time.monotonic() - self._since - step["started"]
        self._change(
            event.step,
            status=status,
            seconds=round(seconds, 6),
            key=event.key,
            why=event.why or step.get("why", ""),
            snapshot=event.snapshot,
            size_bytes=event.size_bytes,
            exit_code=event.exit_code,
            error=event.error,
            log_bytes=self._close_log(event.step),
        )

    def _change(self, number: int, **changes: Any) -> None:
        """Changes a step; in the journal as well, from the first step on that runs."""
        step = self._steps.get(number)
        if step is None:
            return
        changes = {name: value for name, value in changes.items() if value}
        step.update(changes)
        if step["status"] == "running" or self._journal >= 0:
            with self._going_on():
                if not self._open_journal():
                    _write(self._journal, {"number": number, **changes})

    def _open_journal(self) -> bool:
        """Opens the journal with all that is known so far; tells whether that was only now."""
        if self._journal >= 0 or self._broken:
            return self._broken
        folder = self._store.builds.folder(self.build)
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._journal = os.open(folder / "journal", flags, 0o600)
        _write(self._journal, self._document)
        return True

    def _close_log(self, step: int) -> int:
        """Closes a step's log; gives its length in bytes."""
        log = self._logs.pop(step, None)
        if log is None:
            return 0
        try:
            return os.fstat(log).st_size
        finally:
            os.close(log)

    def _end(self, status: BuildStatus, error: BaseException | None) -> None:
        with self._lock, self._going_on():
            now = time.monotonic() - self._since
            for number, step in self._steps.items():
                if step["status"] == "running":
                    step["status"] = "stopped"
                    step["seconds"] = round(now - step["started"], 6)
                    step["log_bytes"] = self._close_log(number)
            path, seconds = critical_path(self._document["steps"])
            self._document.update(
                status=status,
                seconds=round(now, 6),
                critical_path={"steps": path, "seconds": round(seconds, 6)},
                moved=_totals(self._moved),
                **_outcome(self._result, error),
            )
            shown = [step for step in self._document["steps"] if step["kind"] not in _INPUT_KINDS]
            self._store.builds.end(
                self.build,
                self._document,
                image=self._result.digest if self._result else "",
                steps=len(shown),
                cached=sum(1 for step in shown if step["status"] == "cached"),
            )

    def _hint(self) -> str:
        """Where the whole log of the step that failed is."""
        for number, step in self._steps.items():
            if step["status"] == "failed" and step.get("log_bytes"):
                return f"img logs {self.build} {number} shows all that the step wrote"
        return ""

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Takes an error of the disk or the database as the end of recording, not of the build."""
        try:
            yield
        except (OSError, StoreError) as error:
            if not self._broken:
                self._broken = True
                self._warn(Note(level="warning", text=f"this build's record is not whole: {error}"))

    def _close(self) -> None:
        for descriptor in (*self._logs.values(), *([self._journal] if self._journal >= 0 else [])):
            os.close(descriptor)
        self._logs.clear()
        self._journal = -1


_INPUT_KINDS = ("source", "http", "git", "tree")


def _planned(node: Node) -> dict[str, Any]:
    """A node of the plan, as the document has it."""
    text = without_passwords(node.instruction)
    step = {
        "number": node.number,
        "kind": type(node.op).__name__.removesuffix("Op").lower(),
        "title": node.title,
        "text": "" if isinstance(node.op, INPUTS) or text == node.title else text,
        "stage": node.stage,
        "where": node.where,
        "inputs": list(node.inputs),
        "status": "waiting",
    }
    return {name: value for name, value in step.items() if value != ""}


def _write(journal: int, entry: Mapping[str, Any]) -> None:
    """One line at once: whoever reads it beside us sees all of it or its beginning, and then stops."""
    os.write(journal, dump_line(entry))


def _totals(moved: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for (action, _), count in moved.items():
        total = totals.setdefault(action, {"count": 0, "bytes": 0})
        total["count"] += 1
        total["bytes"] += count
    return totals


def _outcome(result: BuildResult | None, error: BaseException | None) -> dict[str, Any]:
    """What the document says of the end."""
    if result is not None:
        from img.values import asdict

        data = asdict(result)
        return {"warnings": list(data.pop("warnings")), "result": data}
    if isinstance(error, ImgError):
        return {"error": to_fields(error)}
    if isinstance(error, Exception):
        return {"error": {"kind": type(error).__name__, "text": str(error)}}
    return {}


def critical_path(steps: Sequence[Mapping[str, Any]]) -> tuple[list[int], float]:
    """The chain of steps, each standing on the one before, whose times add up to the most.

    Args:
        steps: The document's, inputs before what stands on them.
    Returns:
        Numbers, first to last, of those that ran; and their seconds together.
    """
    ran = {s["number"]: s["seconds"] for s in steps if s["status"] != "cached" and s.get("seconds")}
    best: dict[int, tuple[float, int]] = {}
    for step in steps:
        seconds, before = max(((best[n][0], n) for n in step["inputs"] if n in best), default=(0.0, -1))
        best[step["number"]] = (seconds + ran.get(step["number"], 0.0), before)
    if not best:
        return [], 0.0
    number = max(best, key=lambda n: best[n][0])
    total = best[number][0]
    path = []
    while number >= 0:
        if number in ran:
            path.append(number)
        number = best[number][1]
    return path[::-1], total


# ---- the request, as anybody may read it ---------------------------------------------------------

_AS_THEY_ARE = (
    "tags", "targets", "platforms", "labels", "pull", "no_cache", "no_cache_filter", "no_cache_steps",
    "push", "epoch", "allow", "network", "add_hosts", "shm_bytes", "ulimits", "fail_fast",
    "secret_hashes", "context_normalize", "explain", "offline", "lock_file", "locked",
)  # fmt: skip
"""Fields that hold nothing secret. What is not named here or below is not written down."""


def describe(request: BuildRequest) -> dict[str, Any]:
    """A request without anything that is nobody else's business, and without what says nothing.

    Secrets and agents are their ids alone; a URL has no password, query or fragment; a cache is what
    names it; a build argument has its value unless its name says that it is a secret, or a proxy.
    """
    data: dict[str, Any] = {"context": _place(request.context)}
    if request.dockerfile:
        named = _place(request.dockerfile) if "://" in request.dockerfile else request.dockerfile
        data["dockerfile"] = os.fsencode(named).decode("utf-8", "replace")
    data.update({name: value for name in _AS_THEY_ARE if (value := getattr(request, name))})
    if request.epoch is not None:
        data["epoch"] = request.epoch
    if request.build_args:
        from img.builder.plan.checks import names_a_secret

        data["build_args"] = {
            name: None if names_a_secret(name) or name.lower().endswith("_proxy") else value
            for name, value in request.build_args.items()
        }
    if request.contexts:
        data["contexts"] = {name: _place(value) for name, value in request.contexts.items()}
    if secrets := sorted({*request.secret_files, *request.secret_values}):
        data["secrets"] = secrets
    if request.agents:
        data["ssh"] = sorted(request.agents)
    if request.cache_from or request.cache_to:
        from img.cache import parse_spec

        data["cache_from"] = [str(parse_spec(text, "from")) for text in request.cache_from]
        data["cache_to"] = [str(parse_spec(text, "to")) for text in request.cache_to]
    return data


def _place(text: str) -> str:
    """A folder, whole; or a URL, as people may see it."""
    if text == "-":
        return text
    if "://" in text or (":" in text and "@" in text.partition(":")[0]):
        from img.remote.giturl import shown

        return shown(text)
    # A name of a file may be any bytes; a row of the database is text.
    return os.fsencode(os.path.abspath(text)).decode("utf-8", "replace")
