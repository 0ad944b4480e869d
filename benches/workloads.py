"""The rows: what each builds, pulls or pushes, what came before, and what `img` must reach.

`Row` is one line of the goals; `Workloads` makes those that are asked for, with their inputs, and only those.
How a program is asked is `benches.peers`'; what a run is made of, `benches.contest`'s.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benches import inputs, limits
from benches.limits import Limit
from benches.peers import Build, Command, Peer, chain

CHANGED_BYTES = 4096


class Ground(Enum):
    """What a timed run finds under it."""

    FRESH = "a place of its own, in which everything that comes before was done again"
    COPIED = "a copy of the place in which what comes before was done once"
    SHARED = "the one place that all runs of a program share: nothing is written that counts"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What `img` must reach: some seconds, or a limit's time by a factor."""

    seconds: float = 0
    limit: str = ""
    factor: float = 1

    def text(self) -> str:
        """As a table says it."""
        if self.limit:
            return f"{self.factor:g} x {self.limit}"
        return f"{self.seconds:g} s" if self.seconds else ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a table says of a row before anything was measured."""

    title: str
    goal: Goal = Goal()


LINES = {
    "1": Line(title="tiny cold build: busybox, COPY, RUN true", goal=Goal(seconds=0.10)),
    "2": Line(title="busybox + 30 RUN true, no cache", goal=Goal(seconds=0.25)),
    "3": Line(title="COPY of 1.07 GB in 2,000 files", goal=Goal(seconds=1.5)),
    "3p-gzip": Line(title="push of that to an empty registry, gzip", goal=Goal(seconds=4.5)),
    "3p-zstd": Line(title="push of that to an empty registry, zstd", goal=Goal(seconds=2.4)),
    "4": Line(title="COPY of 100,000 small files", goal=Goal(seconds=3)),
    "5": Line(title="20 instructions over those, all cached", goal=Goal(seconds=0.35)),
    "5f": Line(title="20 instructions over 100 files, all cached"),
    "6": Line(title="one file of the 100,000 changed, rebuild", goal=Goal(seconds=2)),
    "6p": Line(title="one file of the 100,000 changed, rebuild and push"),
    "7": Line(title="pull of 1.1 GB in 60,000 entries to a ready root", goal=Goal(seconds=3.5)),
    "8-pull": Line(title="pull of 1.07 GB in 5 layers of 2,000 files to a ready root"),
    "8-push": Line(title="push of that, as it was pulled, to an empty registry"),
    "8-copy": Line(title="copy of that from one registry to another"),
    "9": Line(
        title="RUN that writes 180 MB in 20,000 files", goal=Goal(limit="the work itself", factor=1.15)
    ),
    "10": Line(title="four independent stages of 2 s", goal=Goal(seconds=2.15)),
    "11-version": Line(title="version", goal=Goal(seconds=0.040)),
    "11-images": Line(title="list of images", goal=Goal(seconds=0.060)),
    "rm": Line(title="removal of a layer of 100,000 files", goal=Goal(limit="rm -rf")),
}
"""The rows, in the table's order. The numbers are the goals'."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line: commands that come before, untimed, and the one that is measured.

    Attributes:
        change: What is done to the context right before the timed command; no two calls leave the same.
        registry: An empty registry lies in each place.
    """

    key: str
    before: Callable[[Peer, Path], list[Command]]
    timed: Callable[[Peer, Path], Command]
    limits: tuple[Limit, ...] = ()
    ground: Ground = Ground.FRESH
    change: Callable[[], None] | None = None
    registry: bool = False


@dataclass(frozen=True, kw_only=True)
class Workloads:
    """Makes rows.

    Attributes:
        folder: Inputs go here, and are kept.
        push: Puts a layout into the benches' registry under a name; gives the reference.
        host: The registry of the places, where they have one.
    """

    folder: Path
    push: Callable[[Path, str], str]
    host: str
    scale: inputs.Scale

    def row(self, key: str) -> Row:
        """One row, its inputs made where they are not there yet."""
        makers: dict[str, Callable[[], Row]] = {
            "1": self._tiny,
            "2": self._runs,
            "3": lambda: self._copy("3", self._large()),
            "3p-gzip": lambda: self._push("gzip", "pigz -6", "pigz -1"),
            "3p-zstd": lambda: self._push("zstd", "zstd -q -3 -T0"),
            "4": lambda: self._copy("4", self._small()),
            "5": lambda: self._cached("5", self._small()),
            "5f": lambda: self._cached("5f", self._few()),
            "6": self._changed,
            "6p": self._changed_pushed,
            "7": self._pull,
            "8-pull": self._five_pulled,
            "8-push": self._five_pushed,
            "8-copy": self._five_copied,
            "9": self._work,
            "10": self._stages,
            "11-version": self._version,
            "11-images": self._images,
            "rm": self._remove,
        }
        return makers[key]()

    def _base(self) -> str:
        return self.push(inputs.busybox_layout(self.folder / "busybox"), "bench/base")

    def _pulled(self) -> Callable[[Peer, Path], list[Command]]:
        base = self._base()
        return lambda peer, home: [peer.pull(home, base)]

    def _file(self, context: Path, name: str, lines: str) -> Path:
        """A Dockerfile of these lines over busybox."""
        context.mkdir(parents=True, exist_ok=True)
        path = context / f"Dockerfile.{name}"
        path.write_text(f"FROM {self._base()}\n{lines}")
        return path

    def _large(self) -> Path:
        return inputs.large_files(self.folder / "large" / "data", self.scale).parent

    def _small(self) -> Path:
        return inputs.small_files(self.folder / "small" / "data", self.scale).parent

    def _few(self) -> Path:
        return inputs.small_files(self.folder / "few" / "data", inputs.Scale(factor=0.001)).parent

    def _tiny(self) -> Row:
        context = self.folder / "tiny"
        file = self._file(context, "1", "COPY hello /hello\nRUN true\n")
        (context / "hello").write_text("hello\n")
        return Row(
            key="1",
            before=self._pulled(),
            timed=lambda peer, home: peer.build(home, Build(context=context, dockerfile=file)),
            limits=(
                limits.shell("unshare, true", "unshare --user --map-root-user --mount --pid --fork true"),
            ),
        )

    def _runs(self) -> Row:
        context = self.folder / "runs"
        file = self._file(context, "2", "RUN true\n" * 30)
        build = Build(context=context, dockerfile=file, flags=("--no-cache",))
        return Row(
            key="2",
            before=self._pulled(),
            timed=lambda peer, home: peer.build(home, build),
        )

    def _copy(self, key: str, context: Path) -> Row:
        build = Build(context=context, dockerfile=self._file(context, "copy", "COPY data /data\n"))
        return Row(
            key=key,
            before=self._pulled(),
            timed=lambda peer, home: peer.build(home, build),
            limits=limits.copying(context / "data"),
        )

    def _push(self, compression: str, *programs: str) -> Row:
        context, pulled = self._large(), self._pulled()
        tag = f"{self.host}/bench/large:1"
        file = self._file(context, "copy", "COPY data /data\n")
        build = Build(context=context, dockerfile=file, tag=tag)
        return Row(
            key=f"3p-{compression}",
            before=lambda peer, home: [*pulled(peer, home), peer.build(home, build)],
            timed=lambda peer, home: peer.push(home, tag, compression),
            limits=limits.packing(context / "data", *programs),
            ground=Ground.COPIED,
            registry=True,
        )

    def _cached(self, key: str, context: Path) -> Row:
        lines = "".join(f"ENV V{n}={n}\n" if n % 2 else f"RUN echo {n} > /n{n}\n" for n in range(18))
        build = Build(context=context, dockerfile=self._file(context, "cached", f"COPY data /data\n{lines}"))
        pulled = self._pulled()
        return Row(
            key=key,
            before=lambda peer, home: [*pulled(peer, home), peer.build(home, build)],
            timed=lambda peer, home: peer.build(home, build),
            limits=limits.walking(context / "data"),
            ground=Ground.SHARED,
        )

    def _change(self) -> Callable[[], None]:
        """Gives one file a content that it never had."""
        path = self.folder / "small" / "data" / "p0" / "q0" / "r0" / "f0"
        count = itertools.count()

        def change() -> None:
            path.write_bytes(f"{time.time_ns()} {next(count)}".encode().ljust(CHANGED_BYTES))

        return change

    def _changed(self) -> Row:
        context, pulled = self._small(), self._pulled()
        build = Build(context=context, dockerfile=self._file(context, "copy", "COPY data /data\n"))
        return Row(
            key="6",
            before=lambda peer, home: [*pulled(peer, home), peer.build(home, build)],
            timed=lambda peer, home: peer.build(home, build),
            limits=limits.linking(context / "data"),
            ground=Ground.COPIED,
            change=self._change(),
        )

    def _changed_pushed(self) -> Row:
        context, pulled = self._small(), self._pulled()
        tag = f"{self.host}/bench/small:1"
        file = self._file(context, "copy", "COPY data /data\n")
        build = Build(context=context, dockerfile=file, tag=tag)

        def both(peer: Peer, home: Path) -> list[Command]:
            return [peer.build(home, build), peer.push(home, tag, "gzip")]

        return Row(
            key="6p",
            before=lambda peer, home: [*pulled(peer, home), *both(peer, home)],
            timed=lambda peer, home: chain(*both(peer, home)),
            ground=Ground.COPIED,
            change=self._change(),
            registry=True,
        )

    def _pull(self) -> Row:
        layout = inputs.image_layout(self.folder / "image", self.scale)
        reference = self.push(layout, "bench/image")
        return Row(
            key="7",
            before=lambda peer, home: [],
            timed=lambda peer, home: peer.pull(home, reference),
            limits=limits.unpacking(layout),
        )

    def _five(self) -> tuple[Path, str]:
        layout = inputs.five_layers(self.folder / "five", self.scale)
        return layout, self.push(layout, "bench/five")

    def _five_pulled(self) -> Row:
        layout, reference = self._five()
        return Row(
            key="8-pull",
            before=lambda peer, home: [],
            timed=lambda peer, home: peer.pull(home, reference),
            limits=limits.unpacking(layout),
        )

    def _five_pushed(self) -> Row:
        _, reference = self._five()
        target = f"{self.host}/bench/five:1"
        return Row(
            key="8-push",
            before=lambda peer, home: [peer.pull(home, reference)],
            timed=lambda peer, home: peer.forward(home, reference, target),
            ground=Ground.COPIED,
            registry=True,
        )

    def _five_copied(self) -> Row:
        _, reference = self._five()
        target = f"{self.host}/bench/five:1"
        return Row(
            key="8-copy",
            before=lambda peer, home: [],
            timed=lambda peer, home: peer.copy(home, reference, target),
            registry=True,
        )

    def _work(self) -> Row:
        folders = self.scale.count(100)
        script = (
            f"d=0; while [ $d -lt {folders} ]; do mkdir -p /work/d$d; f=0; while [ $f -lt 200 ]; do "
            "head -c 9000 /bin/busybox > /work/d$d/f$f; f=$((f+1)); done; d=$((d+1)); done"
        )
        context = self.folder / "work"
        build = Build(context=context, dockerfile=self._file(context, "9", f"RUN {script}\n"))
        limit = limits.working(self._root_tar(), script)
        return Row(
            key="9",
            before=self._pulled(),
            timed=lambda peer, home: peer.build(home, build),
            limits=(limit,),
        )

    def _root_tar(self) -> Path:
        path = self.folder / "busybox.tar"
        if not path.exists():
            path.write_bytes(inputs.busybox_tar())
        return path

    def _stages(self) -> Row:
        context = self.folder / "stages"
        base = self._base()
        stages = "".join(f"FROM {base} AS s{n}\nRUN sleep 2; echo {n} > /done{n}\n" for n in range(4))
        copies = "".join(f"COPY --from=s{n} /done{n} /\n" for n in range(4))
        context.mkdir(exist_ok=True)
        file = context / "Dockerfile.10"
        file.write_text(f"{stages}FROM {base}\n{copies}")
        build = Build(context=context, dockerfile=file, flags=("--no-cache",), jobs=4)
        return Row(
            key="10",
            before=self._pulled(),
            timed=lambda peer, home: peer.build(home, build),
            limits=(limits.shell("sleep 2", "sleep 2"),),
        )

    def _version(self) -> Row:
        return Row(
            key="11-version",
            before=lambda peer, home: [],
            timed=lambda peer, home: peer.show_version(home),
            limits=(limits.shell("python3 -S", "exec python3 -S -c pass"),),
            ground=Ground.SHARED,
        )

    def _images(self) -> Row:
        return Row(
            key="11-images",
            before=self._pulled(),
            timed=lambda peer, home: peer.list_images(home),
            ground=Ground.SHARED,
        )

    def _remove(self) -> Row:
        context, pulled = self._small(), self._pulled()
        build = Build(context=context, dockerfile=self._file(context, "copy", "COPY data /data\n"))
        return Row(
            key="rm",
            before=lambda peer, home: [*pulled(peer, home), peer.build(home, build)],
            timed=lambda peer, home: peer.remove(home, build.tag),
            limits=limits.removing(context / "data"),
            ground=Ground.COPIED,
        )


def chosen(words: list[str]) -> list[str]:
    """The rows that some words name: `3p` is `3p-gzip` and `3p-zstd`.

    Raises:
        ValueError: a word names none.
    """
    found = []
    for word in words:
        named = [key for key in LINES if key == word or key.startswith(f"{word}-")]
        if not named:
            raise ValueError(f"no row {word}; there are {', '.join(LINES)}")
        found += named
    return [key for key in LINES if key in found]
