"""What causes a miss and what does not: each input of a step, changed alone; the page on keys as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support.command import Img

pytestmark = pytest.mark.once

MISS, HIT = True, False


@dataclass(frozen=True)
class Case:
    """Two builds that differ in one input: text of the Dockerfile, flags, or a change of the context.

    Attributes:
        misses: The step that is watched must run again.
        copies: That is a COPY, else a RUN.
    """

    name: str
    misses: bool
    before: str
    after: str = ""
    flags: Sequence[str] = ()
    flags_after: Sequence[str] | None = None
    change: Callable[[Path], object] | None = None
    copies: bool = False

    def __str__(self) -> str:
        return self.name


def put(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


def chmod(name: str, mode: int) -> Callable[[Path], object]:
    return lambda root: (root / name).chmod(mode)


def touch(name: str) -> Callable[[Path], object]:
    return lambda root: os.utime(root / name, (1, 1))


def link(root: Path) -> None:
    (root / "d/link").unlink()
    (root / "d/link").symlink_to("b")


def rename(root: Path) -> None:
    (root / "d/a").rename(root / "d/c")


def owner(root: Path) -> None:
    """Another owner, where this user may give a file away."""
    if os.geteuid() == 0:
        os.chown(root / "d/a", 4321, 4321)


BIND = "RUN --mount=type=bind,source=d,target=/m :"
SECRET = "RUN --mount=type=secret,id=k :"
CACHE = "RUN --mount=type=cache,id={},target=/m date >> /m/x"

RUNS = (
    Case("arguments", MISS, "RUN : 1", "RUN : 2"),
    Case("exec form", MISS, "RUN true", 'RUN ["true"]'),
    Case("shell", MISS, "RUN :", 'SHELL ["/bin/sh", "-e", "-c"]\nRUN :'),
    Case("ENV before it", MISS, "ENV A=1\nRUN :", "ENV A=2\nRUN :"),
    Case("ENV after it", HIT, "RUN :\nENV A=1", "RUN :\nENV A=2"),
    Case("ARG in scope", MISS, "ARG A\nRUN :", flags=("--build-arg=A=1",), flags_after=("--build-arg=A=2",)),
    Case("ARG after it", HIT, "RUN :\nARG A", flags=("--build-arg=A=1",), flags_after=("--build-arg=A=2",)),
    Case("an ARG's default", MISS, "ARG A=1\nRUN :", "ARG A=2\nRUN :"),
    Case("USER", MISS, "RUN :", "USER worker\nRUN :"),
    Case("cwd", MISS, "WORKDIR /a\nWORKDIR /b\nRUN :", "WORKDIR /b\nWORKDIR /a\nRUN :"),
    Case("network", MISS, "RUN :", "RUN --network=none :"),
    Case("network of the build", MISS, "RUN :", flags_after=("--network=none",)),
    Case("security", MISS, "RUN :", "RUN --security=insecure :", flags=("--allow=security.insecure",)),
    Case("a mount more", MISS, "RUN :", "RUN --mount=type=tmpfs,target=/m :"),
    Case("a bound file's content", MISS, BIND, change=put("d/a", "2")),
    Case("a bound file's mode", MISS, BIND, change=chmod("d/a", 0o600)),
    Case("a bound file's time", HIT, BIND, change=touch("d/a")),
    Case("a file beside what is bound", HIT, BIND, change=put("other", "2")),
    Case("a cache's name", HIT, CACHE.format("1"), CACHE.format("2")),
    Case("what a cache holds", HIT, f"{CACHE.format('1')}\n{CACHE.format('1')} && date > /m/y"),
    Case(
        "a secret's value", HIT, SECRET, flags=("--secret=id=k,src=other",), change=put("other", "2")
    ),
    Case(
        "a secret's value that counts", MISS, SECRET, flags=("--secret=id=k,src=other,cache=hash",),
        change=put("other", "2"),
    ),
    Case(
        "a secret that counts and is not mounted", HIT, "RUN :",
        flags=("--secret=id=k,src=other,cache=hash",), change=put("other", "2"),
    ),
    Case("whether a secret was given", HIT, SECRET, flags_after=("--secret=id=k,src=other",)),
    Case(
        "proxies", HIT, "RUN :", flags=("--build-arg=http_proxy=http://127.0.0.1:1",),
        flags_after=("--build-arg=http_proxy=http://127.0.0.1:2",),
    ),
    Case("a resource limit", HIT, "RUN :", flags_after=("--ulimit=nofile=1024",)),
    Case("/dev/shm", HIT, "RUN :", flags_after=("--shm-size=1m",)),
    Case("a host's name", MISS, "RUN :", flags_after=("--add-host=h:127.0.0.1",)),
    Case(
        "a host's address", HIT, "RUN :", flags=("--add-host=h:1.1.1.1",),
        flags_after=("--add-host=h:1.1.1.2",),
    ),
    Case("what is below", MISS, "COPY d /d\nRUN :", change=put("d/a", "2")),
    Case("an equal layer below", HIT, "COPY d/a /d/\nRUN :", "COPY d/../d/a /d/a\nRUN :"),
    Case("LABEL before it", HIT, "LABEL a=1\nRUN :", "LABEL a=2\nRUN :"),
    Case("a label of the build", HIT, "RUN :", flags_after=("--label=a=1",)),
    Case("a comment", HIT, "RUN :", "# why\nRUN :"),
    Case("the name of the stage", HIT, "RUN :", flags_after=("--tag=other",)),
)  # fmt: skip

COPIES = (
    Case("content", MISS, "COPY d /d", change=put("d/a", "2")),
    Case("mode", MISS, "COPY d /d", change=chmod("d/a", 0o600)),
    Case("mode under --chmod", MISS, "COPY --chmod=600 d /d", change=chmod("d/a", 0o755)),
    Case("owner in the context", HIT, "COPY d /d", change=owner),
    Case("time", HIT, "COPY d /d", change=touch("d/a")),
    Case("name", MISS, "COPY d /d", change=rename),
    Case("link target", MISS, "COPY d /d", change=link),
    Case("a file that is not copied", HIT, "COPY d /d", change=put("other", "2")),
    Case("a file that is ignored", HIT, "COPY d /d", change=put("d/ignored", "2")),
    Case("a file that is excluded", HIT, "COPY --exclude=b d /d", change=put("d/b", "2")),
    Case("a file that no glob matches", HIT, "COPY d/a* /d/", change=put("d/b", "2")),
    Case("an exclusion of nothing", HIT, "COPY d /d", "COPY --exclude=none d /d"),
    Case("the same files by other words", HIT, "COPY d/a d/b /d/", "COPY d/[ab] /d/"),
    Case("the destination", MISS, "COPY d /d", "COPY d /e"),
    Case("--chown", MISS, "COPY d /d", "COPY --chown=1:1 d /d"),
    Case("--chmod", MISS, "COPY d /d", "COPY --chmod=600 d /d"),
    Case("--link", MISS, "COPY d /d", "COPY --link d /d"),
    Case("what is below", MISS, "RUN echo 1 > /x\nCOPY d /d", "RUN echo 2 > /x\nCOPY d /d"),
    Case(
        "what is below a link", HIT, "RUN echo 1 > /x\nCOPY --link d /d",
        "RUN echo 2 > /x\nCOPY --link d /d",
    ),
    Case("a here-document", MISS, "COPY <<E /e\n1\nE", "COPY <<E /e\n2\nE"),
    Case("the user", HIT, "COPY d /d", "USER worker\nCOPY d /d"),
    Case("ENV", HIT, "COPY d /d", "ENV A=1\nCOPY d /d"),
)  # fmt: skip


def misses(img: Img, root: Path, base: str, case: Case) -> bool:
    """Builds both; tells whether the watched step, which is the last of its kind, ran again."""

    def build(text: str, flags: Sequence[str]) -> list[str]:
        (root / "Dockerfile").write_text(f"FROM {base}\n{text}\n")
        lines = img.ok("build", "-t", "t", *flags, ".", cwd=root).stderr.splitlines()
        return [line for at, line in enumerate(lines) if lines[at + 1 : at + 2] == ["--->"]]

    build(case.before, case.flags)
    if case.change is not None:
        case.change(root)
    flags = case.flags if case.flags_after is None else case.flags_after
    titles = build(case.after or case.before, flags)
    copies = {title for title in titles if title.startswith("RUN [copy ")}
    watched = [title for title in titles if title.startswith("RUN") and (title in copies) == case.copies]
    assert watched, titles
    return watched[-1].endswith(")")


@pytest.mark.parametrize("case", RUNS, ids=str)
def test_a_run_misses_for_what_its_process_can_see(
    case: Case, img: Img, make_context: Context, busybox_image: str
) -> None:
    root = make_context({"d/a": "1", "d/b": "1", "other": "1"})
    assert misses(img, root, busybox_image, case) == case.misses


@pytest.mark.parametrize("case", COPIES, ids=str)
def test_a_copy_misses_for_what_it_copies_and_where_to(
    case: Case, img: Img, make_context: Context, busybox_image: str
) -> None:
    root = make_context(
        {"d/a": "1", "d/b": "1", "other": "1", "d/ignored": "1", ".dockerignore": "d/ignored\n"}
    )
    (root / "d/link").symlink_to("a")
    assert misses(img, root, busybox_image, replace(case, copies=True)) == case.misses
