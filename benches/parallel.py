"""Four stages that need nothing of each other: waiting 2 s each, and working 2 s of CPU each.

    python -m benches.parallel [--runs 3] [--seconds 2] [--jobs 4] [--alone]

The first should take about as long as one stage, the second the whole work divided by the processors.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benches import inputs
from benches.measure import Failed, Ground, Identity, can_mount, run
from benches.peers import Build, Buildah, Img, Peer
from tests.support.registry import Registry

STAGES = 4


def rounds_for(seconds: float) -> int:
    """How many rounds of the shell's loop take this long here: work that no clock ends."""
    count, taken = 10_000, 0.0
    while taken < 0.5:
        count *= 2
        before = os.times().children_user
        subprocess.run(["busybox", "sh", "-c", _loop(count)], check=True)
        taken = os.times().children_user - before
    return int(count * seconds / taken)


def _loop(count: int) -> str:
    return f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); done"


def write_context(folder: Path, base: str, work: str) -> Path:
    """Writes a Dockerfile of four stages that do this work, and one that needs them all."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = "".join(f"FROM {base} AS s{n}\nRUN {work}; echo {n} > /done{n}\n" for n in range(STAGES))
    copies = "".join(f"COPY --from=s{n} /done{n} /\n" for n in range(STAGES))
    (folder / "Dockerfile").write_text(f"{stages}FROM {base}\n{copies}")
    return folder


def measure(tools: list[Peer], ground: Ground, context: Path, base: str, jobs: int, runs: int) -> list[float]:
    """The medians of a build without a cache, the base pulled before, the tools in turns."""
    seconds: dict[str, list[float]] = {tool.name: [] for tool in tools}
    build = Build(context=context, dockerfile=context / "Dockerfile", flags=("--no-cache",), jobs=jobs)
    log = ground.folder / "log"
    for _ in range(runs):
        for tool in tools:
            with ground.place() as home:
                run(ground.identity.wrap(tool.pull(home, base), home), home, log)
                command = ground.identity.wrap(tool.build(home, build), home)
                seconds[tool.name].append(run(command, home, log))
    return [statistics.median(seconds[tool.name]) for tool in tools]


def main() -> int:
    """Runs both rows and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benches.parallel", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each tool (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="what each stage takes alone (default: 2)")
    parser.add_argument("--jobs", type=int, default=STAGES, help="steps at once (default: 4)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/img-bench"), help="stores go here")
    parser.add_argument("--img", default=str(Path(sys.executable).parent / "img"), help="the img to measure")
    parser.add_argument("--alone", action="store_true", help="img only, without buildah")
    asked = parser.parse_args()
    folder = asked.dir / "parallel"
    folder.mkdir(parents=True, exist_ok=True)
    identity = Identity()
    tools: list[Peer] = [Img(name="img", identity=identity, program=asked.img)]
    if not asked.alone:
        tools.append(Buildah(name="buildah", identity=identity, program="buildah"))
    ground = Ground(folder=folder, identity=identity, fresh=can_mount())
    processors = len(os.sched_getaffinity(0))
    ideal = max(asked.seconds, asked.seconds * STAGES / processors)
    print("| four stages | ideal | " + " | ".join(tool.name for tool in tools) + " |")
    print("|---" * (2 + len(tools)) + "|")
    with Registry(folder / "registry") as registry:
        base = registry.push_layout(inputs.busybox_layout(folder / "busybox"), "bench/base")
        works = [
            (f"each waits {asked.seconds:g} s", asked.seconds, f"sleep {asked.seconds:g}"),
            (
                f"each works {asked.seconds:g} s of CPU, {processors} processors",
                ideal,
                _loop(rounds_for(asked.seconds)),
            ),
        ]
        for number, (title, best, work) in enumerate(works):
            context = write_context(folder / f"context{number}", base, work)
            try:
                medians = measure(tools, ground, context, base, asked.jobs, asked.runs)
            except Failed as error:
                print(f"{title}: {error}", file=sys.stderr)
                return 1
            cells = [title, f"{best:.2f} s", *(f"{median:.2f} s" for median in medians)]
            print("| " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
