"""What `--explain` and `img cache explain` show of one step: `explained_lines`."""

from __future__ import annotations

from img.progress import StepExplained


def explained_lines(event: StepExplained) -> list[str]:
    """The lines for people: its key, what that was found by or compared with, and every difference."""
    lines = [f"key {event.key}"]
    if event.hit:
        return [*lines, f"hit: the record of this key, made {event.created}"]
    lines.append(f"miss: {event.why}")
    if event.record:
        lines.append(f"nearest record {event.record}, made {event.created}")
    for difference in event.differences:
        lines.append(f"  {difference['text']}")
        if difference["field"] in ("args", "script"):
            lines += [f"    {mark} {difference[side]}" for mark, side in (("-", "old"), ("+", "new"))]
    if event.more:
        lines.append(f"  and {event.more} more")
    return lines
