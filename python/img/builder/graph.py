"""`BuildGraph`: the plan of a build, as data: what to do, on what, in which order.

`plan` makes it and `solver` carries it out. A `Node` is an `Op` and the nodes it stands on; a node's
number is its place in an order in which inputs always come first. Nothing here touches disk.
"""

from __future__ import annotations

from typing import Literal

from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Span
from img.oci import Image, ImageConfig, Platform
from img.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOp:
    """A base: a pinned image, or nothing at all (FROM scratch)."""

    image: Image | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOp:
    """A tree of files that the caller named (`--build-context`). `name` is its key in `Site.trees`."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOp:
    """One file from an http(s) URL: ADD of a URL.

    Attributes:
        name: What the file is called; empty to take it from the answer or the URL.
        checksum: Digest that it must have (`sha256:…`), or empty.
    """

    url: str
    name: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOp:
    """The files of one commit of a git repository: ADD of a repository.

    Attributes:
        remote: What git is given: URL or `user@host:path`, without a fragment or query.
        ref: Branch, tag, or commit; empty for the remote's HEAD.
        subdir: Folder inside it that is taken, or empty for the whole.
        checksum: Beginning of the commit's hash that `ref` must mean, or empty.
        keep_git_dir: The files have their `.git` folder.
        submodules: Submodules are fetched too.
        mtime: `checkout` gives the files the time at which they were written here, not the commit's.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    mtime: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineFile:
    """A file whose content stands in the Dockerfile, as a here-document."""

    name: str
    content: str


MountKind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One `RUN --mount`, variables in place. Source: Dockerfile reference, "RUN --mount".

    Attributes:
        target: Absolute path in the container; empty for a secret that is a variable alone.
        input: Which input of the node `from` names (an index into `Node.inputs`); 0 where there is no
            `from`: the build context for a bind mount, nothing for a cache mount. 0 is never what a
            `from` names, since the first input is what the RUN stands on.
        source: Path inside what is bound, or inside a cache's seed; absolute.
        readonly: The process may not write. A bind mount that may be written loses what is written.
        id: Of a cache, a secret, or an agent.
        required: A secret or agent that the caller did not give is an error.
        size: Limit of a tmpfs in bytes; 0 for none.
        mode: Permission bits; None for the type's own default.
        env: Variable that gets a secret's value, or empty.
    """

    kind: MountKind
    target: str = ""
    input: int = 0
    source: str = "/"
    readonly: bool = False
    id: str = ""
    sharing: Sharing = "shared"
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    env: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOp:
    """RUN, variables in place.

    Attributes:
        args: The program and its arguments.
        script: A here-document with an interpreter of its own, that the process finds (and runs) at
            `/dev/pipes/<its name>`.
        env: What the process sees, in order; ARGs are among it.
        hidden_env: Proxy settings: seen by the process, no part of the key.
        user: `user[:group]` as the config has it, names not yet looked up.
        network: `default`, `none` or `host`.
        security: `sandbox`, or `insecure` where the caller allowed it.
        mounts: In the Dockerfile's order.
        hostname: The machine's name inside; empty for the default.
    """

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    hidden_env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    network: str = "default"
    security: str = "sandbox"
    mounts: tuple[RunMount, ...] = ()
    platform: Platform
    script: InlineFile | None = None
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPart:
    """What one COPY or ADD takes out of one place.

    Attributes:
        patterns: Source words, variables in place.
        input: Which input of the node they are looked up in (an index into `Node.inputs`); 0 for the
            build context.
        unpack: An archive is extracted, not copied.
        shown: What people see in place of the words; empty for the words themselves.
    """

    patterns: tuple[str, ...]
    input: int = 0
    unpack: bool = False
    shown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOp:
    """COPY and ADD, variables in place; its first input is what it copies onto.

    Attributes:
        parts: Where the files come from, in the Dockerfile's order; `inline` comes after them.
        dest: Absolute; a trailing `/` is kept.
        chown: `user[:group]`, names or numbers, or empty.
        link: The layer does not depend on what is below: nothing of that is looked at.
        parents: Files keep the folders that they lie in, from the pivot `/./` on.
    """

    parts: tuple[CopyPart, ...]
    dest: str
    inline: tuple[InlineFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    link: bool = False
    parents: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """All source words, for people."""
        return tuple(word for part in self.parts for word in ((part.shown,) if part.shown else part.patterns))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkdirOp:
    """WORKDIR: makes the folder where the layers below lack it."""

    path: str
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigOp:
    """Any instruction that changes the config alone; touches no disk."""


Op = SourceOp | TreeOp | HttpOp | GitOp | RunOp | CopyOp | WorkdirOp | ConfigOp


INPUTS = (SourceOp, TreeOp, HttpOp, GitOp)
"""Ops that bring something in: no instructions of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An op, the numbers of the nodes it stands on, and how people see it.

    Attributes:
        platform: The platform of its stage; None where stages of several platforms share it.
        label: The target's platform, where it has its like for another one; else empty.
    """

    number: int
    op: Op
    inputs: tuple[int, ...] = ()
    title: str
    stage: str = ""
    span: Span | None = None
    platform: Platform | None = None
    label: str = ""

    @property
    def where(self) -> str:
        """`Dockerfile:12`, or empty."""
        return self.span.where if self.span else ""

    @property
    def shown(self) -> str:
        """The line for people: its title, and its platform where that has to be told."""
        return f"{self.title} ({self.label})" if self.label else self.title

    @property
    def instruction(self) -> str:
        """The first line of its instruction as the Dockerfile has it; its title where there is none."""
        return self.span.text.strip().partition("\n")[0] if self.span else self.title


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """A line of history to be: `node` tells, once solved, whether it has a layer."""

    created_by: str
    node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One image to be: a target, for one platform.

    Attributes:
        stage: The stage's name, or its number where it has none.
        node: The node whose layers the image has.
        config: The image's config; layers and history of this build are still missing.
        history: What this build adds to the base's history.
    """

    stage: str
    platform: Platform
    node: int
    config: ImageConfig
    history: tuple[HistoryLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildGraph:
    """The whole plan: the nodes of every target, what they share among them once.

    Attributes:
        targets: At least one; all platforms of a stage beside each other.
        warnings: Remarks for people.
        findings: What the checks found, hints included.
        fatal: Those that fail the build, since the Dockerfile wants it so.
    """

    nodes: tuple[Node, ...]
    targets: tuple[Goal, ...]
    warnings: tuple[str, ...] = field(default=())
    findings: tuple[Finding, ...] = field(default=())
    fatal: tuple[Finding, ...] = field(default=())

    @property
    def steps(self) -> int:
        """Instructions that are shown, bases left out."""
        return sum(1 for node in self.nodes if not isinstance(node.op, INPUTS))

    def chain(self, node: int) -> tuple[int, ...]:
        """A node and those below it, of whose layers an image made of it consists; the uppermost first."""
        found = [node]
        while inputs := self.nodes[found[-1]].inputs:
            found.append(inputs[0])
        return tuple(found)
