"""How much memory is left: of the machine, and of a control group of either version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from img.engine.room import RESERVE_BYTES, Room

GB = 1 << 30
LITTLE = RESERVE_BYTES - 1


def room(root: Path, files: Mapping[str, object], *, available: int = 8 * GB) -> bool:
    meminfo = f"MemTotal: {16 * GB // 1024} kB\nMemAvailable: {available // 1024} kB\n"
    for name, content in {"proc/meminfo": meminfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return Room(root)()


def test_the_machine_counts_where_there_is_no_group(tmp_path: Path) -> None:
    assert room(tmp_path, {})
    assert not room(tmp_path, {}, available=LITTLE)


def v2(limit: object, current: int, files: int = 0) -> dict[str, object]:
    group = "sys/fs/cgroup/user/build"
    return {
        "proc/self/cgroup": "0::/user/build\n",
        f"{group}/memory.max": limit,
        f"{group}/memory.current": current,
        f"{group}/memory.stat": f"anon 5\ninactive_file {files}\nactive_file 0\n",
    }


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (v2("max", 100 * GB), True),
        (v2(4 * GB, 1 * GB), True),
        (v2(4 * GB, 4 * GB - LITTLE), False),
        (v2(4 * GB, 4 * GB - LITTLE, files=GB), True),
        (v2(64 << 20, 50 << 20), True),
        (v2(64 << 20, 60 << 20), False),
    ],
)
def test_a_group_s_limit_counts_and_pages_of_files_do_not(
    files: dict[str, object], free: bool, tmp_path: Path
) -> None:
    assert room(tmp_path, files) is free


def test_a_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    above = "sys/fs/cgroup/user"
    files = {**v2("max", GB), f"{above}/memory.max": 2 * GB, f"{above}/memory.current": 2 * GB}
    assert not room(tmp_path, files)


def test_a_group_of_version_1_counts(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/build"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/build\n4:memory:/build\n1:name=systemd:/\n",
        f"{group}/memory.limit_in_bytes": GB,
        f"{group}/memory.usage_in_bytes": GB - 1,
    }
    assert not room(tmp_path, files)
    files[f"{group}/memory.stat"] = f"cache 1\ntotal_inactive_file {GB // 2}\n"
    assert room(tmp_path, files)


def test_in_a_namespace_of_its_own_the_group_is_the_top(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/../../elsewhere\n",
        "sys/fs/cgroup/memory.max": GB,
        "sys/fs/cgroup/memory.current": GB,
    }
    assert not room(tmp_path, files)


def test_nothing_to_read_means_room(tmp_path: Path) -> None:
    assert Room(tmp_path)()
    assert Room()() in (True, False)
