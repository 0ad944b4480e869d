"""A random edit misses exactly the steps that depend on it: real builds, held against a model of a few lines.

The model knows what each step writes, and what it may look at; its cache is a dictionary. `IMG_MODEL_EDITS`
makes it longer, `IMG_MODEL_SEED` another walk.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support.command import Img

pytestmark = pytest.mark.once

EDITS = int(os.environ.get("IMG_MODEL_EDITS", "24"))
SEED = int(os.environ.get("IMG_MODEL_SEED", "4"))
FILES = ("fa", "fb", "fc")
Layer = tuple[str, str, int]
"""The one file that a step of the model writes: path, content, mode."""


@dataclass(frozen=True)
class File:
    """A file of the context. Its time is drawn, too, and must not count."""

    content: str
    mode: int = 0o644
    time: int = 1


@dataclass(frozen=True)
class Step:
    """COPY of a file, ENV, COPY of a stage's file, or RUN that writes the first letter of what is below."""

    kind: str
    name: str
    value: str = ""

    def line(self, number: int) -> str:
        if self.kind == "copy":
            return f"COPY {self.name} /{self.name}"
        if self.kind == "env":
            return f"ENV {self.name}={self.value}"
        if self.kind == "from":
            return f"COPY --from=first /{self.name} /taken-{self.name}"
        return f"RUN cat /f? /taken-f? /dev/null 2>/dev/null | head -c 1 > /{self.name}; : {self.value}"


@dataclass(frozen=True)
class World:
    """A context and the Dockerfile's two stages."""

    files: dict[str, File]
    stages: tuple[tuple[Step, ...], tuple[Step, ...]]

    def write(self, root: Path, base: str) -> None:
        lines = []
        for name, steps in zip(("first", "last"), self.stages, strict=True):
            lines.append(f"FROM {base} AS {name}")
            lines += [step.line(number) for number, step in enumerate(steps)]
        (root / "Dockerfile").write_text("\n".join(lines) + "\n")
        for name, file in self.files.items():
            path = root / name
            path.write_text(file.content)
            path.chmod(file.mode)
            os.utime(path, (file.time, file.time))


@dataclass
class Model:
    """What the cache ought to know: which step, on what, wrote which file."""

    known: dict[object, Layer] = field(default_factory=dict)

    def build(self, world: World) -> list[tuple[str, bool]]:
        """Gives the line of each step that has a key, and whether it must be a hit."""
        told: list[tuple[str, bool]] = []
        first: dict[str, Layer] = {}
        for steps in world.stages:
            below: list[Layer] = []
            env: list[tuple[str, str]] = []
            for number, step in enumerate(steps):
                if step.kind == "env":
                    env = [pair for pair in env if pair[0] != step.name] + [(step.name, step.value)]
                    continue
                key, layer = self._step(world, step, below, env, first)
                told.append((step.line(number), key in self.known))
                self.known[key] = layer
                below.append(layer)
            first = first or {layer[0]: layer for layer in below}
        return told

    def _step(
        self,
        world: World,
        step: Step,
        below: list[Layer],
        env: list[tuple[str, str]],
        first: dict[str, Layer],
    ) -> tuple[object, Layer]:
        if step.kind == "copy":
            file = world.files[step.name]
            layer = (f"/{step.name}", file.content, file.mode)
            return ("copy", tuple(below), layer), layer
        if step.kind == "from":
            _, content, mode = first[f"/{step.name}"]
            layer = (f"/taken-{step.name}", content, mode)
            return ("copy", tuple(below), layer), layer
        seen = {path: content for path, content, _ in below}
        read = [seen[path] for path in sorted(seen) if path in {f"/{name}" for name in FILES}]
        read += [seen[path] for path in sorted(seen) if path.startswith("/taken-f")]
        layer = (f"/{step.name}", "".join(read)[:1], 0o644)
        return ("run", tuple(below), step.name, step.value, tuple(sorted(env))), layer


def edits(chance: random.Random, world: World) -> World:
    """One random edit; many of them change nothing that a step can see, and some take an earlier one back."""
    kind = chance.choice(["content", "content", "mode", "time", "value", "env", "swap", "other"])
    name = chance.choice(FILES)
    file = world.files[name]
    if kind == "content":
        # The first letter is what a RUN writes: often the same.
        file = replace(file, content=chance.choice("ab") + chance.choice("xyz"))
    elif kind == "mode":
        file = replace(file, mode=chance.choice([0o644, 0o600, 0o755]))
    elif kind == "time":
        file = replace(file, time=chance.randrange(1, 10**9))
    if kind in ("content", "mode", "time"):
        return replace(world, files={**world.files, name: file})
    if kind == "other":
        return replace(world, files={**world.files, "unrelated": File(chance.choice("123"))})
    which = chance.randrange(2)
    steps = list(world.stages[which])
    if kind == "swap":
        at = chance.randrange(len(steps) - 1)
        steps[at], steps[at + 1] = steps[at + 1], steps[at]
    else:
        wanted = "run" if kind == "value" else "env"
        at = chance.choice([n for n, step in enumerate(steps) if step.kind == wanted])
        steps[at] = replace(steps[at], value=chance.choice("12"))
    stages = (tuple(steps), world.stages[1]) if which == 0 else (world.stages[0], tuple(steps))
    return replace(world, stages=stages)


def ended(lines: str) -> Iterator[tuple[str, bool, str]]:
    """From a build's JSON lines: of each step its instruction's line, whether it was a hit, and why not."""
    for line in lines.splitlines():
        event = json.loads(line)
        if event["event"] == "StepDone":
            yield event["where"], event["cached"], event["why"]


def test_a_random_edit_misses_exactly_what_depends_on_it(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    chance = random.Random(SEED)
    context = make_context({})
    world = World(
        files={name: File("ax") for name in FILES},
        stages=(
            (Step("copy", "fa"), Step("env", "E", "1"), Step("run", "o1", "1"), Step("copy", "fb")),
            (
                Step("env", "F", "1"), Step("from", "fa"), Step("run", "o2", "1"), Step("from", "fb"),
                Step("copy", "fc"), Step("run", "o3", "1"),
            ),
        ),
    )  # fmt: skip
    model = Model()
    for edit in range(EDITS):
        world.write(context, busybox_image)
        expected = model.build(world)
        outcome = img.ok("build", "--progress", "json", "-t", "t", context)
        text = (context / "Dockerfile").read_text().splitlines()
        found = {
            text[int(where.rpartition(":")[2]) - 1]: (cached, why)
            for where, cached, why in ended(outcome.stderr)
        }
        told = f"edit {edit} (IMG_MODEL_SEED={SEED})"
        for line, hit in expected:
            cached, why = found[line]
            assert cached == hit, f"{told}: {line}: {'ran' if hit else 'did not run'} ({why})"
            assert bool(why) == (not hit), f"{told}: {line}: {why}"
        world = edits(chance, world)
