"""Plans Dockerfiles written as text, over bases that are values: no disk, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from img.builder import BuildGraph, PlanOptions, make_plan
from img.builder.graph import CopyOp, Node, RunOp, SourceOp, WorkdirOp
from img.dockerfile import parse
from img.errors import NotFound
from img.oci import Descriptor, Image, ImageConfig, Platform, Reference, sha256
from img.oci.descriptor import OCI_LAYER_GZIP

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def base(platform: Platform = AMD64, **run: Any) -> Image:
    """A base image of one layer with these fields in its config."""
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(b"gz"), size=2)
    config = ImageConfig(platform=platform, diff_ids=(sha256(b"tar"),)).with_run(**run)
    return Image.make(config, (layer,))


@dataclass
class Bases:
    """The images there are, by short name; remembers which were asked for."""

    images: Mapping[str, Image] = field(default_factory=dict)
    asked: list[tuple[str, Platform]] = field(default_factory=list)

    def resolve(self, reference: Reference, platform: Platform) -> Image:
        """What `make_plan` asks."""
        self.asked.append((reference.familiar, platform))
        if reference.repository.removeprefix("library/") not in self.images:
            raise NotFound(f"no {reference.familiar}")
        return self.images[reference.repository.removeprefix("library/")]


def plan(text: str, bases: Bases | None = None, **options: Any) -> BuildGraph:
    """Plans for linux/amd64 on linux/amd64, over `base` images named busybox, unless told otherwise."""
    known = bases or Bases({"busybox": base(Env=["PATH=/bin"], Cmd=["sh"])})
    wanted = PlanOptions(**{"platform": AMD64, "build_platform": AMD64, **options})
    return make_plan(parse(text.encode("utf-8", "surrogateescape")), wanted, known.resolve)


def runs(graph: BuildGraph) -> list[RunOp]:
    """The RUNs of a plan, in order."""
    return [node.op for node in graph.nodes if isinstance(node.op, RunOp)]


def copies(graph: BuildGraph) -> list[CopyOp]:
    """The COPYs and ADDs of a plan, in order."""
    return [node.op for node in graph.nodes if isinstance(node.op, CopyOp)]


def workdirs(graph: BuildGraph) -> list[WorkdirOp]:
    """The WORKDIRs of a plan, in order."""
    return [node.op for node in graph.nodes if isinstance(node.op, WorkdirOp)]


def sources(graph: BuildGraph) -> list[str]:
    """The names of the bases of a plan."""
    return [node.op.name for node in graph.nodes if isinstance(node.op, SourceOp)]


def shown(graph: BuildGraph) -> list[str]:
    """What each node is called."""
    return [node.title for node in graph.nodes]


def node_of(graph: BuildGraph, title: str) -> Node:
    """The one node with this in its title."""
    (found,) = [node for node in graph.nodes if title in node.title]
    return found
