"""`Orphans`: every process that came of what a test starts, told by the kernel and not by its looks.

While the block lasts, this process adopts whoever outlives a parent that it started (directly or not):
`PR_SET_CHILD_SUBREAPER`. Whatever is left of a command that has been waited for is then a child of ours,
and a child stays in `/proc` until it is waited for, so nothing is missed between two looks: not a process
that has given up its memory, nor one with another name, root, user or PID namespace. Nothing is polled.

Source: prctl(2), PR_SET_CHILD_SUBREAPER; pidfd_open(2).
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from pathlib import Path
from types import TracebackType

_PR_SET_CHILD_SUBREAPER = 36


class Orphans:
    """Use it in a `with` block around whatever starts and waits for a command."""

    def __init__(self) -> None:
        """Adopts nobody yet."""
        self._others: set[int] = set()

    def __enter__(self) -> Orphans:
        self._others = _children()
        _adopt(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _adopt(0)

    def left(self, seconds: float = 60) -> list[str]:
        """Waits until every adopted process has ended, and all that came of it.

        Args:
            seconds: How long at the most: where a process stays for ever, the test shall say so.
        Returns:
            The command lines of those that are still there by then.
        """
        deadline = time.monotonic() + seconds
        while adopted := _children() - self._others:
            for pid in adopted:
                if not _ended(pid, deadline):
                    return [f"{pid} {_command(pid)}" for pid in sorted(adopted)]
                os.waitpid(pid, 0)
        return []

    def running(self, text: str) -> list[int]:
        """The processes that came of this one and have a text in their arguments."""
        return [pid for pid in _below(os.getpid()) if text in _command(pid)]


def _adopt(on: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, on, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _ended(pid: int, deadline: float) -> bool:
    """Waits for the end of a child, which is not waited for by that."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        return bool(ready)
    finally:
        os.close(descriptor)


def _parents() -> dict[int, int]:
    """Every process of this machine that this user may see, and its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked: not a child of ours, which would wait for us
    return found


def _children() -> set[int]:
    return {pid for pid, parent in _parents().items() if parent == os.getpid()}


def _below(top: int) -> set[int]:
    parents, found = _parents(), {top}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {top}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
