"""Makes the inputs, runs `img` beside buildah in turns, prints one table of medians.

    python -m benches.run [--only abcdef] [--runs 5] [--scale 1.0] [--user NAME --img PATH]

See benches/README.md for what each row is and how to read it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benches import inputs
from benches.measure import Failed, Ground, Identity, peak_memory, run
from tests.support.registry import Registry

Command = list[str]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """How one program builds and pulls. Each method gives a whole command; `home` holds its store."""

    name: str
    program: str

    def build(self, home: Path, context: Path, *flags: str) -> Command:
        """Builds `context` into the local store."""
        if self.name == "img":
            return [self.program, "--state", f"{home}/store", "build", *flags, "-t", "bench:1", str(context)]
        options = ["bud", "--isolation=chroot", "--layers", "--tls-verify=false", *flags]
        return [*self._buildah(home), *options, "-t", "bench:1", str(context)]

    def pull(self, home: Path, reference: str) -> Command:
        """Pulls an image to a ready root."""
        if self.name == "img":
            return [self.program, "--state", f"{home}/store", "pull", reference]
        return [*self._buildah(home), "pull", "--quiet", "--tls-verify=false", reference]

    def _buildah(self, home: Path) -> Command:
        storage = ["--root", f"{home}/store", "--runroot", f"{home}/run/storage"]
        return [self.program, *storage, "--storage-driver", "overlay"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One row: commands that come before, untimed, and the one that is measured."""

    key: str
    title: str
    before: Callable[[Tool, Path], list[Command]]
    timed: Callable[[Tool, Path], Command]


def workloads(folder: Path, registry: Registry, scale: inputs.Scale) -> dict[str, Callable[[], Workload]]:
    """The rows, each made (inputs and all) only where it is asked for."""
    base = registry.push_layout(inputs.busybox_layout(folder / "busybox"), "bench/base")

    def context(name: str, dockerfile: str) -> Path:
        place = folder / name
        place.mkdir(exist_ok=True)
        (place / "Dockerfile").write_text(dockerfile)
        return place

    def runs() -> Workload:
        lines = "".join("RUN true\n" for _ in range(30))
        place = context("runs", f"FROM {base}\n{lines}")
        return Workload(
            key="a",
            title="FROM busybox + 30 RUN true, no cache",
            before=lambda tool, home: [tool.pull(home, base)],
            timed=lambda tool, home: tool.build(home, place, "--no-cache"),
        )

    def copy(key: str, name: str, title: str, make: Callable[[Path, inputs.Scale], Path]) -> Workload:
        place = context(name, f"FROM {base}\nCOPY data /data\n")
        make(place / "data", scale)
        return Workload(
            key=key,
            title=title,
            before=lambda tool, home: [tool.pull(home, base)],
            timed=lambda tool, home: tool.build(home, place),
        )

    def cached(key: str, name: str, title: str, count: inputs.Scale) -> Workload:
        lines = "".join(f"ENV V{n}={n}\n" if n % 2 else f"RUN echo {n} > /n{n}\n" for n in range(18))
        place = context(name, f"FROM {base}\nCOPY data /data\n{lines}")
        inputs.small_files(place / "data", count)
        (place / "Cached").write_text((place / "Dockerfile").read_text())
        (place / "Dockerfile").write_text(f"FROM {base}\nCOPY data /data\n")
        flags = ("-f", str(place / "Cached"))
        return Workload(
            key=key,
            title=title,
            before=lambda tool, home: [tool.pull(home, base), tool.build(home, place, *flags)],
            timed=lambda tool, home: tool.build(home, place, *flags),
        )

    def pull() -> Workload:
        layout = inputs.image_layout(folder / "image", scale)
        reference = registry.push_layout(layout, "bench/image")
        return Workload(
            key="e",
            title="pull of a 1.1 GB image, 4 layers, 60,000 entries",
            before=lambda tool, home: [],
            timed=lambda tool, home: tool.pull(home, reference),
        )

    return {
        "a": runs,
        "b": lambda: copy("b", "large", "COPY of 1 GB in 2,000 files", inputs.large_files),
        "c": lambda: copy("c", "small", "COPY of 100,000 small files", inputs.small_files),
        "d": lambda: cached("d", "small", "20 instructions over those 100,000 files, all cached", scale),
        "e": pull,
        "f": lambda: cached(
            "f", "few", "20 instructions over 100 files, all cached", inputs.Scale(factor=0.001)
        ),
    }


def measure(workload: Workload, tools: list[Tool], ground: Ground, count: int) -> list[str]:
    """Runs a row, the tools in turns; gives its table cells."""
    seconds: dict[str, list[float]] = {tool.name: [] for tool in tools}
    memory: dict[str, int] = {}
    log = ground.folder / "log"
    for number in range(count + 1):
        for tool in tools:
            with ground.place() as home:
                for command in workload.before(tool, home):
                    run(ground.identity.wrap(command, home), home, log)
                command = ground.identity.wrap(workload.timed(tool, home), home)
                if number == count:
                    memory[tool.name] = peak_memory(command, home, log)
                else:
                    seconds[tool.name].append(run(command, home, log))
            print(f"  {workload.key} {tool.name} {number + 1}/{count + 1}", file=sys.stderr)
    medians = [statistics.median(seconds[tool.name]) for tool in tools]
    cells = [f"({workload.key}) {workload.title}", ground.identity.label]
    cells += [f"{median:.2f} s" for median in medians]
    cells.append(f"{medians[-1] / medians[0]:.1f} x" if len(medians) > 1 else "")
    cells += [f"{memory[tool.name] >> 20} MB" for tool in tools]
    return cells


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="abcdef", help="letters of the rows to run (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each tool (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the inputs (default: 1.0)")
    parser.add_argument(
        "--dir", type=Path, default=Path("/var/tmp/img-bench"), help="inputs and stores go here"
    )
    parser.add_argument("--user", default="", help="as root: run the commands as this user")
    parser.add_argument("--img", default=str(Path(sys.executable).parent / "img"), help="the img to measure")
    parser.add_argument("--alone", action="store_true", help="img only, without buildah")
    return parser.parse_args()


def main() -> int:
    """Runs what was asked for and prints the table."""
    asked = arguments()
    scale = inputs.Scale(factor=asked.scale)
    folder = asked.dir / f"scale-{asked.scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    tools = [Tool(name="img", program=asked.img)]
    if not asked.alone:
        tools.append(Tool(name="buildah", program="buildah"))
    identity = Identity(user=asked.user)
    ground = Ground(folder=folder, identity=identity, fresh=os.geteuid() == 0)
    names = [tool.name for tool in tools]
    rows = [["workload", "as", *names, "ratio", *(f"{name}, memory" for name in names)]]
    failed = False
    with Registry(folder / "registry") as registry:
        known = workloads(folder, registry, scale)
        for key in asked.only:
            try:
                rows.append(measure(known[key](), tools, ground, asked.runs))
            except Failed as error:
                print(f"({key}) failed: {error}", file=sys.stderr)
                failed = True
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if number == 0:
            print("|" + "---|" * len(row))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
