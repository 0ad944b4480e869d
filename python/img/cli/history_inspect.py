"""`img history inspect`: one build: what was asked for, its steps with their times, and where time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import (
    ago,
    find_globals,
    human_size,
    human_time,
    one_line,
    print_json,
    show_warnings,
    table,
    verb,
)

if TYPE_CHECKING:
    from img.store.build_record import BuildRecord, StepRecord

_SLOWEST = 5


@verb(
    "inspect",
    short="Show one build: its steps, their times, and why they ran.",
    example="img history inspect\nimg history inspect --json me/app",
)
@click.argument("build", metavar="[BUILD]", default="")
@click.option("--no-trunc", is_flag=True, help="Print whole lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
def inspect_command(build: str, no_trunc: bool, as_json: bool) -> None:
    """Show one build, the newest by default: its steps with seconds, bytes and why they ran; a star marks
    the critical path, the chain of steps that the build's length came from.
    """
    from img.engine import Engine

    with Engine(find_globals().settings(), show_warnings) as engine:
        builds = engine.store.builds
        record = builds.record(builds.find(build))
    if as_json:
        print_json(dict(record.data))
        return
    for label, text in _head(record):
        click.echo(f"{label + ':':<14}{text}")
    shown = [step for step in record.steps if step.shown]
    if shown:
        click.echo("")
        _steps(record, shown, width=None if no_trunc else 70)
    for line in _where_time_went(record, shown):
        click.echo(line)
    if record.error:
        click.echo(f"\n{record.error.get('text', '')}")


def _head(record: BuildRecord) -> Iterator[tuple[str, str]]:
    """What was asked for and what came of it: label and text."""
    request = record.request
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
    yield "Build", record.id
    yield "Status", record.status
    yield "Started", f"{when} ({ago(record.started)})"
    yield "Duration", human_time(record.seconds)
    yield "Context", str(request.get("context", ""))
    for name, label in (("dockerfile", "Dockerfile"), ("targets", "Target"), ("platforms", "Platform"),
                        ("tags", "Tags"), ("secrets", "Secrets"), ("ssh", "SSH agents"),
                        ("cache_from", "Cache from"), ("cache_to", "Cache to")):  # fmt: skip
        if value := request.get(name):
            yield label, value if isinstance(value, str) else ", ".join(map(str, value))
    for name, value in request.get("build_args", {}).items():
        yield "Build arg", name if value is None else f"{name}={value}"
    if record.result:
        yield "Digest", str(record.result.get("digest", ""))
        yield "Image ID", str(record.result.get("id", ""))
        for name, digest in record.result.get("pushed", {}).items():
            yield "Pushed", f"{name}@{digest}"
    for action, total in sorted(record.moved.items()):
        yield "Moved", f"{action}: {total['count']}, {human_size(total['bytes'])}"
    counts = [step for step in record.steps if step.shown]
    if counts:
        yield "Steps", f"{len(counts)}, {sum(step.cached for step in counts)} cached"
    for note in record.notes:
        if note.get("level") == "warning":
            yield "Warning", note["text"]
    for found in record.warnings:
        place = f" (line {found['line']})" if found.get("line") else ""
        yield (
            "Warning",
            f"{found.get('rule', '')}{': ' if found.get('rule') else ''}{found['message']}{place}",
        )


def _steps(record: BuildRecord, steps: list[StepRecord], *, width: int | None) -> None:
    """The table of the steps; what has no answer is a dash."""
    critical = set(record.critical_path)
    table(
        ("STEP", "WHERE", "STATUS", "SECONDS", "SIZE", "LOG", "INSTRUCTION"),
        [
            (
                f"{step.number}{'*' if step.number in critical else ''}",
                step.where or "-",
                step.status,
                f"{step.seconds:.2f}" if not step.cached and step.status != "waiting" else "-",
                human_size(step.size_bytes) if step.size_bytes else "-",
                human_size(step.log_bytes) if step.log_bytes else "-",
                one_line(step.title, width) + (f" ({step.why})" if step.why else ""),
            )
            for step in steps
        ],
    )


def _where_time_went(record: BuildRecord, steps: list[StepRecord]) -> Iterator[str]:
    ran = [step for step in steps if step.seconds and not step.cached]
    if not ran:
        return
    if record.critical_path:
        total = human_time(record.critical_seconds)
        path = " > ".join(map(str, record.critical_path))
        yield f"\nCritical path: {path}, {total} of {human_time(record.seconds)}"
    slowest = sorted(ran, key=lambda step: -step.seconds)[:_SLOWEST]
    yield "Slowest:       " + ", ".join(f"{step.number} {human_time(step.seconds)}" for step in slowest)
