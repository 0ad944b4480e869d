"""What the machine can do at a part of a row's work, by programs that do nothing else.

A `Limit` stands in a row beside the peers and takes its turn with them. `benches.workloads` says which row
has which; nothing here knows of images.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benches.peers import PATH, Command


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One program at one part of the work.

    Attributes:
        name: What its line of the table says.
        before: Commands that come before, untimed; the argument is the place's folder.
        timed: The command that is measured.
        output: A file that it writes, whose size says something; empty: none.
        needs: Programs that may not be there.
    """

    name: str
    before: Callable[[Path], list[Command]]
    timed: Callable[[Path], Command]
    output: str = ""
    needs: tuple[str, ...] = ()

    def missing(self) -> str:
        """Why it cannot run here; empty where it can."""
        gone = [program for program in self.needs if shutil.which(program, path=PATH) is None]
        return f"{', '.join(gone)} is not installed" if gone else ""


def shell(name: str, line: str, *, before: str = "", output: str = "", needs: tuple[str, ...] = ()) -> Limit:
    """A limit as a shell's line, which runs in the place's folder, as does what comes before it."""

    def inside(home: Path, text: str) -> Command:
        return ["sh", "-ec", f"cd {shlex.quote(str(home))}\n{text}"]

    return Limit(
        name=name,
        before=lambda home: [inside(home, before)] if before else [],
        timed=lambda home: inside(home, line),
        output=output,
        needs=needs,
    )


def copying(data: Path) -> tuple[Limit, ...]:
    """Copying a tree, and digesting it as a tar, each alone."""
    tree = shlex.quote(str(data))
    return (
        shell("cp -r", f"cp -r {tree} copy"),
        shell(
            "tar, openssl dgst -sha256",
            f"tar -cf - {tree} 2>/dev/null | openssl dgst -sha256",
            needs=("openssl",),
        ),
    )


def packing(data: Path, *programs: str) -> tuple[Limit, ...]:
    """Compressing the tar of a tree, by each of the programs."""
    tree = shlex.quote(str(data))
    before = f"tar -cf layer.tar {tree} 2>/dev/null"
    return tuple(
        shell(
            program,
            f"{program} -c layer.tar > packed",
            before=before,
            output="packed",
            needs=(program.split()[0],),
        )
        for program in programs
    )


def walking(data: Path) -> tuple[Limit, ...]:
    """Asking for the state of every file of a tree."""
    return (shell("find, a stat each", f"find {shlex.quote(str(data))} -printf '%s %T@\\n' > found"),)


def linking(data: Path) -> tuple[Limit, ...]:
    """Linking every file of a tree to one that is there."""
    return (shell("cp -rl", "cp -rl copy linked", before=f"cp -r {shlex.quote(str(data))} copy"),)


def unpacking(layout: Path) -> tuple[Limit, ...]:
    """Inflating the gzip layers of a layout one after the other, alone and with their files."""
    blobs = shlex.quote(str(layout / "blobs" / "sha256"))
    # The layers are the large ones: a manifest and a configuration have some hundred bytes.
    each = f"for b in $(find {blobs} -type f -size +4k); do"
    return (
        shell("gzip -dc", f"{each} gzip -dc < $b > /dev/null; done"),
        shell("tar -xzf", f"mkdir root\n{each} tar -xzf $b -C root; done"),
    )


def working(root_tar: Path, script: str) -> Limit:
    """A RUN's script in a root of its own, in namespaces and a chroot, with nothing recorded."""
    enter = "unshare --user --map-root-user --mount --pid --fork chroot root /bin/sh -c"
    return shell(
        "the work itself",
        f"{enter} {shlex.quote(script)}",
        before=f"mkdir root\ntar -xf {shlex.quote(str(root_tar))} -C root --no-same-owner",
    )


def removing(data: Path) -> tuple[Limit, ...]:
    """Unlinking a tree from one thread."""
    return (shell("rm -rf", "rm -rf copy", before=f"cp -r {shlex.quote(str(data))} copy"),)
