"""What a figure was measured on, in one line."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def describe(folder: Path, *, fresh: bool) -> str:
    """Processor, processors, memory, kernel, and the file system that the runs write to."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    system = "a fresh ext4 on a loop file for each run, on " if fresh else ""
    return (
        f"{model}, {len(os.sched_getaffinity(0))} processors, {kilobytes / 2**20:.0f} GB of memory, "
        f"Linux {platform.release()}, {system}{_file_system(folder)}"
    )


def _file_system(folder: Path) -> str:
    done = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout.strip() or "an unknown file system").splitlines()[0]
