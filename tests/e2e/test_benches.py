"""The benches run, however small, and leave a table and figures that can be read. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benches import results
from benches.growth import load
from tests.support import hosts
from tests.support.command import PROGRAM

ROOT = Path(__file__).resolve().parents[2]
ROWS = ["1", "3p-gzip", "5f", "6", "11-version"]


def _run(module: str, folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", module, "--dir", str(folder), "--out", str(folder / "out")]
    command += ["--img", str(PROGRAM), "--runs", "1", *words]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    finally:
        hosts.remove_tree(folder / "g")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_small_run_gives_a_table_and_figures_of_each_kind_of_row(tmp_path: Path) -> None:
    page = _run("benches.run", tmp_path, "--rows", ",".join(ROWS), "--peers", "none", "--scale", "0.01")
    known = results.load(tmp_path / "out" / "results.json")
    assert [sitting.row for sitting in known.sittings] == ROWS
    assert page.strip() == (tmp_path / "out" / "RESULTS.md").read_text().strip()
    for sitting in known.sittings:
        for one in sitting.figures.values():
            if one.limit and one.problem:
                assert one.problem.endswith("is not installed")
                continue
            assert not one.problem
            assert len(one.seconds) == len(one.cpu_seconds) == 1
        ours = sitting.figures["img"]
        assert ours.seconds[0] > 0 and ours.cpu_seconds[0] > 0 and ours.memory_bytes > 1 << 20
        assert f"\n| {sitting.row} | img | {ours.identity} |" in page
    assert known.sittings[1].figures["img"].stored_bytes > 1 << 20


def test_growth_is_measured_and_drawn(tmp_path: Path) -> None:
    _run("benches.growth", tmp_path, "--only", "bytes", "--most", "10000000")
    known = load(tmp_path / "out" / "growth.json")
    assert [one.work for one in known.points] == ["COPY", "pull", "push, gzip"]
    page = (tmp_path / "out" / "growth.md").read_text()
    assert "| 10 MB |" in page
    assert (tmp_path / "out" / "growth-bytes-time.svg").read_text().startswith("<svg")
