"""How time, processor seconds and memory of `img` grow with the number of files, and with bytes.

    python -m benches.growth [--only files|bytes] [--runs 3] [--user NAME --img PATH]

Points are kept in growth.json as they come, and `docs/growth.md` and its pictures are made from them. Each
run has a fresh file system where root can make one. Inputs are made for each size, and removed after it
unless `--keep` says otherwise: the largest have some gigabytes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches import inputs, machine
from benches.measure import SAMPLE_SECONDS, Ground, Identity, Sample, can_mount, end_in_order, observe, run
from benches.peers import Build, Command, Img
from benches.plot import Axis, Series, chart
from benches.report import MEMORY_GOAL_BYTES, seconds, table
from benches.run import HERE, OUT, free_port
from tests.support.registry import Registry

DOCS = HERE.parent / "docs"
FILES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 500_000)
BYTES = (10_000_000, 30_000_000, 100_000_000, 300_000_000, 1_000_000_000, 3_000_000_000, 5_000_000_000)
FULL_FILES, FULL_BYTES = 100_000, 1_070_000_000
"""What the inputs have at their full scale."""

KINDS = {
    "files": ("COPY", "cached build", "pull"),
    "bytes": ("COPY", "push, gzip", "pull"),
}
SETTLED = {"files": 10_000, "bytes": 100_000_000}
"""From here on, what every command costs is small beside what grows: exponents are fitted above."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one command took at one size: the least time of its runs, and its memory in one more."""

    kind: str
    work: str
    size: int
    seconds: float
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """All points, with where they come from.

    Attributes:
        origin: By kind: date, machine, version and command, in words.
    """

    points: tuple[Point, ...] = ()
    origin: dict[str, str] = dataclasses.field(default_factory=dict)

    def with_points(self, new: Sequence[Point], origin: str) -> Known:
        """Adds points of one kind and size; earlier ones of these go."""
        taken = {(one.kind, one.work, one.size) for one in new}
        kept = [one for one in self.points if (one.kind, one.work, one.size) not in taken]
        order = sorted([*kept, *new], key=lambda one: (one.kind, one.work, one.size))
        return Known(points=tuple(order), origin={**self.origin, new[0].kind: origin})

    def series(self, kind: str, work: str) -> list[Point]:
        """The points of one command, by size."""
        return [one for one in self.points if (one.kind, one.work) == (kind, work)]


def load(path: Path) -> Known:
    """Reads the file; a missing one is empty."""
    if not path.exists():
        return Known()
    document = json.loads(path.read_text())
    return Known(points=tuple(Point(**one) for one in document["points"]), origin=document["origin"])


def save(known: Known, path: Path) -> None:
    """Writes the file, at once or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(dataclasses.asdict(known), indent=1) + "\n")
    temporary.replace(path)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measures one size after the other.

    Attributes:
        base: Reference of the base image.
        host: A registry that lies in each place.
    """

    img: Img
    ground: Ground
    base: str
    port: int
    runs: int

    def points(self, kind: str, size: int, data: Path) -> list[Point]:
        """The three commands over a context whose folder `data` has that size."""
        context = data.parent
        file = context / "Dockerfile"
        file.write_text(f"FROM {self.base}\nCOPY data /data\n")
        tag = f"127.0.0.1:{self.port}/bench/growth:1"
        build = Build(context=context, dockerfile=file, tag=tag)
        taken: dict[str, list[Sample]] = {work: [] for work in KINDS[kind]}
        for number in range(self.runs + 1):
            weigh_seconds = SAMPLE_SECONDS if number == self.runs else 0
            for work, sample in self._once(kind, build, weigh_seconds):
                taken[work].append(sample)
            print(f"  {kind} {size} {number + 1}/{self.runs + 1}", file=sys.stderr)
        return [_point(kind, work, size, samples) for work, samples in taken.items()]

    def _once(self, kind: str, build: Build, weigh_seconds: float) -> Iterator[tuple[str, Sample]]:
        """COPY; then the cached build, or the push; then the pull to another store."""
        _, second, third = KINDS[kind]
        with self.ground.place("one") as home, Registry(home.parent / "registry", port=self.port):
            other = home / "other"

            def take(command: Command) -> Sample:
                wrapped = self.ground.identity.wrap(command, home)
                return observe(wrapped, home, self.ground.folder / "log", weigh_seconds=weigh_seconds)

            take(self.img.pull(home, self.base))
            yield "COPY", take(self.img.build(home, build))
            run(["sync", "--file-system", str(home)], home, self.ground.folder / "log")
            cached = take(self.img.build(home, build))
            pushed = take(self.img.push(home, build.tag, "gzip"))
            yield second, cached if kind == "files" else pushed
            run(["sync", "--file-system", str(home)], home, self.ground.folder / "log")
            yield third, take(self.img.pull(other, build.tag))


def _point(kind: str, work: str, size: int, samples: list[Sample]) -> Point:
    """The last sample was weighed, and its time counts for nothing."""
    timed = samples[:-1]
    return Point(
        kind=kind,
        work=work,
        size=size,
        seconds=round(min(one.seconds for one in timed), 4),
        cpu_seconds=round(min(one.cpu_seconds for one in timed), 3),
        memory_bytes=samples[-1].memory_bytes,
    )


@contextlib.contextmanager
def tree(folder: Path, kind: str, size: int, *, keep: bool) -> Iterator[Path]:
    """A folder `data` of that size; removed at the end unless it is to be kept."""
    place = folder / f"growth-{kind}-{size}"
    data = place / "data"
    if kind == "files":
        inputs.small_files(data, inputs.Scale(factor=size / FULL_FILES))
    else:
        inputs.large_files(data, inputs.Scale(factor=size / FULL_BYTES))
    try:
        yield data
    finally:
        if not keep:
            shutil.rmtree(place)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The power of the size that a series grows with: the slope of the line through its logarithms.

    Source: least squares. nan for fewer than two sizes.
    """
    logs = [(math.log(size), math.log(value)) for size, value in points if value > 0]
    if len(logs) < 2:
        return float("nan")
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def write(known: Known, folder: Path) -> None:
    """Writes the page and its pictures."""
    parts = ["# Growth", INTRODUCTION.strip()]
    for kind, noun in (("files", "the number of files"), ("bytes", "bytes")):
        if not any(one.kind == kind for one in known.points):
            continue
        (folder / f"growth-{kind}-time.svg").write_text(_time_chart(known, kind, noun))
        (folder / f"growth-{kind}-memory.svg").write_text(_memory_chart(known, kind, noun))
        parts += [
            f"## With {noun}",
            f"![Time against {noun}](growth-{kind}-time.svg)",
            f"![Memory against {noun}](growth-{kind}-memory.svg)",
            table(_points(known, kind)),
            f"Fitted from {_size(kind, SETTLED[kind])} on:",
            table(_exponents(known, kind)),
            known.origin[kind],
        ]
    if not known.points:
        parts.append("Nothing was measured yet.")
    (folder / "growth.md").write_text("\n\n".join(parts) + "\n")


INTRODUCTION = """
Generated by `python -m benches.growth` from `benches/growth.json`. An exponent of 1 says that twice the input
takes twice the time; the dotted lines have that slope. Memory should not grow at all, an exponent of 0, and
stay below the dotted line of 120 MB. Times are the least of several runs, each on a file system of its own;
memory is the peak of the whole process tree.
"""


def _time_chart(known: Known, kind: str, noun: str) -> str:
    lines = [
        Series(name=work, points=tuple((one.size, one.seconds) for one in known.series(kind, work)))
        for work in KINDS[kind]
    ]
    across = Axis(title=noun, text=lambda value: _size(kind, round(value)))
    return chart(f"Time against {noun}", across, Axis(title="seconds", text=lambda s: f"{s:g}"), lines)


def _memory_chart(known: Known, kind: str, noun: str) -> str:
    lines = [
        Series(
            name=work, points=tuple((one.size, one.memory_bytes / 2**20) for one in known.series(kind, work))
        )
        for work in KINDS[kind]
    ]
    across = Axis(title=noun, text=lambda value: _size(kind, round(value)))
    up = Axis(title="MB", text=lambda megabytes: f"{megabytes:g}", least=10)
    return chart(f"Memory against {noun}", across, up, lines, level=MEMORY_GOAL_BYTES / 2**20)


def _size(kind: str, size: int) -> str:
    if kind == "files":
        return f"{size:,}"
    return f"{size / 1e9:g} GB" if size >= 1_000_000_000 else f"{size / 1e6:g} MB"


def _points(known: Known, kind: str) -> list[list[str]]:
    rows = [[kind, *(f"{work}{what}" for work in KINDS[kind] for what in ("", ", CPU", ", memory"))]]
    for size in sorted({one.size for one in known.points if one.kind == kind}):
        cells = [_size(kind, size)]
        for work in KINDS[kind]:
            found = next((one for one in known.series(kind, work) if one.size == size), None)
            cells += (
                [seconds(found.seconds), seconds(found.cpu_seconds), f"{found.memory_bytes / 2**20:.0f} MB"]
                if found
                else ["", "", ""]
            )
        rows.append(cells)
    return rows


def _exponents(known: Known, kind: str) -> list[list[str]]:
    rows = [["command", "time", "CPU", "memory"]]
    for work in KINDS[kind]:
        points = [one for one in known.series(kind, work) if one.size >= SETTLED[kind]]
        rows.append(
            [
                work,
                _power([(one.size, one.seconds) for one in points]),
                _power([(one.size, one.cpu_seconds) for one in points]),
                _power([(one.size, one.memory_bytes) for one in points]),
            ]
        )
    return rows


def _power(points: Sequence[tuple[float, float]]) -> str:
    found = exponent(points)
    return "" if math.isnan(found) else f"{found:.2f}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.growth", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", choices=list(KINDS), help="grow this alone (default: both)")
    add("--most", type=int, default=0, help="no size above this")
    add("--runs", type=int, default=2, help="timed runs of each size (default: 2)")
    add("--dir", type=Path, default=Path("/var/tmp/img-bench"), help="inputs and stores go here")
    add("--user", default="", help="as root: run img as this user")
    add("--img", default=str(Path(sys.executable).parent / "img"), help="the img to measure")
    add("--keep", action="store_true", help="keep the inputs for another time")
    add("--out", type=Path, default=OUT, help="growth.json and the page go here (default: benches/out/)")
    add("--publish", action="store_true", help="they go to benches/ and docs/, to be committed")
    add("--report", action="store_true", help="run nothing: make the page of growth.json again")
    return parser.parse_args()


def measure(asked: argparse.Namespace, store: Path, docs: Path) -> None:
    """Runs all sizes; writes after each."""
    identity = Identity(user=asked.user)
    folder = asked.dir / "g"
    folder.mkdir(parents=True, exist_ok=True)
    ground = Ground(folder=folder, identity=identity, fresh=can_mount(), size_gb=32)
    img = Img(name="img", identity=identity, program=asked.img)
    words = " ".join(["python -m benches.growth", *sys.argv[1:]])
    with Registry(asked.dir / "registry") as registry:
        base = registry.push_layout(inputs.busybox_layout(asked.dir / "busybox"), "bench/base")
        bench = Bench(img=img, ground=ground, base=base, port=free_port(), runs=asked.runs)
        for kind, sizes in (("files", FILES), ("bytes", BYTES)):
            for size in sizes:
                if asked.only not in (None, kind) or 0 < asked.most < size:
                    continue
                with tree(asked.dir, kind, size, keep=asked.keep) as data:
                    points = bench.points(kind, size, data)
                date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
                where = machine.describe(asked.dir, fresh=ground.fresh)
                origin = f"{img.version()}, as {identity.label}, {date}, `{words}`, on {where}."
                known = load(store).with_points(points, origin)
                save(known, store)
                write(known, docs)


def main() -> int:
    """Measures what was asked for and writes the page."""
    end_in_order()
    asked = arguments()
    store = (HERE if asked.publish else asked.out) / "growth.json"
    docs = DOCS if asked.publish else asked.out
    docs.mkdir(parents=True, exist_ok=True)
    asked.dir.mkdir(parents=True, exist_ok=True)
    if asked.report:
        write(load(store), docs)
        return 0
    with (asked.dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        measure(asked, store, docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
