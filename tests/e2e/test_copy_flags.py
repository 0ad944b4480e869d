"""The flags and the destination rules of COPY and ADD: whole trees, against what is written down here.

A case is a Dockerfile and the tree that it makes: one line for each name, `path type mode owner content`.
`CONTEXT` is what every case copies from; `BASE` is an image to copy onto, from an archive.
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support import hosts, trees
from tests.support.command import Img, Outcome, steps_run
from tests.support.layout import Item, folder, symlink, tar_of
from tests.support.registry import Broken, Registry

CONTEXT = {
    "a": "a",
    "b": "b",
    "[x]": "x",
    "d/x.txt": "x",
    "d/y.md": "y",
    "d/e/z.txt": "z",
    "d/e/f/w.txt": "w",
    "s/run": "r",
    "o/only.md": "o",
}
MODES = {"b": 0o640, "s/run": 0o750, "d/e/f": 0o700, "d/e": 0o750, "d": 0o711}

BASE = tar_of(
    [
        folder("real", 0o700),
        Item(path="real/old", data=b"old"),
        folder("t", 0o1777),
        symlink("lnk", "/real"),
        symlink("lf", "real/old"),
        symlink("gone", "/no/where"),
        symlink("up", "../../../top"),
        folder("d"),
        folder("d/e", 0o700),
    ]
)
PACKED = tar_of(
    [
        folder("p", 0o750, 5, 6),
        Item(path="p/i", data=b"i", mode=0o4711, uid=7, gid=8),
        symlink("p/l", "i"),
        Item(path="q", data=b"q"),
    ]
)
ON_BASE = "FROM scratch AS base\nADD base.tar /\nFROM base\n"
SCRATCH = "FROM scratch\n"

# What BASE is where a case changes nothing.
BARE = [
    "d d 755 0:0",
    "d/e d 700 0:0",
    "gone l 777 0:0 /no/where",
    "lf l 777 0:0 real/old",
    "lnk l 777 0:0 /real",
    "real d 700 0:0",
    "real/old f 644 0:0 old",
    "t d 1777 0:0",
    "up l 777 0:0 ../../../top",
]
D = [
    "e d 750 0:0",
    "e/f d 700 0:0",
    "e/f/w.txt f 644 0:0 w",
    "e/z.txt f 644 0:0 z",
    "x.txt f 644 0:0 x",
    "y.md f 644 0:0 y",
]


def below(path: str, lines: list[str] = D, mode: str = "755") -> list[str]:
    """These lines moved into a new folder."""
    return [f"{path} d {mode} 0:0", *(f"{path}/{line}" for line in lines)]


CASES: dict[str, tuple[str, list[str]]] = {
    # ---- where it lands
    "a file under its own name, and under another": (
        "COPY a /\nCOPY a /n",
        ["a f 644 0:0 a", "n f 644 0:0 a"],
    ),
    "missing folders are made": ("COPY b /o/p/", ["o d 755 0:0", "o/p d 755 0:0", "o/p/b f 640 0:0 b"]),
    "a folder is its contents, and lends nothing": ("COPY d /o", below("o")),
    "a folder with a slash is the same": ("COPY d/ /o/", below("o")),
    "a folder and a file make a folder": ("COPY s a /o", below("o", ["a f 644 0:0 a", "run f 750 0:0 r"])),
    "several files without a slash: the last stands": ("COPY a b /o", ["o f 640 0:0 b"]),
    "a glob of several files without a slash: the last stands": ("COPY [ab] /o", ["o f 640 0:0 b"]),
    "an escaped bracket": ("COPY [[]x] /o/", below("o", ["[x] f 644 0:0 x"])),
    "two stars are one star": (
        "COPY d/** /o/",
        below(
            "o",
            [
                "f d 700 0:0",
                "f/w.txt f 644 0:0 w",
                "x.txt f 644 0:0 x",
                "y.md f 644 0:0 y",
                "z.txt f 644 0:0 z",
            ],
        ),
    ),
    "a source above the context is clamped": ("COPY ../../a /o", ["o f 644 0:0 a"]),
    "a wildcard that matches nothing makes nothing": ("COPY n* /o/\nCOPY a /a", ["a f 644 0:0 a"]),
    "a wildcard that matches nothing beside a file": ("COPY n* a /o/", below("o", ["a f 644 0:0 a"])),
    "a link that is named is followed": ("COPY link /o\nCOPY dl /p", ["o f 644 0:0 a", *below("p")]),
    "a link in a folder stays one": (
        "COPY k /k",
        below("k", ["dead l 777 0:0 nowhere", "to l 777 0:0 ../a"]),
    ),
    "a fifo is copied, a socket is not": ("COPY x /x", below("x", ["pipe fifo 600 0:0"])),
    "a name that is a glob's, in JSON": ('COPY ["[[]x]", "/o p/"]', below("o p", ["[x] f 644 0:0 x"])),
    # ---- onto what is there
    "the destination keeps its mode, folders in it do not": (
        "@COPY d /d",
        [*BARE[:1], "d/e d 750 0:0", *(f"d/{line}" for line in D[1:]), *BARE[2:]],
    ),
    "a link to a folder is followed": (
        "@COPY a /lnk/\nCOPY b /lnk",
        [*BARE[:6], "real/a f 644 0:0 a", "real/b f 640 0:0 b", *BARE[6:]],
    ),
    "a link to a file is followed": ("@COPY b /lf", [*BARE[:6], "real/old f 640 0:0 b", *BARE[7:]]),
    "a link to nowhere is followed": (
        "@COPY a /gone",
        [*BARE[:5], "no d 755 0:0", "no/where f 644 0:0 a", *BARE[5:]],
    ),
    "a link above the root stops at it": (
        "@COPY a /up/",
        [*BARE, *below("top", ["a f 644 0:0 a"])],
    ),
    "sticky folders stay so": ("@COPY a /t", [*BARE[:8], "t/a f 644 0:0 a", BARE[8]]),
    # ---- --chmod and --chown
    "chmod octal": (
        "COPY --chmod=4711 a /a\nCOPY --chmod=0600 d/e/f /o/p",
        ["a f 4711 0:0 a", "o d 600 0:0", "o/p d 600 0:0", "o/p/w.txt f 600 0:0 w"],
    ),
    "chmod of files and folders by what they are": (
        "COPY --chmod=u=rwX,go=rX d /o",
        below("o", ["e d 755 0:0", "e/f d 755 0:0", *D[2:]]),
    ),
    "chmod of executables": (
        "COPY --chmod=go=u,a-w s b /o/",
        below("o", ["b f 444 0:0 b", "run f 555 0:0 r"]),
    ),
    "chmod +x": ("COPY --chmod=+x b /b", ["b f 751 0:0 b"]),
    "chmod with a variable": ("ARG M=g+w\nCOPY --chmod=$M a /a", ["a f 664 0:0 a"]),
    "an empty chmod is none": ("ARG M\nCOPY --chmod=$M b /b", ["b f 640 0:0 b"]),
    "chown by number": (
        "COPY --chown=3:4 s /o/p\nCOPY --chown=5 a /a\nCOPY --chown=:6 a /b\nCOPY --chown=7: a /c",
        [
            "a f 644 5:5 a",
            "b f 644 0:6 a",
            "c f 644 7:7 a",
            "o d 755 3:4",
            "o/p d 755 3:4",
            "o/p/run f 750 3:4 r",
        ],
    ),
    "chown root needs no file": ("COPY --chown=root:root a /a", ["a f 644 0:0 a"]),
    "chown of a name that nobody has": ("COPY --chown=who:what a /a", ["a f 644 0:0 a"]),
    # ---- --exclude
    "exclude in a folder": (
        "COPY --exclude=*.md --exclude=e/f d /o",
        below("o", ["e d 750 0:0", "e/z.txt f 644 0:0 z", "x.txt f 644 0:0 x"]),
    ),
    "exclude everywhere": (
        "COPY --exclude=**/*.txt d /o",
        below("o", ["e d 750 0:0", "e/f d 700 0:0", "y.md f 644 0:0 y"]),
    ),
    "exclude and take back": (
        "COPY --exclude=* --exclude=!e/f d /o",
        below("o", ["e d 750 0:0", "e/f d 700 0:0", "e/f/w.txt f 644 0:0 w"]),
    ),
    "exclude leaves files alone that are named": (
        "COPY --exclude=a --exclude=b a [b] /o/",
        below("o", ["a f 644 0:0 a", "b f 640 0:0 b"]),
    ),
    "exclude expands no variable": ("ARG E=*\nCOPY --exclude=$E s /o", below("o", ["run f 750 0:0 r"])),
    "exclude all leaves the folder": ("COPY --exclude=* d /o", ["o d 755 0:0"]),
    # ---- --parents
    "parents": (
        "COPY --parents d/e/z.txt a /o",
        below("o", ["a f 644 0:0 a", "d d 711 0:0", "d/e d 750 0:0", "d/e/z.txt f 644 0:0 z"]),
    ),
    "parents from a pivot": ("COPY --parents d/./e/f /o/", below("o", D[:3])),
    "parents with two stars": (
        "COPY --parents **/*.md /o/",
        below("o", ["d d 711 0:0", "d/y.md f 644 0:0 y", "o d 755 0:0", "o/only.md f 644 0:0 o"]),
    ),
    "parents with two stars behind a pivot": ("COPY --parents d/./**/*.txt /o/", below("o", D[:5])),
    "parents with a glob before the pivot": (
        "COPY --parents [do]/./*.md /o/",
        below("o", ["only.md f 644 0:0 o", "y.md f 644 0:0 y"]),
    ),
    "parents and exclude": (
        "COPY --parents --exclude=d/e --exclude=**/x.txt d /o/",
        below("o", ["d d 711 0:0", "d/y.md f 644 0:0 y"]),
    ),
    "parents of nothing make the destination": (
        "COPY --parents d/./n* /o/p/",
        ["o d 755 0:0", "o/p d 755 0:0"],
    ),
    "parents with owner and mode": (
        "COPY --parents --chown=5:6 --chmod=a=rX d/e/f /o/",
        ["o d 755 5:6", "o/d d 555 5:6", "o/d/e d 555 5:6", "o/d/e/f d 555 5:6", "o/d/e/f/w.txt f 444 5:6 w"],
    ),
    "parents from a stage keep owners": (
        """=FROM scratch AS one
ADD packed.tar /in/
FROM scratch
COPY --from=one --parents /in/./p/i /in/q /o/""",
        ["o d 755 0:0", "o/in d 755 0:0", "o/in/q f 644 0:0 q", "o/p d 750 5:6", "o/p/i f 4711 7:8 i"],
    ),
    # ---- --link
    "link makes folders anew": (
        "@COPY --link a /real/n\nCOPY --link d /t",
        [*BARE[:5], "real d 755 0:0", "real/n f 644 0:0 a", BARE[6], *below("t"), BARE[8]],
    ),
    "link follows no link": (
        "@COPY --link a /lnk/\nCOPY --link b /lf",
        [*BARE[:3], "lf f 640 0:0 b", *below("lnk", ["a f 644 0:0 a"]), *BARE[5:]],
    ),
    "link with numbers": (
        "@COPY --link --chown=3:4 --chmod=u+s a /n/a",
        [*BARE[:5], "n d 755 3:4", "n/a f 4644 3:4 a", *BARE[5:]],
    ),
    # ---- here-documents
    "here-documents with owner and mode": (
        "COPY --chmod=755 --chown=2:3 <<A <<-B /o/\n1\nA\n\t\t2\n\tB",
        ["o d 755 2:3", "o/A f 755 2:3 1\n", "o/B f 755 2:3 2\n"],
    ),
    "a here-document beside a file": (
        "COPY a <<E /o/\nx\nE",
        below("o", ["E f 644 0:0 x\n", "a f 644 0:0 a"]),
    ),
    # ---- archives
    "an archive among others": (
        "ADD packed.tar a s /o",
        [
            "o d 755 0:0",
            "o/a f 644 0:0 a",
            "o/p d 750 5:6",
            "o/p/i f 4711 7:8 i",
            "o/p/l l 777 0:0 i",
            "o/q f 644 0:0 q",
            "o/run f 750 0:0 r",
        ],
    ),
    "an archive's owner changes and its modes do not": (
        "ADD --chown=8:9 --chmod=700 packed.tar /o",
        ["o d 755 8:9", "o/p d 750 8:9", "o/p/i f 4711 8:9 i", "o/p/l l 777 8:9 i", "o/q f 644 8:9 q"],
    ),
    "an archive that is to stay one": (
        "ADD --unpack=false x.gz packed.gz /o/",
        below("o", ["packed.gz f 644 0:0", "x.gz f 644 0:0"]),
    ),
    "what is compressed and no archive": ("ADD x.gz /o/", below("o", ["x.gz f 644 0:0"])),
    "an archive replaces what is in its way": (
        "@ADD clash.tar /",
        ["d f 600 0:0 file", BARE[2], BARE[3], "lnk d 755 0:0", "lnk/n f 644 0:0 n", *BARE[5:]],
    ),
    "exclude does not reach into an archive": (
        "ADD --exclude=q packed.gz /o",
        ["o d 755 0:0", "o/p d 750 5:6", "o/p/i f 4711 7:8 i", "o/p/l l 777 0:0 i", "o/q f 644 0:0 q"],
    ),
    "archives by a glob, with a file among them": (
        "ADD pack* x.g* /o",
        [
            "o d 755 0:0",
            "o/p d 750 5:6",
            "o/p/i f 4711 7:8 i",
            "o/p/l l 777 0:0 i",
            "o/q f 644 0:0 q",
            "o/x.gz f 644 0:0",
        ],
    ),
}


@pytest.fixture
def context(make_context: Context) -> Path:
    """The files that every case copies from."""
    clash = [Item(path="d", data=b"file", mode=0o600), folder("lnk"), Item(path="lnk/n", data=b"n")]
    made = make_context(
        {
            **CONTEXT,
            "base.tar": BASE,
            "packed.tar": PACKED,
            "packed.gz": gzip.compress(PACKED, mtime=0),
            "clash.tar": tar_of(clash),
            "x.gz": gzip.compress(b"x" * 600, mtime=0),
            "k/": "",
            "x/": "",
        }
    )
    for path in (*CONTEXT, "d", "d/e", "d/e/f", "s", "o", "k", "x"):
        os.chmod(made / path, 0o755 if (made / path).is_dir() else 0o644)
    for path, mode in MODES.items():
        os.chmod(made / path, mode)
    for name, target in {"link": "a", "dl": "d", "k/to": "../a", "k/dead": "nowhere"}.items():
        (made / name).symlink_to(target)
    os.mkfifo(made / "x/pipe", 0o600)
    os.chmod(made / "x/pipe", 0o600)
    here = os.getcwd()
    os.chdir(made / "x")  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(here)
    return made


def lines_of(tree: trees.Tree) -> list[str]:
    """A tree as the cases write it."""
    letters = {"dir": "d", "file": "f", "link": "l"}
    found = []
    for path, entry in sorted(tree.items()):
        text = ""
        if entry.kind == "link":
            text = f" {entry.content}"
        elif entry.kind == "file" and not path.endswith(".gz"):
            text = f" {entry.text}"
        found.append(f"{path} {letters.get(entry.kind, entry.kind)} {entry.bits} {entry.owner}{text}")
    return found


def dockerfile_of(lines: str) -> str:
    """A case's Dockerfile: on nothing, on BASE (`@`), or whole (`=`)."""
    if lines.startswith("="):
        return lines[1:] + "\n"
    return (ON_BASE + lines[1:] if lines.startswith("@") else SCRATCH + lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_tree_is_as_written(name: str, img: Img, context: Path) -> None:
    lines, expected = CASES[name]
    if not hosts.many_ids() and any(" 0:0" not in line for line in expected):
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    (context / "Dockerfile").write_text(dockerfile_of(lines))
    img.build(context)
    assert lines_of(img.image().tree) == sorted(expected)


N = Item(path="lnk/n", data=b"n")
REAL_N = [*BARE[:6], "real/n f 644 0:0 n", *BARE[6:]]

EXTRACTED: dict[str, tuple[list[Item], str, list[str]]] = {
    "a folder without an entry is looked for through a symlink": ([N], "ADD one.tar /", REAL_N),
    "and so is one through a link of the archive": (
        [symlink("s", "lnk"), Item(path="s/n", data=b"n")],
        "ADD one.tar /",
        [*REAL_N[:8], "s l 777 0:0 lnk", *REAL_N[8:]],
    ),
    "a folder below it has its entry": (
        [folder("lnk/p", 0o750), Item(path="lnk/p/n", data=b"n")],
        "ADD one.tar /",
        [*BARE[:6], BARE[6], "real/p d 750 0:0", "real/p/n f 644 0:0 n", *BARE[7:]],
    ),
    "it keeps what it is": (
        [Item(path="d/e/n", data=b"n", uid=5, gid=6)],
        "ADD one.tar /",
        [*BARE[:2], "d/e/n f 644 5:6 n", *BARE[2:]],
    ),
    "one that is missing is root's": (
        [Item(path="a/b/n", data=b"n")],
        "ADD --chown=7:8 one.tar /",
        ["a d 755 0:0", "a/b d 755 0:0", "a/b/n f 644 7:8 n", *BARE],
    ),
    "a symlink to nothing gets its folders": (
        [Item(path="gone/n", data=b"n")],
        "ADD one.tar /",
        [*BARE[:5], "no d 755 0:0", "no/where d 755 0:0", "no/where/n f 644 0:0 n", *BARE[5:]],
    ),
    "an entry replaces a symlink, a file's too": (
        [folder("lnk", 0o750), N, Item(path="lf", data=b"f"), symlink("gone", "d")],
        "ADD one.tar /",
        [
            *BARE[:2],
            "gone l 777 0:0 d",
            "lf f 644 0:0 f",
            "lnk d 750 0:0",
            "lnk/n f 644 0:0 n",
            *BARE[5:],
        ],
    ),
    "the destination is the root of an absolute symlink": (
        [N],
        "ADD base.tar /t/\nADD one.tar /t",
        [*BARE[:7], *below("t", sorted([*BARE, "real/n f 644 0:0 n"]), "1777"), BARE[8]],
    ),
    "an earlier archive's folder stands": (
        [Item(path="lnk/m", data=b"m")],
        "ADD clash.tar one.tar /",
        [
            "d f 600 0:0 file",
            BARE[2],
            BARE[3],
            "lnk d 755 0:0",
            "lnk/m f 644 0:0 m",
            "lnk/n f 644 0:0 n",
            *BARE[5:],
        ],
    ),
}


@pytest.mark.parametrize("name", EXTRACTED)
def test_an_archive_is_extracted_through_what_is_there(name: str, img: Img, context: Path) -> None:
    items, lines, expected = EXTRACTED[name]
    if not hosts.many_ids() and any(" 0:0" not in line for line in expected):
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    (context / "one.tar").write_bytes(tar_of(items))
    (context / "Dockerfile").write_text(dockerfile_of("@" + lines))
    img.build(context)
    assert lines_of(img.image().tree) == expected


@pytest.mark.parametrize(
    ("path", "reason"),
    [("up/n", "leads out of the destination"), ("lf/n", "a file stands"), ("real/old/n", "a file stands")],
)
def test_an_archive_that_goes_where_it_cannot_is_refused(
    path: str, reason: str, img: Img, context: Path
) -> None:
    (context / "one.tar").write_bytes(tar_of([Item(path=path, data=b"n")]))
    outcome = refused(img, context, "@ADD one.tar /")
    assert "Dockerfile:4" in outcome.stderr and reason in outcome.stderr, str(outcome)


def _old(tar: bytes) -> bytes:
    """A tar of one entry without a magic, as the first ones were."""
    head = bytearray(tar[:512])
    head[257:512] = bytes(255)
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return bytes(head) + tar[512:]


def test_a_tar_of_every_dialect_is_extracted(img: Img, context: Path) -> None:
    dialects = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    tars = {}
    for name, form in dialects.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            info = tarfile.TarInfo("f" if name == "ustar" else "é" * 70)
            info.size, info.mode = 1, 0o640
            archive.addfile(info, io.BytesIO(b"f"))
        tars[name] = buffer.getvalue()
    tars["old"] = _old(tars["ustar"])
    for name, data in tars.items():
        (context / f"{name}.bin").write_bytes(data)
    (context / "Dockerfile").write_text(SCRATCH + "".join(f"ADD {name}.bin /{name}\n" for name in tars))
    img.build(context)
    found = [line for line in lines_of(img.image().tree) if "/" in line]
    assert found == sorted(
        f"{name}/{'f' if name in ('ustar', 'old') else 'é' * 70} f 640 0:0 f" for name in tars
    )


def refused(img: Img, context: Path, lines: str, code: int = 2) -> Outcome:
    (context / "Dockerfile").write_text(dockerfile_of(lines))
    return img.fails(code, "build", "-t", "t", context)


REFUSALS = {
    "a mode that is none": (
        "COPY --chmod=64a a /a",
        ["Dockerfile:2", "--chmod=64a is no mode", "u=rwX,go=rX"],
    ),
    "a mode beyond 7777": ("COPY --chmod=10000 a /a", ["Dockerfile:2", "--chmod=10000 is no mode"]),
    "a mode with a prefix": ("COPY --chmod=0o755 a /a", ["--chmod=0o755 is no mode"]),
    "a mode out of a variable": (
        "ARG M=u+q\nCOPY --chmod=$M a /a",
        ["Dockerfile:3", "--chmod=u+q is no mode"],
    ),
    "an exclude that is no pattern": ("COPY --exclude=[a a /a", ["Dockerfile:2", "--exclude=[a", "pattern"]),
    "a near name in the context": ("COPY d/x.tx /a", ["Dockerfile:2", "did you mean d/x.txt?"]),
    "a near name in a stage": (
        "=FROM scratch AS one\nCOPY d /in\nFROM scratch\nCOPY --from=one /in/y.mt /",
        ["did you mean in/y.md?"],
    ),
    "a near name behind a pivot": (
        "COPY --parents d/./e/z.tx /o/",
        ["d/./e/z.tx", "did you mean d/e/z.txt?"],
    ),
    "parents of a file that is missing": ("COPY --parents d/none /o/", ["d/none: not found"]),
    "a folder onto a file": ("COPY a /o\nCOPY d /o", ["Dockerfile:3", "must be a folder, and is a file"]),
    "a file and then a folder": ("COPY a d /o", ["a folder onto a file"]),
    "a file onto a folder": ("@COPY s/run /t/run/\nCOPY s /t", ["a file onto a folder"]),
    "an archive onto a file": ("COPY a /o\nADD packed.tar /o", ["must be a folder"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_done_is_said_with_its_place(name: str, img: Img, context: Path) -> None:
    lines, words = REFUSALS[name]
    outcome = refused(img, context, lines)
    for word in words:
        assert word in outcome.stderr, str(outcome)


def test_a_source_that_is_ignored_names_the_line(img: Img, context: Path) -> None:
    (context / ".dockerignore").write_text("# what is not needed\n*.md\nDockerfile\nd/e\n!d/e/f\n")
    for source, line in (("Dockerfile", 3), ("d/e/z.txt", 4)):
        outcome = refused(img, context, f"COPY {source} /x")
        assert f".dockerignore:{line} takes it out" in outcome.stderr, str(outcome)
        assert f"add !{source} after it" in outcome.stderr
    (context / "Dockerfile").write_text(SCRATCH + "COPY d /o\n")
    img.build(context)
    assert set(img.image().tree) == {"o", "o/e", "o/e/f", "o/e/f/w.txt", "o/x.txt", "o/y.md"}


def test_the_dockerfile_s_own_ignore_file_comes_first(img: Img, context: Path) -> None:
    (context / ".dockerignore").write_text("a\n")
    (context / "Dockerfile.dockerignore").write_text("\ufeffb\n")
    outcome = refused(img, context, "COPY a /a\nCOPY b /b")
    assert "Dockerfile.dockerignore:1 takes it out" in outcome.stderr


def test_a_pattern_that_is_none_is_shown_in_the_ignore_file(img: Img, context: Path) -> None:
    (context / ".dockerignore").write_text("a\n\n  [b\n")
    outcome = refused(img, context, "COPY a /a")
    assert ".dockerignore:3" in outcome.stderr, str(outcome)
    assert "not a valid pattern: [b" in outcome.stderr


def test_ignore_patterns_may_be_no_utf8(img: Img, context: Path) -> None:
    (context / os.fsdecode(b"n\xff")).write_text("")
    (context / ".dockerignore").write_bytes(b"*\n!n\xff\n!n\xfe\n")
    (context / "Dockerfile").write_text(SCRATCH + "COPY . /o\n")
    img.build(context)
    assert len(img.image().tree) == 2


def test_copying_nothing_and_unknown_names_are_told(img: Img, context: Path) -> None:
    (context / ".dockerignore").write_text("**/*.md\n")
    (context / "Dockerfile").write_text(
        SCRATCH + "COPY n* /o/\nCOPY o/*.md /p/\nCOPY --chown=who a /a\nCOPY a b /q\n"
    )
    text = img.build(context).stderr
    assert "Dockerfile:2: nothing is copied: n* matches no file" in text
    assert "Dockerfile:3: nothing is copied: o/*.md matches only what is ignored (.dockerignore)" in text
    assert "Dockerfile:4: there is no 'who' in the image's /etc/passwd" in text
    assert "Dockerfile:5: several sources and no slash" in text


# ---- the cache -------------------------------------------------------------------------------------


def test_what_is_excluded_or_ignored_or_lent_misses_nothing(img: Img, context: Path) -> None:
    (context / ".dockerignore").write_text("o\n")
    (context / "Dockerfile").write_text(
        SCRATCH + "COPY --exclude=**/*.txt d /d\nCOPY --parents --exclude=d/e d /p/\nCOPY . /all/\n"
    )
    img.build(context)
    (context / "o/only.md").write_text("changed")
    os.chmod(context, 0o700)
    assert steps_run(img.build(context)) == []
    (context / "d/e/z.txt").write_text("changed")
    assert len(steps_run(img.build(context))) == 1
    (context / "d/x.txt").write_text("changed")
    assert len(steps_run(img.build(context))) == 2
    os.chmod(context / "d", 0o700)
    assert len(steps_run(img.build(context))) == 2


def test_a_linked_copy_hits_on_another_base(img: Img, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "ARG V\nFROM scratch AS b1\nCOPY a /base\nFROM scratch AS b2\nCOPY b /base\nFROM b$V\n"
        "COPY --link d /d\nCOPY s /s\n"
    )
    img.build(context, "--build-arg", "V=1")
    again = steps_run(img.build(context, "--build-arg", "V=2"))
    assert not any("/dest/d]" in line for line in again)
    assert any("/dest/s]" in line for line in again)
    assert img.image().tree["d/x.txt"].text == "x"


def test_a_linked_copy_needs_no_layer_of_its_base(
    img: Img, context: Path, busybox_layout: Path, registry: Registry, make_img: MakeImg
) -> None:
    with Broken(busybox_layout) as server:
        (context / "Dockerfile").write_text(
            f"FROM {server.host}/base\nCOPY --link d /d\nADD --link --chown=1:2 packed.tar /p/\nENV X=1\n"
        )
        img.build(context)
        blobs = {request.rpartition("/")[2] for request in server.requests if "/blobs/" in request}
        config = trees.read_image(busybox_layout).manifest["config"]["digest"]
        assert blobs == {config}
        # It can leave, too: the layer is fetched where the destination lacks it, and only there.
        name = f"{registry.host}/linked:1"
        img.ok("tag", "t", name)
        img.ok("push", name)
        fetched = len([request for request in server.requests if "/blobs/" in request])
        assert fetched == 2
        img.ok("push", name)
        assert len([request for request in server.requests if "/blobs/" in request]) == fetched
    other = make_img()
    other.ok("pull", name)
    tree = other.image(name).tree
    assert tree["d/x.txt"].text == "x"
    assert "bin/busybox" in tree


def test_a_push_mounts_what_its_registry_has(
    img: Img, context: Path, busybox_image: str, busybox_layout: Path, registry: Registry
) -> None:
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\nCOPY --link d /d\n")
    name = f"{registry.host}/mounted:1"
    img.build(context, tag=name)
    img.ok("push", name)
    base = trees.read_image(busybox_layout).manifest["layers"][0]["digest"]
    assert not list(img.state.rglob(base.removeprefix("sha256:")))
    assert "bin/busybox" in img.image(name).tree


def test_a_link_looks_names_of_owners_up_below(img: Img, make_context: Context, busybox_image: str) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    dockerfile = f"FROM {busybox_image}\nCOPY --link --chown=worker:staff a /new/a\n"
    img.build(make_context({"Dockerfile": dockerfile, "a": ""}))
    assert img.image().tree["new/a"].owner == "1000:50"
