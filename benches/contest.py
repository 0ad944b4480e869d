"""One row: the peers and limits take turns until each has had its runs.

`sit` gives a `Sitting`: what each of them took, or why it has no figure. Places come from `measure.Ground`,
commands from the row. Taking turns, a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.limits import Limit
from benches.measure import SAMPLE_SECONDS, Failed, Ground, Identity, Sample, observe, run
from benches.peers import Command, Peer, Unfit
from benches.results import Figures, Sitting
from benches.workloads import Ground as Kind
from benches.workloads import Row
from tests.support.registry import Registry

LONG_SECONDS = 5
"""What takes longer is weighed in its last timed run, too seldom to disturb it; all else in one more."""
SELDOM_SECONDS = 0.1
OURS = ("img", "img-root")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who takes a turn: a peer or a limit, with what it does in this row.

    Attributes:
        unfit: Why it does not run; empty where it does.
    """

    name: str
    limit: bool
    identity: Identity
    version: str
    before: Callable[[Path], list[Command]]
    timed: Callable[[Path], Command]
    session: Callable[[Path], contextlib.AbstractContextManager[tuple[int, ...]]]
    output: str = ""
    unfit: str = ""


@dataclass(frozen=True, kw_only=True)
class Stand:
    """A place that is open: its folder, and the daemons that run in it."""

    home: Path
    daemons: tuple[int, ...]


def of_peer(peer: Peer, row: Row) -> Contestant:
    """A peer in a row, asked once in vain, so that a misfit shows before anything is made."""
    unfit = peer.missing()
    if not unfit:
        try:
            row.before(peer, Path("/nowhere"))
            row.timed(peer, Path("/nowhere"))
        except Unfit as reason:
            unfit = str(reason)
    return Contestant(
        name=peer.name,
        limit=False,
        identity=peer.identity,
        version="" if peer.missing() else peer.version(),
        before=lambda home: row.before(peer, home),
        timed=lambda home: row.timed(peer, home),
        session=peer.session,
        unfit=unfit,
    )


def of_limit(limit: Limit, identity: Identity) -> Contestant:
    """A limit, run by whoever runs img."""
    return Contestant(
        name=limit.name,
        limit=True,
        identity=identity,
        version="",
        before=limit.before,
        timed=limit.timed,
        session=lambda home: contextlib.nullcontext(()),
        output=limit.output,
        unfit=limit.missing(),
    )


@dataclass
class Turns:
    """The turns of one row.

    Attributes:
        port: Where the registry of a place listens, if the row has one.
        runs: Timed runs of img and of each limit.
        peer_runs: Timed runs of each of the others, which may take minutes.
    """

    row: Row
    ground: Ground
    contestants: list[Contestant]
    port: int
    runs: int
    peer_runs: int

    def __post_init__(self) -> None:
        self.samples: dict[str, list[Sample]] = {one.name: [] for one in self.contestants}
        self.memory: dict[str, int] = {}
        self.stored: dict[str, int] = {}
        self.problems = {one.name: one.unfit for one in self.contestants if one.unfit}
        self.log = self.ground.folder / "log"

    def take(self) -> dict[str, Figures]:
        """All turns; gives each contestant's figures."""
        with contextlib.ExitStack() as prepared:
            starts = {one.name: self._start(one, prepared) for one in self.contestants}
            while due := [one for one in self.contestants if self._due(one)]:
                for one in due:
                    self._turn(one, starts[one.name])
        return {one.name: self._figures(one) for one in self.contestants}

    def _runs(self, one: Contestant) -> int:
        return self.runs if one.limit or one.name in OURS else self.peer_runs

    def _due(self, one: Contestant) -> bool:
        if one.name in self.problems:
            return False
        return len(self.samples[one.name]) < self._runs(one) or one.name not in self.memory

    def _start(self, one: Contestant, kept: contextlib.ExitStack) -> Stand | Path | None:
        """What all runs of a contestant have in common: its shared place, or a file system to copy."""
        if one.name in self.problems:
            return None
        with self._noted(one):
            if self.row.ground is Kind.SHARED:
                stand = kept.enter_context(self._open(one, _plain(one.name)))
                self._prepare(one, stand)
                return stand
            if self.row.ground is Kind.COPIED and self.ground.fresh:
                image = self.ground.folder / f"kept-{_plain(one.name)}.ext4"
                kept.callback(image.unlink, missing_ok=True)
                with self._open(one, "one", keep=image) as stand:
                    self._prepare(one, stand)
                return image
        return None

    def _turn(self, one: Contestant, start: Stand | Path | None) -> None:
        """One run: a timed one, or, when there were enough, one to be weighed."""
        count = len(self.samples[one.name])
        enough = count >= self._runs(one)
        last_and_long = count == self._runs(one) - 1 and self._long(one)
        weigh_seconds = SAMPLE_SECONDS if enough else SELDOM_SECONDS if last_and_long else 0
        began = time.monotonic()
        with self._noted(one):
            if isinstance(start, Stand):
                sample = self._timed(one, start, weigh_seconds)
            else:
                with self._open(one, "one", source=start) as stand:
                    if start is None:
                        self._prepare(one, stand)
                    else:
                        _read_all(stand.home)
                    sample = self._timed(one, stand, weigh_seconds)
            if weigh_seconds:
                self.memory[one.name] = sample.memory_bytes
            if not enough:
                self.samples[one.name].append(sample)
            whole = time.monotonic() - began
            said = f"{count + 1}: {sample.seconds:.1f} s, {whole:.0f} s with its place"
            print(f"  {self.row.key} {one.name} {said}", file=sys.stderr)

    def _long(self, one: Contestant) -> bool:
        seconds = [sample.seconds for sample in self.samples[one.name]]
        return bool(seconds) and min(seconds) > LONG_SECONDS

    @contextlib.contextmanager
    def _noted(self, one: Contestant) -> Iterator[None]:
        """A failure is the contestant's alone: it is named in its place, and the others go on."""
        try:
            yield
        except Failed as error:
            print(f"  {self.row.key} {one.name} failed: {error}", file=sys.stderr)
            self.problems[one.name] = f"failed: {str(error).strip().splitlines()[-1][:200]}"

    @contextlib.contextmanager
    def _open(
        self, one: Contestant, name: str, *, source: Path | None = None, keep: Path | None = None
    ) -> Iterator[Stand]:
        """A place, with the row's registry in it where it has one."""
        with self.ground.place(name, identity=one.identity, source=source, keep=keep) as home:
            registry = Registry(home.parent / "registry", port=self.port)
            with registry if self.row.registry else contextlib.nullcontext(), one.session(home) as daemons:
                yield Stand(home=home, daemons=daemons)

    def _prepare(self, one: Contestant, stand: Stand) -> None:
        for command in one.before(stand.home):
            run(one.identity.wrap(command, stand.home), stand.home, self.log)
        # What was written before reaches the disk now, and not in what is timed.
        run(["sync", "--file-system", str(stand.home)], stand.home, self.log)

    def _timed(self, one: Contestant, stand: Stand, weigh_seconds: float) -> Sample:
        if self.row.change is not None:
            self.row.change()
        command = one.identity.wrap(one.timed(stand.home), stand.home)
        sample = observe(command, stand.home, self.log, daemons=stand.daemons, weigh_seconds=weigh_seconds)
        if one.output:
            self.stored[one.name] = (stand.home / one.output).stat().st_size
        elif self.row.registry and not one.limit:
            self.stored[one.name] = _blob_bytes(stand.home.parent / "registry" / "data")
        return sample

    def _figures(self, one: Contestant) -> Figures:
        samples = self.samples[one.name] if one.name not in self.problems else []
        return Figures(
            name=one.name,
            limit=one.limit,
            identity=one.identity.label,
            version=one.version,
            seconds=tuple(round(sample.seconds, 4) for sample in samples),
            cpu_seconds=tuple(round(sample.cpu_seconds, 3) for sample in samples),
            memory_bytes=self.memory.get(one.name, 0),
            stored_bytes=self.stored.get(one.name, 0),
            problem=self.problems.get(one.name, ""),
        )


def sit(turns: Turns, *, date: str, command: str, machine: str, scale: float) -> Sitting:
    """Runs a row; gives what is to be kept of it."""
    load, began = round(os.getloadavg()[0], 1), time.monotonic()
    figures = turns.take()
    print(f"  {turns.row.key} took {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    return Sitting(
        row=turns.row.key,
        date=date,
        command=command,
        machine=machine,
        scale=scale,
        fresh=turns.ground.fresh,
        load=load,
        figures=figures,
    )


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _read_all(home: Path) -> None:
    """Reads a copied place once: what was just built is warm, and a copy of it is cold."""
    find = ["find", str(home), "-xdev", "-type", "f", "-size", "+0", "-exec", "cat", "{}", "+"]
    run(find, home, Path(os.devnull))


def _blob_bytes(folder: Path) -> int:
    """What the blobs of a docker-registry's storage have together; each lies in a file called data."""
    return sum(path.stat().st_size for path in folder.rglob("data") if path.is_file())
