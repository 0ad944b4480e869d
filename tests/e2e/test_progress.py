"""What long work says of itself: what is to come, how far it is, and a sum that adds up."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context
from tests.support.between import Between
from tests.support.command import Img
from tests.support.registry import Registry

pytestmark = pytest.mark.once

MIB = 1 << 20


def told(stderr: str, event: str) -> list[dict[str, Any]]:
    """The events of a kind among what `--progress json` wrote."""
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [each for each in events if each["event"] == event]


def ends(stderr: str, action: str) -> int:
    """Bytes of all transfers of an action, by what their last events say."""
    last = {each["digest"]: each for each in told(stderr, "Transfer") if each["action"] == action}
    assert all(each["done_bytes"] == each["total_bytes"] and each["kind"] for each in last.values())
    return sum(each["done_bytes"] for each in last.values())


@pytest.fixture
def context(make_context: Context) -> Path:
    files = {"noise": random.Random(1).randbytes(9 * MIB), "words": b"words and words\n" * 200_000}
    return make_context({"Dockerfile": "FROM scratch\nCOPY noise /\nCOPY words /\n", **files})


def test_archives_and_checks_say_how_much_there_is_and_how_far_they_are(
    img: Img, context: Path, tmp_path: Path
) -> None:
    img.build(context, tag="t")
    archive = tmp_path / "t.tar"
    saved = img.ok("save", "--progress", "json", "-o", archive, "t").stderr
    (begun,), (done,) = told(saved, "Transferring"), told(saved, "Transferred")
    assert begun["total_bytes"] == ends(saved, "save") == done["moved_bytes"] > 9 * MIB
    assert (begun["blobs"], done["moved"], done["name"]) == (2, 2, begun["name"])

    size = archive.stat().st_size
    loaded = img.ok("load", "--progress", "json", "-i", archive).stderr
    (begun,) = told(loaded, "Transferring")
    assert begun["total_bytes"] == size == ends(loaded, "load")
    assert ends(loaded, "check") == told(loaded, "Transferred")[0]["moved_bytes"] == done["moved_bytes"]

    # A file that is redirected has a length, and a pipe has none.
    with archive.open("rb") as file:
        redirected = subprocess.run(
            img.command("load", "--progress", "json"), stdin=file, capture_output=True, text=True,
            env=img.environment(), check=True, timeout=120,
        ).stderr  # fmt: skip
    piped = subprocess.run(
        img.command("load", "--progress", "json"), input=archive.read_bytes(), capture_output=True,
        env=img.environment(), check=True, timeout=120,
    ).stderr.decode()  # fmt: skip
    for text, known in ((redirected, size), (piped, 0)):
        first, *_, last = [e for e in told(text, "Transfer") if e["digest"] == "standard input"]
        assert (first["total_bytes"], last["total_bytes"]) == (known, size)
    plain = img.ok("load", "--progress", "plain", "-i", archive)
    assert plain.stderr.startswith("loaded 2 layers of t.tar, ") and "Loaded image" in plain.stdout

    checked = img.ok("store", "check", "--progress", "json").stderr
    (begun,) = told(checked, "Transferring")
    assert begun["total_bytes"] == ends(checked, "check") > 0

    img.ok("rm", "t")
    pruned = img.ok("prune", "--all", "--json", "--progress", "json")
    assert ends(pruned.stderr, "prune") <= json.loads(pruned.stdout)["freed_bytes"]


def test_a_blob_that_is_made_meanwhile_says_how_much_of_its_tar_is_there(
    img: Img, context: Path, registry: Registry
) -> None:
    with Between(int(registry.host.rpartition(":")[2])) as between:
        name = f"127.0.0.1:{between.port}/progress/growing:1"
        img.build(context, tag=name)
        pushed = img.ok("push", "--progress", "json", name).stderr
        assert between.count("PATCH")
    moves = [e for e in told(pushed, "Transfer") if e["tar_total_bytes"] and e["action"] == "push"]
    assert moves and all(0 <= e["tar_done_bytes"] <= e["tar_total_bytes"] for e in moves)
    assert all(e["tar_total_bytes"] > 9 * MIB and not (e["total_bytes"] or e["kind"]) for e in moves[:-1])
    assert moves[-1]["kind"] == "sent" and moves[-1]["tar_done_bytes"] == moves[-1]["tar_total_bytes"]
    (done,) = told(pushed, "Transferred")
    layers = {e["digest"]: e["total_bytes"] for e in told(pushed, "Transfer") if e["kind"] == "sent"}
    assert done["moved_bytes"] <= sum(layers.values())  # the config is no layer
