"""What a build leaves over is removed once its result was said; an interrupt meanwhile loses nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support import hosts
from tests.support.command import Img

pytestmark = pytest.mark.once

DEADLINE = 120
FILES = 1000


@pytest.fixture
def context(img: Img, make_context: Context) -> Path:
    """A context that was built once: to copy it anew gives a layer that the store has already."""
    files = {f"d/{n % 20}/{n}": str(n) for n in range(FILES)}
    context = make_context({"Dockerfile": "FROM scratch\nCOPY d /d\n", **files})
    img.build(context)
    return context


@contextmanager
def _building(img: Img, *args: str | Path, given: Path, output: int) -> Iterator[subprocess.Popen[bytes]]:
    command = ["env", "--default-signal=INT", *img.command("build", *(str(arg) for arg in args))]
    with (
        given.open("rb") as stdin,
        subprocess.Popen(
            command, stdin=stdin, stdout=output, stderr=subprocess.PIPE, env=img.environment()
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _left(img: Img) -> list[str]:
    """What is in the store's folder for work, and in the folders there."""
    command = hosts.inside("find", str(img.state / "work"), "-mindepth", "1", "-maxdepth", "3")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


def _full_pipe() -> tuple[int, int, int]:
    """A pipe into which nothing fits until somebody reads: its ends, and how many bytes are in it."""
    reading, writing = os.pipe()
    room = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, bytes(room))
    return reading, writing, room


@pytest.mark.parametrize("source", ["folder", "archive"])
def test_the_result_is_said_before_what_the_build_left_over_is_removed(
    source: str, img: Img, context: Path, tmp_path: Path
) -> None:
    """Whoever reads the image ID does so late: until then the build waits, and has removed nothing."""
    archive, metadata = tmp_path / "context.tar", tmp_path / "metadata.json"
    subprocess.run(["tar", "-C", str(context), "-cf", str(archive), "."], check=True)
    reading, writing, filled = _full_pipe()
    words = ("-q", "--no-cache", "-t", "late", "--metadata-file", metadata)
    path, left = (context, "/garbage-") if source == "folder" else ("-", "/context")
    with _building(img, *words, path, given=archive, output=writing) as process:
        os.close(writing)
        while not metadata.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        assert img.ok("inspect", "late").json(), "all else is done"
        assert any(left in name for name in _left(img))
        with open(reading, "rb") as pipe:
            pipe.read(filled)
            said = pipe.read().decode().strip()
        assert process.wait(DEADLINE) == 0
    assert said == json.loads(metadata.read_text())["containerimage.config.digest"]
    assert _left(img) == []


def test_an_interrupt_while_it_is_removed_loses_nothing(img: Img, context: Path) -> None:
    reading, writing = os.pipe()
    with _building(
        img, "-q", "--no-cache", "-t", "late", context, given=Path(os.devnull), output=writing
    ) as process:
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.readline().decode().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) in (0, 130)
        assert process.stderr is not None and b"Traceback" not in process.stderr.read()
    assert img.ok("inspect", "late").json()
    assert said == img.ok("images", "--format", "{id}").stdout.split()[0]
    img.ok("prune")
    assert _left(img) == []
    assert img.build(context).stderr.count("Using cache") == 1
    assert len([name for name in img.image("late").tree if name.startswith("d/")]) == FILES + 20
