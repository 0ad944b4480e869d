"""`Site`: the parts that a build is carried out with, and what a step leaves: `Result`.

The client makes it; the builder knows its parts by what they do, not by what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from img.builder.graph import GitOp, HttpOp
from img.builder.key import EMPTY, CacheKey
from img.context import Context
from img.executor import Executor, Rlimit
from img.oci import Descriptor, Image
from img.progress import Progress, StepExplained
from img.snapshot import Snapshotter
from img.store import CacheRecord, Store
from img.values import dataclass, field


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
    """What a node gave: a stack of layers, base first; or a tree, where it brought files in.

    Attributes:
        content: Content digest of the whole stack; of a tree, what names it by content, or empty
            where only reading it tells.
        tree: The files of a folder that the caller named, which are no layers.
        fetched: What an input fetched; its files are written out at the first need.
        base: The image that the lowest layers are, where they may not be extracted yet.
        created: RFC 3339 time of the step, or of the one below.
        own_layer: This node added the last layer.
        cached: Nothing ran for it.
    """

    layers: tuple[BuiltLayer, ...] = ()
    content: str = EMPTY
    tree: Context | None = None
    fetched: Fetched | None = None
    base: Image | None = None
    created: str = ""
    own_layer: bool = False
    cached: bool = False


class Images(Protocol):
    """Brings the layers of bases to this machine when a step needs them."""

    def extract(self, image: Image) -> Sequence[Path]:
        """Gives the folders of an image's layers, base first; fetches and extracts what is missing."""

    def bring_early(self, image: Image) -> None:
        """Fetches and extracts what is missing before anybody asks; a failure is for who asks to meet."""

    def end_early(self) -> None:
        """Ends every `bring_early` soon, and those to come at once; from any thread."""


class Remotes(Protocol):
    """Fetches what ADD names on the network. Safe for several threads."""

    def http(self, op: HttpOp) -> Fetched:
        """Fetches one file, or takes it from an earlier build where the server says it is the same.

        Raises:
            FetchError: it cannot be had, or has another checksum.
        """

    def git(self, op: GitOp) -> Fetched:
        """Fetches one commit.

        Raises:
            FetchError: git, the repository or the ref cannot be had.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched.

    Attributes:
        content: What names it in cache keys: the same content has the same name.
        open: Gives its files; safe to call from several threads, and more than once.
    """

    content: str
    open: Callable[[], Context]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the caller says of every RUN.

    Attributes:
        secret_files: Secrets by id: the file that holds each.
        secret_values: Secrets by id: the value itself. Never shown.
        agents: ssh agents by id: the socket, or the key files of an agent to be started.
        hosts: Names and addresses for `/etc/hosts`.
        shm_bytes: Size of `/dev/shm`; 0 for the default.
        rlimits: Resource limits.
        offline: No RUN gets a network, whatever its own mode; that stays in its key.
        secret_digests: Of secrets whose value is to count in cache keys: a keyed digest of each, by id.
    """

    secret_files: Mapping[str, str] = field(default_factory=dict)
    secret_values: Mapping[str, str] = field(default_factory=dict, repr=False)
    agents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: tuple[tuple[str, str], ...] = ()
    shm_bytes: int = 0
    rlimits: tuple[Rlimit, ...] = ()
    offline: bool = False
    secret_digests: Mapping[str, str] = field(default_factory=dict)


class SharedLost(Exception):
    """Results of this solve stand on a layer that only a shared cache named, and that cannot be had.

    The solve is begun again; what was carried out by then is known to the store. Nobody else sees it.
    """


class Shared(Protocol):
    """The caches that this build shares with other machines (`--cache-from`, `--cache-to`). Thread-safe.

    A cache that fails is left out from then on, which is no error unless the caller wants it to be one.
    """

    def find(self, key: str) -> CacheRecord | None:
        """What one of the caches has under a key; its layer may be there alone, and unseen.

        Raises:
            CacheError: a cache failed whose errors count.
            SharedLost: a cache lied of which results stand already.
        """

    def bring(self, diff_ids: Sequence[str]) -> None:
        """Brings those of these layers that `find` named, and that are not here, to the store, verified.

        Raises:
            CacheError: a cache failed whose errors count.
            SharedLost: a layer cannot be had, or is not what a cache said of it.
        """

    def sound(self, diff_ids: Sequence[str]) -> bool:
        """Tells whether what is known of these layers was seen here; else it is a cache's word alone."""

    def offer(
        self, node: int, keys: Sequence[CacheKey], record: CacheRecord, title: str, stands_on: Sequence[str]
    ) -> None:
        """Tells of a step that ended, or was known: what is written out goes on its way at once.

        Args:
            keys: Under which it may be looked up. The record's own fields of that kind do not count.
            stands_on: Diff IDs of the layers that the keys name by content.
        """


def _always() -> bool:
    return True


def _going_on() -> None:
    """Nothing ends the build from outside."""


class Logs(Protocol):
    """Keeps what steps write, and what is known of their keys. Safe for several threads."""

    def write(self, step: int, piece: bytes) -> None:
        """Adds to a step's log what its process wrote, as it wrote it; called by one thread for each step.

        Never raises: a log that cannot be kept fails no build.
        """

    def explained(self, event: StepExplained) -> None:
        """Takes what a step's key was compared with, in place of what was said of it before. Never raises."""


class Travelling(Protocol):
    """The cache mounts that come from other machines and go to them. Thread-safe."""

    def bring(self, mount_id: str, key: str, folder: Path) -> bool:
        """Fills the empty folder of a cache with what a shared cache carries of it.

        Returns:
            False where none does, or what it gives is not sound: the folder is empty then.
        Raises:
            CacheError: a cache failed whose errors count.
        """

    def used(self, mount_id: str, key: str, copy: Path) -> None:
        """Tells of the copy of a cache that a step is about to use."""


class Leaving(Protocol):
    """Sends layers away beside the build, which nothing waits for. Thread-safe."""

    def offer(self, node: int, diff_id: str) -> None:
        """Tells that a node's own layer is known now. Returns at once, and never raises."""


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
        go_on: Called now and then by the solver; raises what ends the build from outside.
        epoch: SOURCE_DATE_EPOCH in seconds, or None.
        ranged: This process has a whole range of ids to give to files.
        trees: Trees of files that the caller named with `--build-context`, by name; opened at the first
            look, which may take as long as the network does.
        remotes: Fetches for ADD; None where the network must not be used.
        roomy: Tells whether there is memory for one more step beside those that run.
        shared: Caches of other machines, or None.
        logs: Keeps the output of steps and the explanations of their keys; None where nobody does.
        travelling: The cache mounts that are in those, or None.
        leaving: Sends the layers of images while the build goes on, or None.
        place: Which Dockerfile and context this is, for finding the records of its earlier builds.
        explain: `StepExplained` is told of every step, and not to `logs` alone.
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
    trees: Mapping[str, Context] = field(default_factory=dict)
    remotes: Remotes | None = None
    run_options: RunOptions = field(default_factory=RunOptions)
    shared: Shared | None = None
    roomy: Callable[[], bool] = _always
    logs: Logs | None = None
    travelling: Travelling | None = None
    leaving: Leaving | None = None
    go_on: Callable[[], None] = _going_on
    place: str = ""
    explain: bool = False
