"""What goes into the engine and what comes out: `Settings`, `BuildRequest`, the results.

All are frozen and made of plain values, so that they cross a process boundary as JSON
(`worker`). The client and the command line fill them in; nothing below reads the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from img.errors import UsageError
from img.progress import StepExplained
from img.values import dataclass, field

if TYPE_CHECKING:
    from img.dockerfile.findings import Finding

PullPolicy = Literal["missing", "always", "never", "newer"]
Compression = Literal["gzip", "zstd", "none"]
ManifestFormat = Literal["oci", "docker"]
"""Whose media types a manifest or an index is written with."""
Backend = Literal["auto", "overlay", "native"]
"""How steps get their roots: overlay mounts, copies of the layers, or what this machine allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and how the outside is spoken to.

    Attributes:
        state: The store's root.
        credentials: User name and password by place (`host[:port]`, or that and the beginning of a
            repository), which go before those of any file. Never shown.
        auth_config: Text of a `config.json` that goes before the files; empty for none. Never shown.
        auth_files: Files of docker's or podman's form that are asked before `docker_config`, in order.
        docker_config: Path of docker's `config.json` for credentials; empty for none.
        plain_http: Registries (`host[:port]`) that are spoken to without TLS, loopback aside.
        insecure: Registries (`host[:port]`, a network, or `*`) whose certificate is not verified, and which
            may be spoken to without TLS.
        proxies: Proxy URL by scheme (`http`, `https`), for registries and what builds fetch. May hold a
            password: never shown.
        no_proxy: Hosts and domain suffixes that are reached directly.
        ca_file: PEM file of further certificate authorities; empty for none.
        cert_dirs: Folders laid out as `certs.d`; the first one that has a registry's folder counts for it.
        cert_dir: One folder of certificates for every registry, instead of those; empty for none.
        mirrors: `HOST=MIRROR` each: asked before the registry, and before what files say.
        registries_conf: Files and folders in the format of containers' `registries.conf`; a later one wins.
        jobs: Steps, transfers and threads at once; 0 means as many as there are processors.
        single_id: Use one id even where a range is at hand.
        backend: How steps get their roots.
        variables: What the environment says that shared caches look for there (`ACTIONS_…`, `AWS_…`), by
            name. Never shown.
    """

    state: str
    credentials: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    auth_config: str = field(default="", repr=False)
    auth_files: tuple[str, ...] = ()
    docker_config: str = ""
    plain_http: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""
    cert_dirs: tuple[str, ...] = ()
    cert_dir: str = ""
    mirrors: tuple[str, ...] = ()
    registries_conf: tuple[str, ...] = ()
    jobs: int = 0
    single_id: bool = False
    backend: Backend = "auto"
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build.

    Attributes:
        context: Folder of the build context; URL of a git repository, an archive or a Dockerfile; or
            `-`: an archive or a Dockerfile on `stdin`.
        dockerfile: What `-f` says, or empty; `-` reads it from `stdin`; a URL is fetched.
        cwd: Folder that `dockerfile` is relative to.
        stdin: File that holds what came on standard input; empty where nothing did.
        tags: Names for the image; `STAGE=NAME` for that of one target.
        platforms: `os/arch[/variant]` each; none for this machine's.
        epoch: SOURCE_DATE_EPOCH, seconds since 1970, or None.
        push: Push every tag once the image is built; layers leave beside it.
        compression: How layers leave: `gzip`, `zstd` or `none`; empty for gzip, where they have no blob yet.
        compression_level: Of that; None for the usual one.
        force_compression: Layers of bases are compressed anew, too.
        annotations: What is added to manifests and index: `[PLACE[PLATFORM]:]NAME=VALUE`.
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
        no_cache_filter: Stages of which every step runs; an empty one means all.
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
    compression: str = ""
    compression_level: int | None = None
    force_compression: bool = False
    annotations: tuple[str, ...] = ()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BuildRequest:
        """Makes a request again from `dataclasses.asdict`, lists and tuples alike."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        values["agents"] = {name: tuple(paths) for name, paths in data.get("agents", {}).items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One image of a build.

    Attributes:
        target: Its stage's name, or number where it has none.
        platform: `os/arch[/variant]`.
        digest: Digest of the manifest.
        id: Image ID: digest of the config.
        tags: Full names that it has now; of several platforms, all have the same.
    """

    target: str
    platform: str
    digest: str
    id: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build gave.

    Attributes:
        digest: Digest of the manifest; of several platforms, of their index; of several targets, the last's.
        id: Image ID: digest of the config; of several platforms, that which the name means on this machine.
        tags: Full names that it has now; of several targets, the last's.
        steps: Instructions of the plan.
        cached_steps: Those for which nothing ran.
        seconds: Wall-clock time of the whole build.
        pushed: Digest in the registry for each tag, where it was pushed.
        warnings: What the checks of the Dockerfile found; and remarks, which have no rule.
        images: Every image, one for each target and platform.
        build: The build's ID, by which `img history` and `img logs` know it.
        bases: What the names of its bases meant: full names to digests, of an index where one stands for
            several platforms.
    """

    digest: str
    id: str
    tags: tuple[str, ...]
    steps: int
    cached_steps: int
    seconds: float
    pushed: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[Finding, ...] = ()
    images: tuple[BuiltImage, ...] = ()
    build: str = ""
    bases: Mapping[str, str] = field(default_factory=dict)


LockMode = Literal["add", "update", "check"]
"""Add what is missing and drop what is stale; ask anew what names mean, too; or compare alone."""

LockState = Literal["current", "missing", "moved", "stale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """One name of a lock file.

    Attributes:
        kind: `images`, `triggers` (images that only an ONBUILD trigger names), `git` or `http`.
        name: What the file calls it.
        state: `current`; `missing`: it was not in the file; `moved`: it means something else now; `stale`:
            nothing asks for it any more.
        pin: What it means now: digest or commit; empty where it is stale.
        was: What the file had.
    """

    kind: str
    name: str
    state: LockState
    pin: str = ""
    was: str = ""

    @staticmethod
    def state_of(pin: str, was: str) -> LockState:
        """How an entry stands that the file has as `was`, and that means `pin`."""
        return "current" if pin == was else "moved" if was else "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockResult:
    """What came of `lock`: the file, its entries in order, and whether it was written."""

    path: str
    entries: tuple[LockEntry, ...]
    written: bool

    @property
    def drifted(self) -> bool:
        """Some entry is not current."""
        return any(entry.state != "current" for entry in self.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What the record of a build says of one step's key.

    Attributes:
        build: The build's ID.
        number: Its number in the plan's order, as events have it.
        kind: As `StepRecord` has it.
        text: The first line of its instruction.
        began: When the build began, in seconds since the epoch.
        step: What its key was compared with; None for a step that has none, or that was not reached.
        keyless: It touches the config alone, or is what others read, and has no key.
    """

    build: str
    number: int
    kind: str
    title: str
    text: str
    where: str
    stage: str
    began: float
    keyless: bool
    step: StepExplained | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PullWish:
    """What is pulled of a name, and how.

    Attributes:
        platforms: `os/arch[/variant]` each; none for this machine's. Of several, the name means the index.
        all_platforms: Everything that the name stands for, attestations included.
        extract: Unpack the layers of the image that is this machine's, or the first. Else none is unpacked.
        policy: When the registry is asked what the name means (`Locator.locate`).
    """

    platforms: tuple[str, ...] = ()
    all_platforms: bool = False
    extract: bool = True
    policy: PullPolicy = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """What a pull gave.

    Attributes:
        reference: The name, in full.
        digest: Of the image's manifest; of several platforms, of the image that the name means here.
        id: Image ID: digest of its config.
        snapshot: The top layer's identity; empty where nothing was extracted.
        size: Bytes of its blobs.
        index: Digest of the index that the name stands for; empty where it stands for the image alone.
        platforms: Digest of the manifest by platform, for each image that was pulled.
        fetched: Blobs that came over the wire; `fetched_bytes` is their size.
    """

    reference: str
    digest: str
    id: str
    snapshot: str
    size: int
    index: str = ""
    platforms: Mapping[str, str] = field(default_factory=dict)
    fetched: int = 0
    fetched_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginResult:
    """What a login came to.

    Attributes:
        server: The registry, or `registry/namespace`.
        username: Whose credentials they are; empty where an identity token alone is known.
        source: Where they are kept: the file that was written, or where they were found.
        helper: The program that keeps the secret; empty where it stands in the file.
        checked: False where the registry asked for no credentials.
        identity_token: A token of the registry is kept in the place of the password.
    """

    server: str
    username: str
    source: str
    helper: str = ""
    checked: bool = True
    identity_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutResult:
    """What a logout came to.

    Attributes:
        server: The registry, or `registry/namespace`.
        file: The file that was looked at.
        removed: There was something to forget.
    """

    server: str
    file: str
    removed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a collection freed, in bytes that the disk gave back; `builds` counts records of builds."""

    layers: tuple[Mapping[str, object], ...]
    blobs: int
    freed_bytes: int
    cache_mounts: int = 0
    builds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Real bytes on disk, by what holds them. `cache_mounts` are the folders of RUN --mount=type=cache.

    `logs_bytes` are the records of builds, with the logs of their steps.
    """

    layers: tuple[Mapping[str, object], ...]
    layers_bytes: int
    blobs_bytes: int
    work_bytes: int
    other_bytes: int
    total_bytes: int
    reclaimable_bytes: int
    cache_mounts: tuple[Mapping[str, object], ...] = ()
    cache_mounts_bytes: int = 0
    logs_bytes: int = 0


_LAST_SECOND = 253402300799
"""The end of the year 9999: what an image config's times can say."""


def epoch_of(text: str) -> int | None:
    """Reads a SOURCE_DATE_EPOCH; None where it is empty.

    Raises:
        UsageError: it is no number of seconds that an image can have.
    """
    if not text:
        return None
    if not text.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH is seconds since 1970, not {text!r}")
    if int(text) > _LAST_SECOND:
        raise UsageError(f"SOURCE_DATE_EPOCH={text} is after the year 9999")
    return int(text)
