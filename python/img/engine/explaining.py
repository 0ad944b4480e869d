"""What the last build of a store said of its steps' cache keys: kept by `Build`, found again by a word.

One file in the store's root, replaced by each build, whatever came of that one; the keys and records that it
names are in the store for as long as the cache keeps them. It is for people: a build never reads it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from img.builder.graph import INPUTS, BuildGraph, ConfigOp
from img.dockerfile.faults import without_passwords
from img.engine.requests import Explained
from img.errors import UsageError
from img.progress import StepExplained
from img.values import asdict, fields

_NAME = "explained.json"
_VERSION = 1


def remember(root: Path, graph: BuildGraph, explained: Mapping[int, StepExplained]) -> None:
    """Writes down what was said of a build's steps; a store that is full costs it, and no build."""
    steps = [
        {
            "number": node.number,
            "title": node.title,
            "text": without_passwords(node.instruction),
            "where": node.where,
            "stage": node.stage,
            "keyless": isinstance(node.op, ConfigOp),
            "step": asdict(explained[node.number]) if node.number in explained else None,
        }
        for node in graph.nodes
        if not isinstance(node.op, INPUTS)
    ]
    partial = root / f"{_NAME}.{os.getpid()}.part"
    try:
        partial.write_text(
            json.dumps({"v": _VERSION, "began": time.time(), "steps": steps}), encoding="utf-8"
        )
        os.replace(partial, root / _NAME)
    except OSError:
        partial.unlink(missing_ok=True)


def recall(root: Path, word: str) -> list[Explained]:
    """Finds steps of the last build.

    Args:
        word: A step's number, `Dockerfile:LINE`, or a part of its text; empty for every step.
    Raises:
        UsageError: nothing was built here, or no step is meant.
    """
    steps = _steps(root)
    exact = [one for one in steps if word in (str(one.number), one.where)]
    found = exact or [one for one in steps if word in one.text or word in one.title]
    if not found:
        among = ", ".join(f"{one.number} ({one.where})" for one in steps[:20])
        raise UsageError(f"no step of the last build is {word!r}", hint=f"there are {among}")
    return found


def _steps(root: Path) -> list[Explained]:
    try:
        data = json.loads((root / _NAME).read_bytes())
    except FileNotFoundError as error:
        raise UsageError("nothing was built in this store yet", hint="img build .") from error
    except ValueError:
        data = {}
    if data.get("v") != _VERSION:
        raise UsageError("another version of img made the last build here", hint="build once more")
    return [
        Explained(**{**one, "step": _step(one["step"])}, began=float(data["began"])) for one in data["steps"]
    ]


def _step(data: dict[str, Any] | None) -> StepExplained | None:
    if data is None:
        return None
    known = {one.name for one in fields(StepExplained)}
    values = {name: value for name, value in data.items() if name in known}
    return StepExplained(**{**values, "differences": tuple(values.get("differences", ()))})
