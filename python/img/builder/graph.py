"""`BuildGraph`: the plan of a build, as data: what to do, on what, in which order.

`plan` makes it and `solver` carries it out. A `Node` is an `Op` and the nodes it stands on; a node's
number is its place in an order in which inputs always come first. Nothing here touches disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from img.dockerfile.instructions import Span
from img.oci import Image, ImageConfig, Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOp:
    """A base: a pinned image, or nothing at all (FROM scratch)."""

    image: Image | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineFile:
    """A file whose content stands in the Dockerfile, as a here-document."""

    name: str
    content: str


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
    """

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    hidden_env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    network: str = "default"
    platform: Platform
    script: InlineFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOp:
    """COPY and ADD, variables in place; a second input, where there is one, is what it copies from.

    Attributes:
        dest: Absolute; a trailing `/` is kept.
        chown: `user[:group]`, names or numbers, or empty.
        unpack: Archives are extracted (ADD).
    """

    sources: tuple[str, ...]
    dest: str
    inline: tuple[InlineFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    from_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkdirOp:
    """WORKDIR: makes the folder where the layers below lack it."""

    path: str
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigOp:
    """Any instruction that changes the config alone; touches no disk."""


Op = SourceOp | RunOp | CopyOp | WorkdirOp | ConfigOp


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An op, the numbers of the nodes it stands on, and how people see it."""

    number: int
    op: Op
    inputs: tuple[int, ...] = ()
    title: str
    stage: str = ""
    span: Span | None = None

    @property
    def where(self) -> str:
        """`Dockerfile:12`, or empty."""
        return self.span.where if self.span else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """A line of history to be: `node` tells, once solved, whether it has a layer."""

    created_by: str
    node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildGraph:
    """The whole plan.

    Attributes:
        target: The node whose layers the image has.
        config: The image's config; layers and history of this build are still missing.
        history: What this build adds to the base's history.
        warnings: Findings for people, each with its place.
    """

    nodes: tuple[Node, ...]
    target: int
    config: ImageConfig
    history: tuple[HistoryLine, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def steps(self) -> int:
        """Instructions that are shown, bases left out."""
        return sum(1 for node in self.nodes if not isinstance(node.op, SourceOp))
