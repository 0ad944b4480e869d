"""Times a command and weighs its process tree; gives each run a fresh file system where root can."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.01


class Failed(RuntimeError):
    """A measured command failed; its figure would mean nothing."""


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
    """Makes a place for each run."""

    folder: Path
    identity: Identity
    fresh: bool
    size_gb: int = 16

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """An empty folder of the identity: on its own new ext4 as root, else on the disk that is there."""
        spot = self.folder / "ground"
        image = self.folder / "ground.ext4"
        spot.mkdir(parents=True, exist_ok=True)
        if self.fresh:
            _quiet("truncate", "-s", f"{self.size_gb}G", str(image))
            _quiet("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", "-m", "0", str(image))
            _quiet("mount", "-o", "loop", str(image), str(spot))
        home = spot / "home"
        try:
            home.mkdir()
            (home / "run").mkdir(mode=0o700)
            if self.identity.user:
                _quiet("chown", "-R", f"{self.identity.user}:", str(home))
            yield home
        finally:
            if self.fresh:
                _quiet("umount", str(spot))
                image.unlink()
            else:
                self._remove(spot)

    def _remove(self, spot: Path) -> None:
        if os.geteuid() == 0:
            shutil.rmtree(spot)
        else:
            _quiet("unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", str(spot))


def _quiet(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stderr}")


def run(command: list[str], cwd: Path, log: Path) -> float:
    """Runs a command to its end; gives its seconds.

    Raises:
        Failed: it ended with another code than 0; the message holds the end of its output.
    """
    with log.open("wb") as file:
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{log.read_text(errors='replace')[-2000:]}")
    return seconds


def peak_memory(command: list[str], cwd: Path, log: Path) -> int:
    """Runs a command to its end; gives the peak of its tree's proportional set size, in bytes.

    Sampled, so never run together with a timing.
    """
    peak = 0
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        while not _ended(process):
            peak = max(peak, sum(_weight(pid) for pid in _tree(process.pid)))
    if process.returncode:
        raise Failed(f"{' '.join(command)}\n{log.read_text(errors='replace')[-2000:]}")
    return peak


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(SAMPLE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


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


def _weight(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
