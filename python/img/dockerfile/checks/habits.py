"""`check_habits`: hints that BuildKit does not give: what makes a build slower or an image larger.

Pure, over the whole file. Each looks for one plain form and is silent where it is not sure: a
command is read word by word, without the shell's grammar.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator

from img import regex
from img.dockerfile.checks.rules import finding
from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Copy, Dockerfile, Mount, Run, Stage
from img.values import dataclass

_ENDS = regex.compile(r"(?:&&|\|\||[;|&\n(){}])+")
_FILLERS = frozenset({"sudo", "env", "exec", "command", "time", "then", "do", "else", "if", "!", "-E"})
_ASSIGNMENT = regex.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_ARCHIVE = regex.compile(r"\.(?:tar|tgz|tbz2?|txz|tzst|gz|bz2|xz|zst|lzma|Z)(?:\.\w+)?$", re.IGNORECASE)
_GLOB = frozenset("*?[$")


def check_habits(dockerfile: Dockerfile) -> Iterator[Finding]:
    """Gives what all the checks of this module find."""
    for stage in dockerfile.stages:
        yield from _bases(dockerfile, stage)
        yield from _copies(stage)
        for instruction in stage.instructions:
            if isinstance(instruction, Run):
                yield from _cache_mount(instruction)
                yield from _apt_lists(instruction)
            elif isinstance(instruction, Copy) and instruction.add:
                yield from _add(instruction)


# ---- commands ------------------------------------------------------------------------------------


def commands_of(run: Run) -> Iterator[tuple[str, ...]]:
    """The commands of a RUN, each as its words, without assignments and `sudo` in front."""
    if run.exec_form:
        yield (posixpath.basename(run.words[0]), *run.words[1:])
        return
    texts = [run.words[0], *(doc.content for doc in run.heredocs)]
    for text in texts:
        for part in _ENDS.split(text.replace("\\\n", " ")):
            words = _words(part)
            while words and (words[0] in _FILLERS or _ASSIGNMENT.fullmatch(words[0])):
                words = words[1:]
            if words and not words[0].startswith(("#", "<<")):
                yield (posixpath.basename(words[0]), *words[1:])


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text, comments=True))
    except ValueError:  # a quote that another part closes
        return tuple(text.split())


def _plain(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that are no flags."""
    return tuple(word for word in words if not word.startswith("-"))


# ---- CacheMountRecommended, AptListsLeft ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    """A program that fetches: how it is called, and where it keeps what it fetched."""

    programs: tuple[str, ...]
    verbs: tuple[str, ...]
    folders: tuple[str, ...]
    without: tuple[str, ...] = ()
    sharing: str = ""

    def fetches(self, words: tuple[str, ...]) -> bool:
        """Tells whether a command is one that fetches, and keeps what it fetched."""
        plain = _plain(words)
        program, rest = plain[:1], plain[1:]
        if program == ("python",) or program == ("python3",):
            program, rest = rest[:1], rest[1:]
        if not program or program[0] not in self.programs or set(words) & set(self.without):
            return False
        called = " ".join(rest)
        return any(called == verb or called.startswith(verb + " ") for verb in self.verbs)

    @property
    def flags(self) -> str:
        """The mounts to write."""
        share = f",sharing={self.sharing}" if self.sharing else ""
        return " ".join(f"--mount=type=cache,target={folder}{share}" for folder in self.folders)


_TOOLS = (
    _Tool(
        programs=("apt-get", "apt", "aptitude"),
        verbs=("install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep"),
        folders=("/var/cache/apt", "/var/lib/apt"),
        sharing="locked",
    ),
    _Tool(
        programs=("pip", "pip3"),
        verbs=("install", "download", "wheel"),
        folders=("/root/.cache/pip",),
        without=("--no-cache-dir",),
    ),
    _Tool(
        programs=("uv",),
        verbs=("sync", "pip install", "pip sync"),
        folders=("/root/.cache/uv",),
        without=("--no-cache", "-n"),
    ),
    _Tool(
        programs=("poetry",), verbs=("install",), folders=("/root/.cache/pypoetry",), without=("--no-cache",)
    ),
    _Tool(programs=("npm",), verbs=("ci", "install", "i"), folders=("/root/.npm",)),
    _Tool(programs=("yarn",), verbs=("install", ""), folders=("/usr/local/share/.cache/yarn",)),
    _Tool(programs=("pnpm",), verbs=("install", "i", "fetch"), folders=("/root/.local/share/pnpm/store",)),
    _Tool(
        programs=("cargo",),
        verbs=("build", "install", "fetch", "test"),
        folders=("/usr/local/cargo/registry",),
    ),
    _Tool(
        programs=("go",),
        verbs=("build", "install", "mod download", "test"),
        folders=("/go/pkg/mod", "/root/.cache/go-build"),
    ),
)


def _cache_mount(run: Run) -> Iterator[Finding]:
    if any(_kind(mount) == "cache" for mount in run.mounts):
        return  # who wrote one knows what to keep
    commands = list(commands_of(run))
    for tool in _TOOLS:
        found = next((words for words in commands if tool.fetches(words)), None)
        if found:
            name = " ".join(found[:2])
            yield finding(
                "CacheMountRecommended",
                run.span,
                f"{name} fetches everything again whenever this step runs",
                mend=f"write RUN {tool.flags} …",
            )


def _apt_lists(run: Run) -> Iterator[Finding]:
    if any(_target(mount).startswith("/var/lib/apt") for mount in run.mounts):
        return
    commands = list(commands_of(run))
    updates = any(_plain(words)[:2] in (("apt-get", "update"), ("apt", "update")) for words in commands)
    cleaned = any(
        words[0] in ("rm", "find") and any(word.startswith("/var/lib/apt") for word in words[1:])
        for words in commands
    )
    if updates and not cleaned:
        yield finding("AptListsLeft", run.span, "the package lists of apt-get update stay in this layer")


def _kind(mount: Mount) -> str:
    return dict(mount.options).get("type", "bind").lower()


def _target(mount: Mount) -> str:
    return dict(mount.options).get("target", "")


# ---- ADD and COPY --------------------------------------------------------------------------------


def _add(add: Copy) -> Iterator[Finding]:
    special = add.checksum or add.keep_git_dir or add.unpack is not None
    if special or not all(_is_local_file(source) for source in add.sources):
        return
    yield finding("AddInsteadOfCopy", add.span, "ADD of plain files does what COPY does, and may do more")


def _is_local_file(source: str) -> bool:
    """Certainly no URL, repository or archive; a pattern or a variable may be any of them."""
    if set(source) & _GLOB or "://" in source or source.startswith("git@") or source.endswith(".git"):
        return False
    return not _ARCHIVE.search(source)


_INSTALLS = (
    (("pip", "pip3"), ("install",), ("-r", "--requirement"), "requirements.txt"),
    (("npm",), ("ci",), (), "package.json package-lock.json"),
    (("npm",), ("install",), (), "package.json package-lock.json"),
    (("yarn",), ("install",), (), "package.json yarn.lock"),
    (("yarn",), (), (), "package.json yarn.lock"),
    (("pnpm",), ("install",), (), "package.json pnpm-lock.yaml"),
    (("go",), ("mod", "download"), (), "go.mod go.sum"),
    (("cargo",), ("fetch",), (), "Cargo.toml Cargo.lock"),
    (("bundle",), ("install",), (), "Gemfile Gemfile.lock"),
    (("composer",), ("install",), (), "composer.json composer.lock"),
)
"""Program, its words (no more may follow, unless a flag asks for a file), that flag, what it reads."""


def _manifest(words: tuple[str, ...]) -> str:
    """The files that an install of dependencies reads; empty for any other command."""
    plain = _plain(words)
    program, rest = plain[0] if plain else "", plain[1:]
    for programs, verbs, flags, files in _INSTALLS:
        if program in programs and rest[: len(verbs)] == verbs:
            if flags and any(word.startswith(flags) for word in words):
                return files
            if not flags and rest == verbs:
                return files
    return ""


def _copies(stage: Stage) -> Iterator[Finding]:
    """CopyBeforeInstall: any change of any file runs the install again."""
    whole: Copy | None = None
    for instruction in stage.instructions:
        if isinstance(instruction, Copy) and not instruction.from_:
            if (
                any(posixpath.normpath(source) == "." for source in instruction.sources)
                or "/" in instruction.sources
            ):
                whole = whole or instruction
        elif isinstance(instruction, Run) and whole is not None:
            found = [(words, _manifest(words)) for words in commands_of(instruction)]
            command, files = next(((w, f) for w, f in found if f), ((), ""))
            if files:
                text = " ".join(command[:2])
                yield finding(
                    "CopyBeforeInstall",
                    whole.span,
                    f"every change of a file makes {text} (line {instruction.span.start}) run again",
                    mend=f"COPY {files} ./ first, install, then COPY the rest",
                )
                return


# ---- FROM ----------------------------------------------------------------------------------------


def _bases(dockerfile: Dockerfile, stage: Stage) -> Iterator[Finding]:
    image = stage.from_.image
    earlier = {other.name for other in dockerfile.stages[: stage.index] if other.name}
    if "$" in image or "@" in image or image == "scratch" or image.lower() in earlier:
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest"):
        said = image if tag else f"{image} has no tag, and"
        yield finding("LatestTag", stage.from_.span, f"{said} means whatever is newest")
