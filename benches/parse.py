"""Times parsing and planning of a Dockerfile of some 400 lines, in this process, imports left out.

    python -m benches.parse [--lines 400] [--runs 200] [--profile]

See benches/README.md. No disk, no network: the base image is a value.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from img.builder import PlanOptions, make_plan, needed_bases
from img.cli import collect_seldom
from img.dockerfile import parse
from img.oci import Descriptor, Image, ImageConfig, Platform, Reference, sha256
from img.oci.descriptor import OCI_LAYER_GZIP

PLATFORM = Platform("linux", "amd64")
STAGE = """\
FROM busybox:$V AS s{n}
ARG TARGETARCH V
ENV A{n}=x${{V}} B=two\\ words \\
    C="a $V" D=${{TARGETARCH:-none}}
WORKDIR /src/{n}
COPY --chown=1:2 a b ./c{n}/
# a comment between instructions
RUN --network=none apt-get update && \\
    apt-get install -y \\
      # and one inside
      one \\
      two && \\
    rm -rf /x
COPY <<EOF /etc/f{n}
hello $V
EOF
RUN <<EOF
echo one
EOF
LABEL a{n}="b" c=$V
EXPOSE 80 443/udp
USER app
HEALTHCHECK --interval=1m CMD ["check"]
CMD ["a", "b"]

"""


def dockerfile(lines: int) -> bytes:
    """A Dockerfile of about so many lines: stages that one more copies from."""
    stages = max(1, lines // (STAGE.count("\n") + 1))
    text = "# syntax=docker/dockerfile:1\nARG V=1\n" + "".join(STAGE.format(n=n) for n in range(stages))
    return (text + "FROM scratch\n" + "".join(f"COPY --from=s{n} /src /s\n" for n in range(stages))).encode()


def base(reference: Reference, platform: Platform) -> Image:
    """One image for every name."""
    config = ImageConfig(platform=platform, diff_ids=(sha256(b"tar"),)).with_run(Env=["PATH=/bin"])
    return Image.make(config, (Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(b"gz"), size=2),))


def build(data: bytes) -> None:
    """What a build does before its first step."""
    parsed = parse(data)
    options = PlanOptions(platform=PLATFORM, build_platform=PLATFORM, build_args={"V": "2"})
    needed_bases(parsed, options)
    make_plan(parsed, options, base)


def timed(work: Callable[[], object], clock: Callable[[], float], runs: int) -> list[float]:
    """Milliseconds of each run, one untimed before them."""
    work()
    found = []
    for _ in range(runs):
        start = clock()
        work()
        found.append((clock() - start) * 1000)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lines", type=int, default=400)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="where the time goes, in place of the table")
    options = parser.parse_args()
    data = dockerfile(options.lines)
    collect_seldom()  # as the command does
    if options.profile:
        import cProfile

        cProfile.runctx("build(data)", {"build": build, "data": data}, {}, sort="tottime")
        return
    print(f"{len(data.splitlines())} lines, {options.runs} runs; milliseconds")
    for name, work in (("parse", lambda: parse(data)), ("parse and plan", lambda: build(data))):
        wall, cpu = (timed(work, clock, options.runs) for clock in (time.perf_counter, time.process_time))
        print(
            f"{name:15} median {statistics.median(wall):6.2f}, of CPU {statistics.median(cpu):6.2f}, "
            f"best {min(wall):6.2f}"
        )


if __name__ == "__main__":
    main()
