"""A machine that knows nothing builds what another has built: cold, and from a cache in a registry.

    python -m benches.share [--runs 5] [--alone]

See benches/README.md for how to read its table. Each machine is a store of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benches import inputs
from benches.measure import Failed, Ground, Identity, can_mount, run
from tests.support.registry import Registry

Command = list[str]
Build = Callable[..., Command]

STAGES = 3
"""Stages that the image is put together from; each works a while and leaves some files."""

WORK = "i=0; while [ $i -lt {count} ]; do i=$((i+1)); done; head -c 4000000 /dev/urandom > /{name}"
LOOPS = 300_000


def dockerfile(base: str) -> str:
    """Independent stages of real work, and an image that takes one file of each."""
    lines = []
    for number in range(STAGES):
        lines += [f"FROM {base} AS s{number}"]
        lines += [f"RUN {WORK.format(count=LOOPS, name=f'f{number}-{part}')}" for part in range(2)]
    lines += [f"FROM {base}"]
    lines += [f"COPY --from=s{number} /f{number}-1 /f{number}" for number in range(STAGES)]
    return "\n".join([*lines, "RUN ls -l / > /list", ""])


def img(program: str, home: Path, context: Path, *flags: str) -> Command:
    """Builds with a store below `home`."""
    return [program, "--state", f"{home}/store", "build", *flags, "-t", "bench:1", str(context)]


def buildah(home: Path, context: Path, *flags: str) -> Command:
    """The same for buildah, with `--layers`, without which it keeps no cache."""
    storage = ["--root", f"{home}/store", "--runroot", f"{home}/run/storage", "--storage-driver", "overlay"]
    options = ["bud", "--isolation=chroot", "--layers", "--tls-verify=false", *flags]
    return ["buildah", *storage, *options, "-t", "bench:1", str(context)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.share", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument(
        "--dir", type=Path, default=Path("/var/tmp/img-bench"), help="inputs and stores go here"
    )
    parser.add_argument("--img", default=str(Path(sys.executable).parent / "img"), help="the img to measure")
    parser.add_argument("--alone", action="store_true", help="img only, without buildah")
    return parser.parse_args()


def main() -> int:
    """Has another machine write the caches, measures, and prints the table."""
    asked = arguments()
    folder = asked.dir / "share"
    context = folder / "context"
    context.mkdir(parents=True, exist_ok=True)
    ground = Ground(folder=folder, identity=Identity(), fresh=can_mount())
    log = folder / "log"
    with Registry(folder / "registry") as registry:
        base = registry.push_layout(inputs.busybox_layout(folder / "busybox"), "bench/base")
        (context / "Dockerfile").write_text(dockerfile(base))
        ours, theirs = f"{registry.host}/bench/cache", f"{registry.host}/bench/buildah"

        def by_img(home: Path, *flags: str) -> Command:
            return ground.identity.wrap(img(asked.img, home, context, *flags), home)

        def by_buildah(home: Path, *flags: str) -> Command:
            return ground.identity.wrap(buildah(home, context, *flags), home)

        written = ("--cache-to", f"type=registry,ref={ours}-written,mode=max")
        rows: dict[str, tuple[Build, tuple[str, ...]]] = {
            "img, cold": (by_img, ()),
            "img, cold, --cache-to mode=max": (by_img, written),
            "img, --cache-from": (by_img, ("--cache-from", ours)),
        }
        if not asked.alone:
            rows["buildah, cold"] = (by_buildah, ())
            rows["buildah, --cache-from"] = (by_buildah, ("--cache-from", theirs))
        seconds: dict[str, list[float]] = {title: [] for title in rows}
        try:
            with ground.place() as home:
                run(by_img(home, "--cache-to", f"type=registry,ref={ours},mode=max"), home, log)
            if not asked.alone:
                with ground.place() as home:
                    run(by_buildah(home, "--cache-to", theirs), home, log)
            for number in range(asked.runs):
                for title, (build, flags) in rows.items():
                    with ground.place() as home:
                        seconds[title].append(run(build(home, *flags), home, log))
                    print(f"  {title} {number + 1}/{asked.runs}", file=sys.stderr)
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    print("| build | median |\n|---|---|")
    for title, values in seconds.items():
        print(f"| {title} | {statistics.median(values):.2f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
