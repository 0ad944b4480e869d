"""Times a build in which a source file changed and what is made of it did not: `python -m benches.cutoff`.

    python -m benches.cutoff [--runs 3] [--user NAME --img PATH] [--dir /var/tmp/img-bench]

A comment in a source file changes. The step that compiles it runs again and gives the same bytes; ten
slow steps stand on its output. With an output-equality cut-off they are known; without one they run.
`img` and buildah take turns, each with a store of its own that has built the context before.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path

from benches import inputs
from benches.measure import Ground, Identity, can_mount, run
from benches.peers import Build, Buildah, Img, Peer
from tests.support.registry import Registry

SLOW_STEPS = 10
SLOW_SECONDS = 0.3

# The "compiler" takes comments and blank lines away: what is left is what it makes of the source.
DOCKERFILE = """\
FROM {base} AS make
COPY main.src /main.src
RUN grep -v '^#' /main.src > /main.out && sleep {seconds}
FROM {base}
COPY --from=make /main.out /main.out
{slow}
"""


def context(folder: Path, base: str) -> Path:
    """The Dockerfile, and its source without the comment that changes."""
    folder.mkdir(parents=True, exist_ok=True)
    slow = "\n".join(f"RUN sleep {SLOW_SECONDS} && cp /main.out /out{n}" for n in range(SLOW_STEPS))
    text = DOCKERFILE.format(base=base, slow=slow, seconds=SLOW_SECONDS)
    (folder / "Dockerfile").write_text(text)
    source(folder, 0)
    return folder


def source(folder: Path, number: int) -> None:
    """Writes the source: another comment, the same code."""
    code = "\n".join(f"line {n}" for n in range(1000))
    (folder / "main.src").write_text(f"# comment {number}\n{code}\n")


def measure(tool: Peer, place: Path, base: str, ground: Ground, number: int) -> float:
    """Builds once, untimed; changes the comment; gives the seconds of the build after that."""
    log = ground.folder / "log"
    build = Build(context=place, dockerfile=place / "Dockerfile")
    with ground.place() as home:
        source(place, 2 * number)
        for command in (tool.pull(home, base), tool.build(home, build)):
            run(ground.identity.wrap(command, home), home, log)
        source(place, 2 * number + 1)
        return run(ground.identity.wrap(tool.build(home, build), home), home, log)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.cutoff")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/img-bench"))
    parser.add_argument("--user", default="")
    parser.add_argument("--img", default=str(Path(sys.executable).parent / "img"))
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    ground = Ground(folder=options.dir, identity=Identity(user=options.user), fresh=can_mount())
    with Registry(options.dir / "registry") as registry:
        base = registry.push_layout(inputs.busybox_layout(options.dir / "busybox"), "bench/base")
        place = context(options.dir / "cutoff", base)
        tools: list[Peer] = [Img(name="img", identity=ground.identity, program=options.img)]
        if shutil.which("buildah"):
            tools.append(Buildah(name="buildah", identity=ground.identity, program="buildah"))
        seconds: dict[str, list[float]] = {tool.name: [] for tool in tools}
        for number in range(options.runs):
            for tool in tools:
                seconds[tool.name].append(measure(tool, place, base, ground, number))
    print(f"{'tool':>8} {'median s':>9} {'least s':>8}")
    for name, times in seconds.items():
        print(f"{name:>8} {statistics.median(times):>9.3f} {min(times):>8.3f}")


if __name__ == "__main__":
    main()
