"""`Site`: the parts that a build is carried out with, and what a step leaves: `Result`.

The client makes it; the builder knows its parts by what they do, not by what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from img.builder.key import EMPTY
from img.context import Context
from img.executor import Executor
from img.oci import Descriptor, Image
from img.progress import Progress
from img.snapshot import Snapshotter
from img.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """A layer of a result.

    Attributes:
        content: What cache keys name it by.
        descriptor: Its blob as a manifest names it.
    """

    diff_id: str
    content: str
    descriptor: Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a node gave: a stack of layers, base first.

    Attributes:
        content: Content digest of the whole stack.
        base: The image that the lowest layers are, where they may not be extracted yet.
        created: RFC 3339 time of the step, or of the one below.
        own_layer: This node added the last layer.
        cached: Nothing ran for it.
    """

    layers: tuple[BuiltLayer, ...] = ()
    content: str = EMPTY
    base: Image | None = None
    created: str = ""
    own_layer: bool = False
    cached: bool = False


class Images(Protocol):
    """Brings the layers of bases to this machine when a step needs them."""

    def extract(self, image: Image) -> Sequence[Path]:
        """Gives the folders of an image's layers, base first; fetches and extracts what is missing."""


class Memo(Protocol):
    """Digests of context files, remembered between builds."""

    def save(self) -> None:
        """Writes it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything a build is carried out with.

    Attributes:
        stop: Called with True, makes all work that is under way in other threads end soon; with
            False, takes that back.
        now: Gives the present time as RFC 3339.
        epoch: SOURCE_DATE_EPOCH in seconds, or None.
        ranged: This process has a whole range of ids to give to files.
    """

    store: Store
    snapshots: Snapshotter
    executor: Executor
    images: Images
    context: Context
    scratch: Path
    progress: Progress
    stop: Callable[[bool], None]
    now: Callable[[], str]
    epoch: int | None = None
    ranged: bool = True
