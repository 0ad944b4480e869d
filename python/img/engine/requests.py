"""What goes into the engine and what comes out: `Settings`, `BuildRequest`, the results.

All are frozen and made of plain values, so that they cross a process boundary as JSON
(`worker`). The client and the command line fill them in; nothing below reads the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from img.progress import StepExplained

if TYPE_CHECKING:
    from img.dockerfile.findings import Finding

PullPolicy = Literal["missing", "always", "never", "newer"]
Compression = Literal["gzip", "zstd", "none"]
Backend = Literal["auto", "overlay", "native"]
"""How steps get their roots: overlay mounts, copies of the layers, or what this machine allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and how the outside is spoken to.

    Attributes:
        state: The store's root.
        docker_config: Path of docker's `config.json` for credentials; empty for none.
        plain_http: Registries (`host[:port]`) that are spoken to without TLS, loopback aside.
        proxies: Proxy URL by scheme (`http`, `https`), for registries and what builds fetch. May hold a
            password: never shown.
        no_proxy: Hosts and domain suffixes that are reached directly.
        ca_file: PEM file of further certificate authorities; empty for none.
        jobs: Steps, transfers and threads at once; 0 means as many as there are processors.
        single_id: Use one id even where a range is at hand.
        backend: How steps get their roots.
    """

    state: str
    docker_config: str = ""
    plain_http: tuple[str, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""
    jobs: int = 0
    single_id: bool = False
    backend: Backend = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build.

    Attributes:
        context: Folder of the build context; URL of a git repository, an archive or a Dockerfile; or
            `-`: an archive or a Dockerfile on `stdin`.
        dockerfile: What `-f` says, or empty; `-` reads it from `stdin`; a URL is fetched.
        cwd: Folder that `dockerfile` is relative to.
        stdin: File that holds what came on standard input; empty where nothing did.
        tags: Names for the image.
        platforms: `os/arch[/variant]` each; none for this machine's.
        epoch: SOURCE_DATE_EPOCH, seconds since 1970, or None.
        push: Push every tag once the image is built.
        contexts: Named contexts: what `--build-context NAME=VALUE` says, by name.
        secret_files: Secrets by id: the file that holds each.
        secret_values: Secrets by id: the value itself. Never shown.
        agents: ssh agents by id: a socket, or key files.
        allow: Entitlements: `security.insecure`, `network.host`.
        network: Of every RUN that names none: `default`, `none` or `host`.
        add_hosts: `name:address`, for the `/etc/hosts` of every RUN.
        shm_bytes: Size of `/dev/shm` in every RUN; 0 for the default.
        ulimits: `name=soft[:hard]`, for every RUN.
        targets: Stages to build; none for the last one.
        no_cache_filter: Stages of which every step runs.
        no_cache_steps: Steps that run: `LINE`, or `PATTERN` for a part of their text.
        fail_fast: A step that fails ends those that run beside it; else they run to their end.
        cache_from: Shared caches that are asked: `type=…,NAME=VALUE` each (`img.cache.parse_spec`).
        cache_to: Shared caches that are written, likewise.
        secret_hashes: Secrets by id whose value is part of the cache keys.
        context_normalize: `git` takes the modes of the context's files from git's index.
        explain: Every step says what its key was compared with.
        offline: No socket is opened.
        lock_file: Path of the lock file; empty for `img.lock` beside the Dockerfile.
        locked: A base that the lock file does not pin is an error.
    """

    context: str
    dockerfile: str = ""
    cwd: str = "."
    stdin: str = ""
    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    pull: PullPolicy = "missing"
    no_cache: bool = False
    push: bool = False
    epoch: int | None = None
    contexts: Mapping[str, str] = field(default_factory=dict)
    secret_files: Mapping[str, str] = field(default_factory=dict)
    secret_values: Mapping[str, str] = field(default_factory=dict, repr=False)
    agents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    network: str = "default"
    add_hosts: tuple[str, ...] = ()
    shm_bytes: int = 0
    ulimits: tuple[str, ...] = ()
    no_cache_filter: tuple[str, ...] = ()
    no_cache_steps: tuple[str, ...] = ()
    fail_fast: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    secret_hashes: tuple[str, ...] = ()
    context_normalize: str = ""
    explain: bool = False
    offline: bool = False
    lock_file: str = ""
    locked: bool = False

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BuildRequest:
        """Makes a request again from `dataclasses.asdict`, lists and tuples alike."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        values["agents"] = {name: tuple(paths) for name, paths in data.get("agents", {}).items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build gave.

    Attributes:
        digest: Digest of the manifest.
        id: Image ID: digest of the config.
        tags: Full names that it has now.
        steps: Instructions of the plan.
        cached_steps: Those for which nothing ran.
        seconds: Wall-clock time of the whole build.
        pushed: Digest in the registry for each tag, where it was pushed.
        warnings: What the checks of the Dockerfile found; and remarks, which have no rule.
    """

    digest: str
    id: str
    tags: tuple[str, ...]
    steps: int
    cached_steps: int
    seconds: float
    pushed: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What was said of one step of the last build.

    Attributes:
        number: Its number in the plan's order, as events have it.
        text: The first line of its instruction.
        began: When the build began, in seconds since the epoch.
        step: What its key was compared with; None for a step that has none, or that was not reached.
        keyless: It touches the config alone, and has no key.
    """

    number: int
    title: str
    text: str
    where: str
    stage: str
    began: float
    keyless: bool
    step: StepExplained | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """What a pull gave. `size` is in bytes of the blobs; `snapshot` is the top layer's identity."""

    reference: str
    digest: str
    id: str
    snapshot: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a collection freed, in bytes that the disk gave back; `cache_mounts` counts folders."""

    layers: tuple[Mapping[str, object], ...]
    blobs: int
    freed_bytes: int
    cache_mounts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Real bytes on disk, by what holds them. `cache_mounts` are the folders of RUN --mount=type=cache."""

    layers: tuple[Mapping[str, object], ...]
    layers_bytes: int
    blobs_bytes: int
    work_bytes: int
    other_bytes: int
    total_bytes: int
    reclaimable_bytes: int
    cache_mounts: tuple[Mapping[str, object], ...] = ()
    cache_mounts_bytes: int = 0
