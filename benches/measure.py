"""Times a command and weighs its process tree; gives each run a fresh file system where root can.

`observe` is the one place where anything is timed. `Ground` makes the places that the timed commands write
to. Who they run as says `Identity`. Nothing here knows what is measured.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.01
TICKS = os.sysconf("SC_CLK_TCK")


def can_mount() -> bool:
    """May whoever runs this make file systems on loop files and mount them?"""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


class Failed(RuntimeError):
    """A measured command failed; its figure would mean nothing."""


def end_in_order() -> None:
    """Has a request to end unwind the stack: mounts and daemons go before this process does."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who runs the commands. `user` empty: whoever runs the benches."""

    user: str = ""

    @property
    def label(self) -> str:
        """`root`, or `user`."""
        return "user" if self.user or os.geteuid() else "root"

    def wrap(self, command: list[str], home: Path) -> list[str]:
        """The command as this user, with a clean environment."""
        clean = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8"]
        clean += [f"HOME={home}", f"XDG_RUNTIME_DIR={home}/run", f"TMPDIR={home}"]
        if not self.user:
            return [*clean, *command]
        switch = ["setpriv", "--reuid", self.user, "--regid", self.user, "--init-groups"]
        return [*switch, *clean, *command]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Makes a place for each run.

    Attributes:
        folder: Places, and the loop files below them, lie here.
        identity: Who owns a place, where `place` is not told.
        fresh: Each place is an ext4 of its own on a loop file; needs root.
        size_gb: How large that is at most. The file is sparse.
    """

    folder: Path
    identity: Identity
    fresh: bool
    size_gb: int = 16

    @contextlib.contextmanager
    def place(
        self,
        name: str = "ground",
        *,
        identity: Identity | None = None,
        source: Path | None = None,
        keep: Path | None = None,
    ) -> Iterator[Path]:
        """A folder of the identity: on its own ext4 as root, else on the disk that is there.

        Args:
            name: Places of different names may be open at once.
            identity: Whose folder it is; by default the ground's.
            source: File system that an earlier place kept; the place starts as a copy of it.
            keep: Where the file system goes when the place is closed without an error, instead of away.
                Only a fresh place has one to keep.
        """
        spot = self.folder / name
        image = self.folder / f"{name}.ext4"
        owner = identity or self.identity
        # Another run may have been killed here.
        if spot.is_mount():
            _quiet("umount", "--recursive", str(spot))
        if spot.exists():
            self._remove(spot)
        spot.mkdir(parents=True)
        if self.fresh:
            self._make(image, source)
            _quiet("mount", "-o", "loop", str(image), str(spot))
        home = spot / "home"
        done = False
        try:
            if source is None:
                home.mkdir()
                (home / "run").mkdir(mode=0o700)
                if owner.user:
                    _quiet("chown", "-R", f"{owner.user}:", str(home))
            yield home
            done = True
        finally:
            if self.fresh:
                # After a failure something may still be at work in it; it goes when that ends.
                _quiet("umount", "--recursive", *([] if done else ["--lazy"]), str(spot))
                if keep is not None and done:
                    image.replace(keep)
                else:
                    image.unlink()
                spot.rmdir()
            else:
                self._remove(spot)

    def _make(self, image: Path, source: Path | None) -> None:
        if source is not None:
            _quiet("cp", "--sparse=always", "--reflink=auto", str(source), str(image))
            return
        _quiet("truncate", "-s", f"{self.size_gb}G", str(image))
        _quiet("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", "-m", "0", str(image))

    def _remove(self, spot: Path) -> None:
        if os.geteuid() == 0:
            shutil.rmtree(spot)
        else:
            _quiet("unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", str(spot))


def _quiet(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stderr}")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one command took.

    Attributes:
        seconds: By the clock, from its start to its end.
        cpu_seconds: User and system time of its process tree, and of the daemons beside it meanwhile.
        memory_bytes: Peak of the tree's summed proportional set sizes, with the daemons'; 0: not weighed.
    """

    seconds: float
    cpu_seconds: float
    memory_bytes: int = 0


def observe(
    command: list[str],
    cwd: Path,
    log: Path,
    *,
    daemons: Sequence[int] = (),
    weigh_seconds: float = 0,
) -> Sample:
    """Runs a command to its end.

    Args:
        log: Its output goes here.
        daemons: Processes whose trees belong to what is measured.
        weigh_seconds: How often memory is sampled; 0: never. Often disturbs what is timed.
    Raises:
        Failed: it ended with another code than 0; the message holds the end of its output.
    """
    before = sum(_cpu(pid) for pid in daemons)
    with log.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        with _ended(process), _scales([process.pid, *daemons], weigh_seconds) as peak:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"{' '.join(command)}\n{log.read_text(errors='replace')[-2000:]}")
    beside = sum(_cpu(pid) for pid in daemons) - before
    cpu = usage.ru_utime + usage.ru_stime + max(0.0, beside)
    return Sample(seconds=seconds, cpu_seconds=cpu, memory_bytes=peak[0])


def run(command: list[str], cwd: Path, log: Path) -> float:
    """Runs a command to its end; gives its seconds.

    Raises:
        Failed: it ended with another code than 0; the message holds the end of its output.
    """
    return observe(command, cwd, log).seconds


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Where waiting for it is broken off, the process and its group end, too, and not go on unseen."""
    try:
        yield
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


@contextlib.contextmanager
def _scales(pids: list[int], every_seconds: float) -> Iterator[list[int]]:
    """Samples the trees from a thread; the one number of the list is the highest sum so far."""
    peak = [0]
    if not every_seconds:
        yield peak
        return
    over = threading.Event()

    def sample() -> None:
        while not over.wait(every_seconds):
            peak[0] = max(peak[0], sum(_weight(one) for pid in pids for one in _tree(pid)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for task in tasks:
        try:
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _cpu(pid: int) -> float:
    """Seconds of a tree that lives on: its processes', and those of children that they waited for."""
    total = 0
    for one in _tree(pid):
        try:
            # The name, in parentheses, may hold anything; the times are fields 14 to 17.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def _weight(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
