"""Random graphs of stages: neither the number of jobs nor a kill at any point changes the image's digest.

`IMG_TEST_GRAPHS` says how many graphs are built; a graph is made from its number alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img

pytestmark = pytest.mark.once

GRAPHS = int(os.environ.get("IMG_TEST_GRAPHS", "3"))
EPOCH = ("--build-arg", "SOURCE_DATE_EPOCH=1000000000")


class Drawn:
    """A Dockerfile drawn by chance: stages that stand on each other and copy from each other."""

    def __init__(self, chance: Random, busybox: str) -> None:
        self.chance = chance
        self.busybox = busybox
        self.lines: list[str] = []
        self.runs: list[bool] = []
        for number in range(chance.randint(3, 6)):
            self._stage(number)
        self.lines.append("FROM scratch")
        for number in chance.sample(range(len(self.runs)), chance.randint(1, len(self.runs))):
            self._take(number)

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def _stage(self, number: int) -> None:
        below = self.chance.choice(["scratch", "busybox", "busybox", "stage"] if number else ["busybox"])
        stands_on = self.chance.randrange(number) if below == "stage" else -1
        runs = self.runs[stands_on] if below == "stage" else below == "busybox"
        base = {"scratch": "scratch", "busybox": self.busybox, "stage": f"s{stands_on}"}[below]
        self.lines += [f"FROM {base} AS s{number}", f"COPY file /out{number}/"]
        for _ in range(self.chance.randint(1, 4)):
            self._step(number, runs)
        self.runs.append(runs)

    def _step(self, number: int, runs: bool) -> None:
        name = self.chance.randrange(100)
        kinds = ["copy", "workdir", "env", *(["take"] if number else []), *(["run", "remove"] * 2 * runs)]
        kind = self.chance.choice(kinds)
        if kind == "run":
            self.lines.append(f"RUN echo {name} $A > /out{number}/f{name} && cp /out{number}/f* /tmp/")
        elif kind == "remove":
            self.lines.append(f"RUN rm -rf /out{number}/f* && echo gone > /out{number}/g{name}")
        elif kind == "copy":
            link = self.chance.choice(["", "--link "])
            self.lines.append(f"COPY {link}file folder /out{number}/c{name}/")
        elif kind == "workdir":
            self.lines.append(f"WORKDIR /w{name}/deep")
        elif kind == "env":
            self.lines.append(f"ENV A={name}")
        else:
            self._take(self.chance.randrange(number))

    def _take(self, number: int) -> None:
        link = self.chance.choice(["", "--link "])
        self.lines.append(f"COPY {link}--from=s{number} /out{number} /from{number}/")


@pytest.fixture
def context(make_context: Context) -> Path:
    return make_context({"file": "a file\n", "folder/one": "1", "folder/two/three": "3"})


def killed(img: Img, context: Path, jobs: str, after: int) -> set[int]:
    """Builds until that many events have come, then kills; gives the steps that had ended by then."""
    process = img.start("build", *EPOCH, "--progress", "json", "--jobs", jobs, "-t", "t", context)
    assert process.stdout is not None
    done = set()
    for _ in range(after):
        line = process.stdout.readline()
        if not line.startswith(b"{"):
            break
        event = json.loads(line)
        if event["event"] == "StepDone":
            assert not event["error"], event
            done.add(event["step"])
    process.kill()
    process.communicate()
    return done


@pytest.mark.parametrize("number", range(GRAPHS))
def test_any_number_of_jobs_and_any_kill_gives_the_digest_of_a_cold_build(
    number: int, make_img: MakeImg, context: Path, busybox_image: str
) -> None:
    chance = Random(number)
    (context / "Dockerfile").write_text(Drawn(chance, busybox_image).text)
    cold = make_img().ok("build", *EPOCH, "--jobs", "1", "--json", "-t", "t", context).json()
    for jobs in ("1", "2", "8"):
        img = make_img()
        done: set[int] = set()
        for _ in range(chance.randint(1, 3)):
            done |= killed(img, context, jobs, after=chance.randint(1, cold["steps"] * 2))
        flags = (*EPOCH, "--progress", "json", "--jobs", jobs, "--json", "-t", "t")
        resumed = img.ok("build", *flags, context)
        assert resumed.json()["digest"] == cold["digest"], (context / "Dockerfile").read_text()
        events = [json.loads(line) for line in resumed.stderr.splitlines() if line.startswith("{")]
        again = {event["step"] for event in events if event["event"] == "StepStarted"}
        assert not again & done, "a step that had ended ran again"
        last = img.ok("build", *flags, context).json()
        assert last["cached_steps"] == last["steps"]
