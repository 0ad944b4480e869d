"""Runs the containers of a build: `RunSpec` in, an exit code out.

`Executor` is what the solver knows; `SandboxExecutor` is the built-in one, over `img._core.spawn`.
Both sides of the door speak the OCI runtime-spec, which `to_oci` writes. Nothing here mounts a root,
reads a Dockerfile or knows of layers: the caller hands over a root that is mounted already.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

from img import _core
from img.values import dataclass, replace

__all__ = ["UNLIMITED", "Executor", "Mount", "Rlimit", "RunSpec", "SandboxExecutor", "prepare_stub", "to_oci"]

RUNTIME_SPEC_VERSION = "1.1.0"

HOSTNAME = "buildkitsandbox"
"""What a container calls its machine unless told otherwise: one name everywhere, that of docker's builds."""

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What container engines leave to an unprivileged container's root."""

ALL_CAPABILITIES = (
    *DEFAULT_CAPABILITIES,
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What tells of the host or of other users, as container engines mask it."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What would change the host, as container engines protect it."""

SHM_BYTES = 64 << 20
"""Size of `/dev/shm`, as container engines have it."""

STUB_FOLDERS = ("proc", "sys", "dev", "dev/pts", "dev/shm", "dev/mqueue", "etc")
STUB_FILES = ("etc/resolv.conf", "etc/hosts")

APT_CONFIG = "/dev/img/apt.conf"
"""Where a container with one id finds apt's configuration: on its own `/dev`, never in a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of a container. Source: runtime-spec v1.1, config.md, "Mounts".

    Attributes:
        destination: Absolute path inside.
        type: `bind`, `tmpfs`, `proc`, `sysfs`, `devpts` or `mqueue`.
        source: Absolute path outside for a bind mount, else a name for people.
        options: As fstab(5) has them.
    """

    destination: str
    type: str
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One resource limit. Source: runtime-spec v1.1, config.md, "POSIX process", `rlimits`.

    Attributes:
        kind: `RLIMIT_NOFILE` and its kin.
        soft: The limit in force; `UNLIMITED` for none.
        hard: How far the process may raise it.
    """

    kind: str
    soft: int
    hard: int


UNLIMITED = 2**64 - 1
"""RLIM_INFINITY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run of a program over a root file system.

    Attributes:
        root: Absolute path of the root, mounted already.
        args: Program and arguments; a program without a slash is looked up on `env`'s PATH inside.
        env: The whole environment; nothing of the builder's is added.
        cwd: Working directory inside, which exists.
        mounts: Beside the ones that every container has, which one of the same destination replaces.
        network: `host`, or `none` for a loopback interface alone.
        security: `insecure` lifts capabilities, filter, masked and read-only paths.
        hosts: Names and addresses that `/etc/hosts` has besides loopback's.
        shm_bytes: Size of `/dev/shm`; 0 for the default of 64 MiB.
        rlimits: Resource limits; what is not named is the builder's own.
    """

    root: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    hostname: str = HOSTNAME
    mounts: tuple[Mount, ...] = ()
    network: Literal["host", "none"] = "host"
    security: Literal["sandbox", "insecure"] = "sandbox"
    hosts: tuple[tuple[str, str], ...] = ()
    shm_bytes: int = 0
    rlimits: tuple[Rlimit, ...] = ()


class Running(Protocol):
    """A container that was started."""

    def wait(self) -> int:
        """Waits for its end; all its processes are gone on return.

        Returns:
            The exit code; 128 plus the signal's number where a signal ended it; 127 or 126 where the
            program was not found or not executable, with a line on its output.
        """


class Executor(Protocol):
    """Runs containers. Every method may be called from any thread."""

    def start(self, spec: RunSpec, *, output: int) -> AbstractContextManager[Running]:
        """Starts one container, at the beginning of a `with` block; what runs at the block's end is ended.

        Args:
            output: File descriptor for its standard output and error; it is not closed. Once the
                container runs, the caller may: a pipe ends when the container's last process does.
        Raises:
            SandboxError: this machine refused a step of starting it.
        """

    def kill_all(self) -> None:
        """Ends every container that runs, and every one that is still started. Idempotent."""


def prepare_stub(path: str | os.PathLike[str]) -> None:
    """Fills a folder that goes under all layers, so that mount points never enter a layer.

    An empty file or folder for everything that a container has mounted by default. What the
    image has at these paths covers it. Doing it again changes nothing.
    """
    for name in STUB_FOLDERS:
        os.makedirs(os.path.join(path, name), mode=0o755, exist_ok=True)
    for name in STUB_FILES:
        descriptor = os.open(os.path.join(path, name), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        os.close(descriptor)
    # A container sees these times where the image has nothing there: the same on every machine.
    for name in (*STUB_FILES, *reversed(STUB_FOLDERS), "."):
        os.utime(os.path.join(path, name), (0, 0))


def to_oci(spec: RunSpec, *, emulate_owners: bool) -> dict[str, object]:
    """Writes the OCI runtime-spec of a run, the same for every runtime. Parts of it are shared: read only.

    Args:
        emulate_owners: With one id only, changes of owner and identity report success and do nothing.
    Source: runtime-spec v1.1, config.md and config-linux.md.
    """
    insecure = spec.security == "insecure"
    capabilities = sorted(ALL_CAPABILITIES if insecure else DEFAULT_CAPABILITIES)
    namespaces = ["pid", "mount", "ipc", "uts", "cgroup"]
    if spec.network == "none":
        namespaces.append("network")
    linux: dict[str, object] = {"namespaces": [{"type": kind} for kind in namespaces]}
    if not insecure:
        linux |= {"maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS)}
    if seccomp := _seccomp(insecure=insecure, emulate_owners=emulate_owners):
        linux["seccomp"] = seccomp
    return {
        "ociVersion": RUNTIME_SPEC_VERSION,
        "root": {"path": spec.root, "readonly": False},
        "hostname": spec.hostname,
        "mounts": [_mount_to_oci(mount) for mount in _mounts(spec, emulate_owners=emulate_owners)],
        "process": {
            "terminal": False,
            "user": {
                "uid": spec.uid,
                "gid": spec.gid,
                "umask": 0o022,
                "additionalGids": list(spec.additional_gids),
            },
            "args": list(spec.args),
            "env": [f"{name}={value}" for name, value in spec.env],
            "cwd": spec.cwd,
            # Nothing is inheritable: a file's inheritable capabilities must not come to life.
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": r.kind, "soft": r.soft, "hard": r.hard} for r in spec.rlimits],
            "noNewPrivileges": False,
        },
        "linux": linux,
    }


@functools.cache
def _seccomp(*, insecure: bool, emulate_owners: bool) -> dict[str, object] | None:
    if insecure and not emulate_owners:
        return None
    profile: dict[str, object] = json.loads(_core.default_seccomp(emulate_owners=emulate_owners))
    if insecure:
        rules = profile["syscalls"]
        assert isinstance(rules, list)
        profile["defaultAction"] = "SCMP_ACT_ALLOW"
        profile["syscalls"] = [rule for rule in rules if rule.get("errnoRet") == 0]
        profile.pop("defaultErrnoRet", None)
    return profile


def _mounts(spec: RunSpec, *, emulate_owners: bool) -> Iterable[Mount]:
    """Gives the mounts in order: what every container has, then the run's own."""
    replaced = {os.path.normpath(mount.destination) for mount in spec.mounts}
    defaults = _default_mounts(spec, emulate_owners=emulate_owners)
    return (*(mount for mount in defaults if mount.destination not in replaced), *spec.mounts)


def _default_mounts(spec: RunSpec, *, emulate_owners: bool) -> tuple[Mount, ...]:
    # A terminal belongs to group 5 everywhere, but with one id there is no group 5.
    terminals: tuple[str, ...] = ("newinstance", "ptmxmode=0666", "mode=0620")
    terminals = terminals if emulate_owners else (*terminals, "gid=5")
    strict = ("nosuid", "noexec", "nodev")
    kernel = strict if spec.security == "insecure" else (*strict, "ro")
    own_network = spec.network == "none"
    return (
        Mount(destination="/proc", type="proc", source="proc", options=strict),
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(
            destination="/dev/pts", type="devpts", source="devpts", options=("nosuid", "noexec", *terminals)
        ),
        Mount(
            destination="/dev/shm",
            type="tmpfs",
            source="shm",
            options=(*strict, "mode=1777", f"size={spec.shm_bytes or SHM_BYTES}"),
        ),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=strict),
        # The kernel gives a sysfs of its own only to the owner of the network namespace.
        Mount(destination="/sys", type="sysfs", source="sysfs", options=kernel)
        if own_network
        else Mount(destination="/sys", type="bind", source="/sys", options=("rbind", *kernel)),
    )


def _mount_to_oci(mount: Mount) -> dict[str, object]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


class SandboxExecutor:
    """The built-in executor. `img._core.enter_namespace` was called before.

    It belongs to one build: once `kill_all` was called, whatever it starts is ended at once.
    """

    def __init__(self, scratch: str | os.PathLike[str], *, emulate_owners: bool = False) -> None:
        """Makes an executor.

        Args:
            scratch: Existing folder for small files that containers see (`/etc/hosts`), which the
                caller removes after the build; two executors never share one.
            emulate_owners: True where the namespace's kind is `single`.
        """
        self._scratch = os.path.abspath(scratch)
        self._emulate_owners = emulate_owners
        self._lock = threading.Lock()
        self._running: set[_core.Container] = set()
        self._stopped = False
        self._written: dict[str, str] = {}

    @contextmanager
    def start(self, spec: RunSpec, *, output: int) -> Iterator[Running]:
        """See `Executor.start`."""
        whole = self._with_private_files(spec)
        text = json.dumps(to_oci(whole, emulate_owners=self._emulate_owners))
        container = _core.spawn(text, output=output)
        with self._lock:
            self._running.add(container)
            if self._stopped:
                container.kill()
        try:
            yield container
        except BaseException:
            container.kill()
            container.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(container)

    def kill_all(self) -> None:
        """See `Executor.kill_all`."""
        with self._lock:
            self._stopped = True
            for container in self._running:
                container.kill()

    def _with_private_files(self, spec: RunSpec) -> RunSpec:
        """Adds the files that are made for the run alone, unless the run brings its own."""
        taken = {os.path.normpath(mount.destination) for mount in spec.mounts}
        files = {
            "/etc/resolv.conf": self._file("resolv.conf", _read_or_empty("/etc/resolv.conf")),
            "/etc/hosts": self._file("hosts", _hosts(spec)),
        }
        env = spec.env
        if self._emulate_owners and os.path.isdir(os.path.join(spec.root, "etc/apt")):
            # apt drops to a user of its own and checks that it did, which cannot be faked.
            files[APT_CONFIG] = self._file("apt.conf", 'APT::Sandbox::User "root";\n')
            if all(name != "APT_CONFIG" for name, _ in env):
                env = (*env, ("APT_CONFIG", APT_CONFIG))
        mounts = tuple(
            Mount(destination=inside, type="bind", source=outside, options=("bind", "ro", "nosuid", "nodev"))
            for inside, outside in files.items()
            if inside not in taken
        )
        return replace(spec, env=env, mounts=(*mounts, *spec.mounts))

    def _file(self, name: str, text: str) -> str:
        """Gives the path of a file with this text, which is written once."""
        with self._lock:
            if text not in self._written:
                path = os.path.join(self._scratch, f"{len(self._written)}-{name}")
                with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(text)
                os.chmod(path, 0o644)
                self._written[text] = path
            return self._written[text]


def _hosts(spec: RunSpec) -> str:
    added = "".join(f"{address}\t{name}\n" for name, address in spec.hosts)
    return (
        f"127.0.0.1\tlocalhost {spec.hostname}\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "ff00::0\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n" + added
    )


def _read_or_empty(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
