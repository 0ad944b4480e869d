"""Counts what a command does instead of timing it: system calls (strace), instructions (cachegrind).

A count hardly depends on the machine or on what else runs there. What does depend on how threads meet
(`UNSTEADY`) is left out. The interpreter's byte code lies in a folder of the test's own, so that it is there
whoever installed the package; a command is run once for that before it is counted.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import PROGRAM, Img

UNSTEADY = frozenset(
    {
        "futex", "sched_yield", "madvise", "mmap", "munmap", "mremap", "mprotect", "brk", "restart_syscall",
        "rt_sigreturn", "poll", "ppoll", "clock_nanosleep", "getrandom", "exit", "exit_group",
    }
)  # fmt: skip
"""Calls whose number depends on who waited for whom, and on the memory at hand."""

_INTERPRETER: list[int] = []
"""What `Counting.interpreter` found."""

_CALL = re.compile(r"^\d+ +(\w+)\((.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Calls:
    """The system calls of one command and of all its children.

    Attributes:
        lines: Name and the rest of the line, in order; one that was interrupted is there once.
    """

    lines: tuple[tuple[str, str], ...]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def steady(self) -> int:
        """How many there were, without those that come out differently every time."""
        return sum(count for name, count in self.counts.items() if name not in UNSTEADY)

    def of(self, *names: str) -> int:
        """How many there were of some kinds."""
        return sum(self.counts[name] for name in names)

    def having(self, name: str, pattern: str) -> list[str]:
        """The calls of one kind whose arguments fit a pattern."""
        return [rest for called, rest in self.lines if called == name and re.search(pattern, rest)]


class Counting:
    """An `img` whose work is counted; see the module."""

    def __init__(self, img: Img, folder: Path) -> None:
        """Uses a folder for byte code and logs."""
        self._img = img
        self._folder = folder
        self._environment = {
            **img.environment(),
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "PYTHONHASHSEED": "0",
        }

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self._img.home,
            env=self._environment, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def warm(self, *args: str | Path) -> None:
        """Runs a command for what it leaves: byte code, and a store that knows the build."""
        self._run(*self._command(args))

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        """The command line; `version` is asked for as people do, since that alone is answered at once."""
        return [str(PROGRAM), "version"] if args == ("version",) else self._img.command(*map(str, args))

    def calls(self, *args: str | Path) -> Calls:
        """Runs a command under strace.

        The kernel takes the privilege from newuidmap where an ordinary user traces it: such an `img` has to
        be made with `--single-id`.
        """
        log = self._folder / "strace"
        strace = ("strace", "-f", "-qq", "-y", "-s", "64", "-e", "signal=none", "-o", str(log))
        self._run(*strace, *self._command(args))
        lines = tuple(_CALL.findall(log.read_text(errors="replace")))
        return Calls(lines, Counter(name for name, _ in lines))

    def imports(self, *args: str | Path) -> set[str]:
        """Runs a command; gives the modules that it imported."""
        python = str(PROGRAM.parent / "python")
        done = subprocess.run(
            [python, "-X", "importtime", *self._command(args)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self._img.home,
            env=self._environment, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return set(re.findall(r"^import time:.*\|\s*(\S+)$", done.stderr, re.MULTILINE))

    def instructions(self, *args: str | Path) -> int:
        """Runs a command under cachegrind; gives the instructions of its own process, children left out."""
        return self._cachegrind(*self._command(args))

    def interpreter(self) -> int:
        """The instructions of one that starts and ends, counted once: what others are measured by."""
        if not _INTERPRETER:
            _INTERPRETER.append(self._cachegrind("-c", "pass"))
        return _INTERPRETER[0]

    def _cachegrind(self, *words: str) -> int:
        for old in self._folder.glob("valgrind.*"):
            old.unlink()
        log = self._folder / "valgrind.%p"
        # It counts and no more: callgrind, which notes who calls whom, takes nearly twice as long.
        count = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
        self._run("valgrind", *count, f"--log-file={log}", str(PROGRAM.parent / "python"), *words)
        # A child that was forked has a log of its own; the command itself has the lowest number.
        first = min(self._folder.glob("valgrind.*"), key=lambda path: int(path.suffix[1:]))
        found = re.search(r"I +refs: +([\d,]+)", first.read_text())
        assert found is not None, first.read_text()
        return int(found[1].replace(",", ""))
