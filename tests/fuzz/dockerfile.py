"""Throws any bytes at the parser and the planner: each is a plan or an error with a place, soon.

    .venv/bin/python -m tests.fuzz.dockerfile --minutes 10 [--seed 0]

Inputs are made by hypothesis: raw bytes, and lines of the corpus in `tests/spec` cut, joined and spoiled.
`test_fuzz.py` runs a short, seeded part of this with every run of the suite. What is found here becomes a
case of the corpus.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from img.builder import BuildGraph, PlanOptions, make_plan, needed_bases
from img.dockerfile import parse
from img.dockerfile.instructions import Dockerfile
from img.errors import DockerfileError, UsageError
from img.oci import Descriptor, Image, ImageConfig, Platform, Reference, sha256
from img.oci.descriptor import OCI_LAYER_GZIP

SPEC = Path(__file__).resolve().parents[1] / "spec"
AMD64 = Platform("linux", "amd64")
TRIGGERS = ["COPY --from=a x y", "RUN <<E\n$x\nE", "ENV A=$x"]
CALLS_PER_BYTE = 300
CALLS_AT_LEAST = 20_000
SECONDS_PER_KIB = 0.5


def corpus() -> tuple[list[str], list[str]]:
    """Every line of every Dockerfile of the corpus; and those whose Dockerfile is none, or ends otherwise."""
    sound: dict[str, None] = {}
    other: dict[str, None] = {}
    for file in sorted(SPEC.rglob("*.json")):
        for case in json.loads(file.read_text("utf-8")):
            text = case.get("dockerfile") or [case.get("word", "")]
            lines = text.split("\n") if isinstance(text, str) else text
            (sound if {"gives", "plans"} & case.keys() else other).update(dict.fromkeys(lines))
    return list(sound), list(other)


def inputs() -> st.SearchStrategy[bytes]:
    """What is thrown."""
    sound, other = (st.sampled_from(lines) for lines in corpus())
    line = sound | other
    noise = st.sampled_from(
        [
            "\\",
            "`",
            "$",
            "${",
            "}",
            '"',
            "'",
            "<<",
            "#",
            "--",
            "=",
            "[",
            "\0",
            "\r",
            "\t",
            "\udcff",
            "\x1b",
            "\ufeff",
        ]
    )
    cut = st.builds(lambda text, start, end: text[start:end], line, st.integers(0, 9), st.integers(0, 60))
    spoiled = st.lists(cut | noise, max_size=6).map("".join)
    text = st.lists(line | spoiled, max_size=12).map("\n".join)
    mostly_sound = st.lists(sound, max_size=5).map("\n".join)
    headed = (text | mostly_sound).map(lambda text: "FROM busybox AS a\n" + text)
    return st.binary(max_size=400) | (text | headed | mostly_sound).map(
        lambda text: text.encode("utf-8", "surrogateescape")
    )


def base(reference: Reference, platform: Platform) -> Image:
    """An image for every name; those that start with `a` have triggers."""
    triggers = TRIGGERS if reference.repository.startswith("library/a") else []
    config = ImageConfig(platform=platform, diff_ids=(sha256(b"tar"),)).with_run(
        OnBuild=triggers, Env=["x=1"]
    )
    return Image.make(config, (Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(b"gz"), size=2),))


def attack(data: bytes) -> Dockerfile | None:
    """Parses and plans; gives the Dockerfile where it is one. What it should not raise gets out."""
    try:
        dockerfile = parse(data)
    except DockerfileError as error:
        check_error(error)
        return None
    for target in {"", str(len(dockerfile.stages) // 2)}:
        options = PlanOptions(
            platform=AMD64, build_platform=AMD64, target=target, build_args={"x": "$y\udcff"}
        )
        try:
            needed_bases(dockerfile, options)
            check_graph(make_plan(dockerfile, options, base))
        except (DockerfileError, UsageError) as error:
            check_error(error)
    return dockerfile


def check_error(error: DockerfileError | UsageError) -> None:
    """An error can be shown on any terminal, and points into the file."""
    shown = str(error) + error.hint
    assert all(char.isprintable() or char in "\n\t" for char in shown), ascii(shown)
    if isinstance(error, DockerfileError) and error.column:
        assert error.line >= 1
        assert error.column <= len(error.excerpt) + 1, ascii(shown)


def check_graph(graph: BuildGraph) -> None:
    """A plan's order holds, and what ends in an image can be written down."""
    assert all(number < node.number for node in graph.nodes for number in node.inputs)
    graph.targets[0].config.to_bytes()
    "".join(line.created_by for line in graph.targets[0].history).encode()
    assert all(text.isprintable() for text in graph.warnings)


def calls_of(work: Callable[[], object]) -> int:
    """How many calls some work makes: a measure that no other process disturbs."""
    count = 0

    def on_event(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def once(number: int, examples: int, check: Callable[[bytes], object]) -> None:
    """Runs one seeded series."""

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs())
    def series(data: bytes) -> None:
        check(data)

    series()


def main() -> None:
    """Goes on until the time is over; a finding ends it with the input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tried, parsed, slowest = 0, 0, (0.0, b"")

    def timed(data: bytes) -> None:
        nonlocal tried, parsed, slowest
        start = time.process_time()
        parsed += attack(data) is not None
        per_kib = (time.process_time() - start) / max(1, len(data) / 1024)
        tried += 1
        slowest = max(slowest, (per_kib, data))
        assert per_kib < SECONDS_PER_KIB, data

    end = time.monotonic() + 60 * options.minutes
    number = options.seed
    while time.monotonic() < end:
        once(number, 500, timed)
        number += 1
    print(f"{tried} inputs, {parsed} of them Dockerfiles; seeds {options.seed} to {number - 1}")
    print(f"slowest: {slowest[0]:.3f} s of processor time per KiB: {slowest[1][:200]!r}")


if __name__ == "__main__":
    main()
