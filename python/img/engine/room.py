"""`Room`: whether this machine, or the control group that we are in, has memory for one more step.

The solver asks before it starts a step beside others. Nothing is reserved: it is a brake, not a promise.
Source: proc(5), "meminfo"; Linux, admin-guide/cgroup-v2.rst, "Memory", and admin-guide/cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

RESERVE_BYTES = 256 << 20
"""What is left free, at the most; an eighth of the whole where that is less."""


class Room:
    """Reads how much memory there is, each time it is asked. Safe for several threads."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Finds the control groups; where their files are not there, the machine alone counts.

        Args:
            root: Where `proc` and `sys` are.
        """
        self._meminfo = root / "proc/meminfo"
        self._groups = list(_groups(root))

    def __call__(self) -> bool:
        """Tells whether more than the reserve is free."""
        return all(free > min(RESERVE_BYTES, total // 8) for free, total in self._measures())

    def _measures(self) -> Iterator[tuple[int, int]]:
        """Free and whole bytes, of the machine and of each group with a limit."""
        machine = _fields(self._meminfo)
        if "MemAvailable:" in machine and "MemTotal:" in machine:
            yield machine["MemAvailable:"] * 1024, machine["MemTotal:"] * 1024
        for folder, limit_name, used_name in self._groups:
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None:
                pages = _fields(folder / "memory.stat")
                # Pages of files can be given up at any time: they are no memory that a step needs.
                prefix = "total_" if "total_inactive_file" in pages else ""
                files = pages.get(f"{prefix}inactive_file", 0) + pages.get(f"{prefix}active_file", 0)
                yield limit - used + files, limit


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """The folders of our control group and of those above it, with the names of their files."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = top / path.lstrip("/")
        if not folder.is_dir():
            folder = top  # a namespace of its own shows another path than the mount has
        for each in (folder, *folder.parents):
            if (each / names[0]).exists():
                yield each, *names
            if each == top:
                break


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) < 1 << 60 else None


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split()[:2] for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
