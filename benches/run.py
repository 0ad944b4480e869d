"""Makes the inputs, runs `img` beside its peers in turns, and writes one table.

    python -m benches.run [--rows 1,3p,6] [--peers buildah,buildkit] [--runs 5] [--user NAME --img PATH]

What is measured goes into results.json, row by row as it comes; RESULTS.md is made from that. See
benches/README.md for what each row is, how to read it, and how to measure as an ordinary user.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from benches import inputs, later, machine, report, results
from benches.contest import Turns, of_limit, of_peer, sit
from benches.measure import Failed, Ground, Identity, can_mount, end_in_order
from benches.peers import Peer, all_peers
from benches.workloads import LINES, Workloads, chosen
from tests.support.registry import Registry

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
FULL_SIZE_GB = 16


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rows", default=",".join(LINES), help=f"rows to run, of {', '.join(LINES)} (default: all)")
    add("--peers", default="buildkit,buildah", help="who runs beside img: names, all, or none")
    add("--runs", type=int, default=5, help="timed runs of img and of the limits (default: 5)")
    add("--peer-runs", type=int, default=0, help="timed runs of each peer (default: as --runs)")
    add("--no-limits", action="store_true", help="without the programs that do a part of the work alone")
    add("--scale", type=float, default=1.0, help="size of the inputs (default: 1.0)")
    add("--dir", type=Path, default=Path("/var/tmp/img-bench"), help="inputs and stores go here")
    add("--user", default="", help="as root: run img, and buildah-user, as this user")
    add("--img", default=str(Path(sys.executable).parent / "img"), help="the img to measure")
    add("--new", type=Path, metavar="FOLDER", help="root of a later Debian, made where it is not there yet")
    add("--suite", default="sid", help="which Debian that is (default: sid)")
    add("--out", type=Path, help="where results.json and RESULTS.md go (default: benches/out/)")
    add("--publish", action="store_true", help="they go to benches/, to be committed")
    add("--report", action="store_true", help="run nothing: make RESULTS.md of results.json again")
    asked = parser.parse_args(words)
    try:
        asked.rows = chosen([word for word in asked.rows.split(",") if word])
    except ValueError as error:
        parser.error(str(error))
    if asked.publish and asked.scale != 1.0:
        parser.error("--publish is for inputs of full size")
    kept = OUT if asked.scale == 1.0 else OUT / f"scale-{asked.scale:g}"
    asked.out = HERE if asked.publish else asked.out or kept
    return asked


def peers(asked: argparse.Namespace) -> list[Peer]:
    """img, and whom `--peers` names.

    Raises:
        Failed: it names one that there is not, or the later Debian cannot be made.
    """
    inside: tuple[str, ...] = ()
    if asked.new is not None:
        later.make(asked.new, asked.suite)
        inside = later.words(asked.new, asked.dir)
    known = all_peers(asked.img, Identity(user=asked.user), Identity(), inside)
    wanted = {"all": [peer.name for peer in known], "none": []}.get(asked.peers, asked.peers.split(","))
    names = [peer.name for peer in known]
    for name in wanted:
        if name not in names:
            raise Failed(f"no peer {name}; there are {', '.join(names[1:])}, all and none")
    return [peer for peer in known if peer.name == results.REFERENCE or peer.name in wanted]


def free_port() -> int:
    """A port on loopback that nobody listens on; the places' registries take it in turns."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def workloads(folder: Path, scale: inputs.Scale, registry: Registry, port: int) -> Workloads:
    """The rows, over the benches' registry; a layout is pushed to it once."""
    pushed: dict[tuple[Path, str], str] = {}

    def push(layout: Path, name: str) -> str:
        if (layout, name) not in pushed:
            pushed[layout, name] = registry.push_layout(layout, name)
        return pushed[layout, name]

    return Workloads(folder=folder, push=push, host=f"127.0.0.1:{port}", scale=scale)


def measure(asked: argparse.Namespace, folder: Path, note: Callable[[results.Sitting], None]) -> bool:
    """Runs the rows; hands on each as it ends. True where everybody that could run did."""
    size_gb = max(1, round(FULL_SIZE_GB * asked.scale))
    # A place's path is short: podman refuses long ones, and so do sockets.
    ground = Ground(
        folder=asked.dir / "g", identity=Identity(user=asked.user), fresh=can_mount(), size_gb=size_gb
    )
    contestants, port, well = peers(asked), free_port(), True
    with Registry(folder / "registry") as registry:
        rows = workloads(folder, inputs.Scale(factor=asked.scale), registry, port)
        for key in asked.rows:
            row = rows.row(key)
            limits = () if asked.no_limits else row.limits
            turns = Turns(
                row=row,
                ground=ground,
                contestants=[
                    *(of_peer(peer, row) for peer in contestants),
                    *(of_limit(limit, ground.identity) for limit in limits),
                ],
                port=port,
                runs=asked.runs,
                peer_runs=asked.peer_runs or asked.runs,
            )
            sitting = sit(
                turns,
                date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                command=shlex.join(["python", "-m", "benches.run", *sys.argv[1:]]),
                machine=machine.describe(folder, fresh=ground.fresh),
                scale=asked.scale,
            )
            well &= not any(one.problem.startswith("failed") for one in sitting.figures.values())
            note(sitting)
    return well


def write(folder: Path, known: results.Results) -> str:
    """Writes both files; gives the page."""
    results.save(known, folder / "results.json")
    page = report.render(known)
    (folder / "RESULTS.md").write_text(page)
    return page


def main() -> int:
    """Runs what was asked for and prints the page."""
    end_in_order()
    asked = arguments()
    folder = asked.dir / f"scale-{asked.scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    known = results.load(asked.out / "results.json")
    if asked.report:
        write(asked.out, known)
        return 0

    def note(sitting: results.Sitting) -> None:
        nonlocal known
        known = known.with_sitting(sitting)
        write(asked.out, known)

    with (asked.dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (asked.dir / "g").mkdir(exist_ok=True)
        try:
            well = measure(asked, folder, note)
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
    print(write(asked.out, known))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
