"""Guards: what a command may cost, in system calls and instructions. None of them looks at a clock.

Each figure was measured when it was written; `ROOM` is what another kernel, Python or C library may add.
Where a guard breaks, something does more than it did: `docs/performance.md` says how to find out what. The
figures move only for what is worth it, and down wherever they can.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img
from tests.support.counting import Calls, Counting

pytestmark = pytest.mark.once

ROOM = 1.25

CALLS = {
    "version": 677,
    "ls": 1919,
    "a build of which all is cached, over 1,000 files": 4_966,
    "a build of 30 RUN true": 20_440,
    "a pull of what is here": 4_355,
}
"""System calls of whole commands, children included, without those that are `counting.UNSTEADY`."""

STARTS = {
    "version": 2.3,
    "ls": 6.0,
    "a build of which all is cached, over 1,000 files": 11.4,
}
"""Instructions of whole commands, as multiples of what `python -c pass` takes (28 million)."""

CALLS_OF_A_RUN = 542
CALLS_OF_A_CACHED_RUN = 4
CALLS_OF_AN_ENV = 2
CALLS_OF_A_FILE = 1.0
"""System calls of one more: a RUN true with its container; a RUN found in the cache; an ENV, whose two are
what it prints; a file of the context, which is looked at once and not opened."""

TRANSACTIONS_OF_A_CACHED_BUILD = 16
"""Of one with ten steps that have a layer: one for each of those, since a layer has to be safe from a
collection at once, and the others for the build's record, its name and the uses of the cache."""

NEEDLESS = frozenset(
    {
        "_hashlib", "asyncio", "concurrent.futures", "dataclasses", "difflib", "email", "http.client",
        "locale", "random", "requests", "rich", "ssl", "subprocess", "tempfile", "urllib3",
    }
)  # fmt: skip
"""Modules that take a millisecond or more each, and that nothing needs which finds all it wants."""
FOR_BUILDS_ALONE = frozenset(
    {"logging", "shutil", "dockerfile_parse", "img.builder", "img.dockerfile", "img.engine.recording"}
)
"""Modules that a look into the store has no use for."""


@pytest.fixture
def plain(make_img: MakeImg) -> Img:
    """An `img` that an ordinary user may trace; see `Counting.calls`."""
    return make_img(*([] if os.geteuid() == 0 else ["--single-id"]))


@pytest.fixture
def counting(plain: Img, tmp_path: Path) -> Counting:
    """What counts the work of `plain`."""
    folder = tmp_path / "counting"
    folder.mkdir()
    return Counting(plain, folder)


class Builds:
    """The builds that are counted, each in a context of its own."""

    def __init__(self, counting: Counting, make_context: Context, base: str) -> None:
        """Uses one base image, which the first build fetches."""
        self._counting = counting
        self._make_context = make_context
        self._base = f"FROM {base}\n"

    def cached(self, lines: str, *, files: int = 0) -> tuple[str, ...]:
        """Makes a build of which all is in the cache; gives its words."""
        data = {f"data/{n % 10}/{n}": str(n) for n in range(files)}
        context = self._make_context({"Dockerfile": self._base + lines, **data})
        words = ("build", "-t", "t", str(context))
        self._counting.warm(*words)
        self._counting.warm(*words)  # by now it is known which files do not change any more
        return words

    def of_twenty_steps(self, *, files: int) -> tuple[str, ...]:
        """The build of GOALS: a COPY, nine RUNs, and what touches no file between them."""
        steps = "".join(f"RUN echo {n} > /n{n}\nENV V{n}={n}\n" for n in range(9))
        return self.cached(f"COPY data /data\n{steps}LABEL a=b\n", files=files)

    def calls(self, lines: str) -> Calls:
        """The calls of a build that runs every step."""
        context = self._make_context({"Dockerfile": self._base + lines})
        words = ("build", "--no-cache", "-t", "t", str(context))
        self._counting.warm(*words)
        return self._counting.calls(*words)


@pytest.fixture
def builds(counting: Counting, make_context: Context, busybox_image: str) -> Builds:
    """See `Builds`."""
    return Builds(counting, make_context, busybox_image)


def test_looks_into_the_store(counting: Counting, builds: Builds) -> None:
    builds.cached("ENV A=b\n")
    for verb in ("version", "ls"):
        counting.warm(verb)
        assert counting.calls(verb).steady <= CALLS[verb] * ROOM, verb
        assert counting.instructions(verb) / counting.interpreter() <= STARTS[verb] * ROOM, verb


def test_a_build_of_which_all_is_cached(counting: Counting, builds: Builds, plain: Img) -> None:
    key = "a build of which all is cached, over 1,000 files"
    words = builds.of_twenty_steps(files=1000)
    calls = counting.calls(*words)
    assert calls.steady <= CALLS[key] * ROOM, calls.counts
    assert calls.of("clone", "clone3", "fork", "vfork") <= 8, "threads and processes"
    assert calls.of("execve") == 1, "it runs no program"
    assert len(calls.having("openat", rf"{plain.state}/img\.db\"")) == 1, "one database"
    assert calls.having("openat", r"/data/\d+/\d+\"") == [], "it opens no file of the context"
    writes = calls.having("fcntl", r"img\.db-shm>.*F_WRLCK.*l_start=120,")
    assert len(writes) <= TRANSACTIONS_OF_A_CACHED_BUILD
    synced = calls.of("fsync", "fdatasync", "sync", "syncfs")
    assert synced <= 4, "the database's log: when it is begun, and when it is written back at the end"
    assert counting.instructions(*words) / counting.interpreter() <= STARTS[key] * ROOM


def test_a_file_of_the_context_is_looked_at_once(counting: Counting, builds: Builds) -> None:
    few, many = (counting.calls(*builds.of_twenty_steps(files=files)) for files in (1000, 5000))
    assert (many.steady - few.steady) / 4000 <= CALLS_OF_A_FILE * 1.05, many.counts - few.counts
    assert many.of("openat", "openat2", "open") - few.of("openat", "openat2", "open") <= 10


def test_a_copy_on_a_fresh_machine_reads_each_file_once(counting: Counting, make_context: Context) -> None:
    data = {f"data/{n % 10}/{n}": str(n) for n in range(200)}
    context = make_context({"Dockerfile": "FROM scratch\nCOPY data /data\n", **data})
    calls = counting.calls("build", "-t", "t", str(context))
    opened = [
        re.search(r"[/\"](\d+)\", ", line)
        for name in ("openat", "openat2")
        for line in calls.having(name, r"data/\d/\d+\"|\"\d+\"")
        if "O_CREAT" not in line
    ]
    numbers = Counter(int(found[1]) for found in opened if found)
    assert numbers == Counter(range(200))


def test_a_run(builds: Builds) -> None:
    few, many = (builds.calls("RUN true\n" * count) for count in (10, 30))
    assert many.steady <= CALLS["a build of 30 RUN true"] * ROOM, many.counts
    assert (many.steady - few.steady) / 20 <= CALLS_OF_A_RUN * ROOM, many.counts - few.counts
    forked = many.of("clone", "clone3") - few.of("clone", "clone3")
    assert forked == 2 * 20, "process 1 of the container, and its program; no thread"
    removed = many.of("unlink", "unlinkat", "rmdir") - few.of("unlink", "unlinkat", "rmdir")
    assert removed <= 20, "its claim: folders go when the build is over"


def test_a_run_that_is_cached_and_an_env(counting: Counting, builds: Builds) -> None:
    few, many = (counting.calls(*builds.cached("RUN true\n" * count)) for count in (10, 30))
    assert (many.steady - few.steady) / 20 <= CALLS_OF_A_CACHED_RUN * ROOM, many.counts - few.counts
    few, many = (
        counting.calls(*builds.cached("".join(f"ENV V{n}={n}\n" for n in range(count)))) for count in (5, 25)
    )
    assert (many.steady - few.steady) / 20 <= CALLS_OF_AN_ENV, many.counts - few.counts


def test_a_pull_of_what_is_here(counting: Counting, busybox_image: str) -> None:
    counting.warm("pull", busybox_image)
    counting.warm("pull", busybox_image)
    calls = counting.calls("pull", busybox_image)
    assert calls.steady <= CALLS["a pull of what is here"] * ROOM, calls.counts
    assert calls.of("execve") == 1
    assert calls.of("connect") <= 2, "one connection, and perhaps a look at the name service"


def test_what_is_imported(counting: Counting, builds: Builds) -> None:
    words = builds.of_twenty_steps(files=10)
    assert counting.imports("ls") & (NEEDLESS | FOR_BUILDS_ALONE) == set()
    # dockerfile-parse logs, and so imports what logging does.
    assert counting.imports(*words) & NEEDLESS == set()
    assert counting.imports("version") & (NEEDLESS | FOR_BUILDS_ALONE | {"click", "json", "sqlite3"}) == set()
    assert "img.engine.building" in counting.imports(*words), "the test would see nothing"
    assert sys.version_info >= (3, 10)
