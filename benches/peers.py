"""The programs that build images, one small class each: how each is asked for the same thing.

`Peer` is the strategy; a method gives a whole command line, and the rows of `benches.workloads` put them
together. `all_peers` names them. What a program cannot do raises `Unfit`; that it is not there says
`missing`. Nothing here runs what is timed; only daemons are started here, and ended by their own process.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.measure import Failed, Identity

Command = list[str]
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


_SKOPEO = ("skopeo", "--insecure-policy", "copy", "--quiet")


class Unfit(Exception):
    """A program has no way to do what a row asks for; the text says which."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """A build, as a row asks for it.

    Attributes:
        flags: Ones that all programs spell alike, as `--no-cache`.
        jobs: Stages at once, where a program does one at a time unless told.
    """

    context: Path
    dockerfile: Path
    tag: str = "bench:1"
    flags: tuple[str, ...] = ()
    jobs: int = 1


def chain(*commands: Sequence[str]) -> Command:
    """One command that runs several, and fails with the first that does."""
    return ["sh", "-ec", "\n".join(shlex.join(command) for command in commands)]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """How one program does it. `home` is the place of a run, with its store in it.

    Attributes:
        name: What a table's column and `--peers` call it.
        identity: Who runs it.
        program: The program, a path or a name on the path.
        inside: Words that run the command behind them in another root; empty: in this one.
    """

    name: str
    identity: Identity
    program: str
    inside: tuple[str, ...] = ()

    def missing(self) -> str:
        """Why it cannot run on this machine; empty where it can."""
        return self._absent(self.program)

    def version(self) -> str:
        """What it calls itself, in one line."""
        return self._says([self.program, "--version"])

    @contextlib.contextmanager
    def session(self, home: Path) -> Iterator[tuple[int, ...]]:
        """What must run beside its commands while a place is in use: the processes' ids."""
        yield ()

    def build(self, home: Path, build: Build) -> Command:
        """Builds into the local store."""
        raise Unfit("it does not build")

    def pull(self, home: Path, reference: str) -> Command:
        """Pulls an image to a root that can run."""
        raise Unfit("it does not pull")

    def push(self, home: Path, reference: str, compression: str) -> Command:
        """Pushes an image under the name that it was built with. `compression`: gzip or zstd."""
        raise Unfit("it does not push")

    def forward(self, home: Path, source: str, target: str) -> Command:
        """Pushes an image that was pulled as `source` to `target`, its layers as they are."""
        raise Unfit("it does not push")

    def copy(self, home: Path, source: str, target: str) -> Command:
        """Copies an image from one registry to another, and keeps none of it."""
        raise Unfit("it does not copy")

    def remove(self, home: Path, tag: str) -> Command:
        """Removes an image and everything that was kept for it."""
        raise Unfit("it does not remove")

    def show_version(self, home: Path) -> Command:
        """Prints the version as people ask for it."""
        return [*self.inside, self.program, "version"]

    def list_images(self, home: Path) -> Command:
        """Prints the list of images."""
        raise Unfit("it keeps no list")

    def _absent(self, *programs: str) -> str:
        for program in programs:
            if not self._succeeds(["sh", "-c", 'command -v "$1"', "sh", program]):
                return f"{program} is not installed"
        return ""

    def _succeeds(self, command: Command) -> bool:
        done = subprocess.run([*self.inside, *command], env={"PATH": PATH}, capture_output=True, check=False)
        return done.returncode == 0

    def _says(self, command: Command) -> str:
        return (self._output(command) or "unknown").splitlines()[0]

    def _output(self, command: Command) -> str:
        done = subprocess.run(
            [*self.inside, *command],
            env={"PATH": PATH, "HOME": "/"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()


class Img(Peer):
    """The program that all this is about."""

    def version(self) -> str:
        found = re.search(r"version\s*:\s*(\S+)", self._output([self.program, "version"]))
        return f"img {found.group(1)}" if found else "unknown"

    def build(self, home: Path, build: Build) -> Command:
        words = [*self._img(home), "build", *build.flags, "-f", str(build.dockerfile), "-t", build.tag]
        if build.jobs > 1:
            words += ["--jobs", str(build.jobs)]
        return [*words, str(build.context)]

    def pull(self, home: Path, reference: str) -> Command:
        return [*self._img(home), "pull", reference]

    def push(self, home: Path, reference: str, compression: str) -> Command:
        return [*self._img(home), "push", "--compression", compression, reference]

    def forward(self, home: Path, source: str, target: str) -> Command:
        return chain([*self._img(home), "tag", source, target], [*self._img(home), "push", target])

    def copy(self, home: Path, source: str, target: str) -> Command:
        return [*self._img(home), "copy", source, target]

    def remove(self, home: Path, tag: str) -> Command:
        return chain([*self._img(home), "rm", tag], [*self._img(home), "prune", "--all"])

    def list_images(self, home: Path) -> Command:
        return [*self._img(home), "images"]

    def _img(self, home: Path) -> Command:
        return [self.program, "--state", f"{home}/store"]


class Buildah(Peer):
    """With `--isolation=chroot`, its fastest for many steps, `--layers` for a cache, and overlay storage."""

    def build(self, home: Path, build: Build) -> Command:
        words = [*self._stored(home), self._verb(), "--isolation=chroot", "--layers", "--tls-verify=false"]
        words += [*_own_limits(), *build.flags, "-f", str(build.dockerfile), "-t", build.tag]
        if build.jobs > 1:
            words += ["--jobs", str(build.jobs)]
        return [*words, str(build.context)]

    def pull(self, home: Path, reference: str) -> Command:
        return [*self._stored(home), "pull", "--quiet", "--tls-verify=false", reference]

    def push(self, home: Path, reference: str, compression: str) -> Command:
        words = [*self._stored(home), "push", "--quiet", "--tls-verify=false"]
        return [*words, "--compression-format", compression, reference, f"docker://{reference}"]

    def forward(self, home: Path, source: str, target: str) -> Command:
        words = [*self._stored(home), "push", "--quiet", "--tls-verify=false"]
        return [*words, source, f"docker://{target}"]

    def remove(self, home: Path, tag: str) -> Command:
        return [*self._stored(home), "rmi", tag]

    def list_images(self, home: Path) -> Command:
        return [*self._stored(home), "images"]

    def _verb(self) -> str:
        return "bud"

    def _stored(self, home: Path) -> Command:
        # podman refuses a run root of more than 50 characters.
        storage = ["--root", f"{home}/store", "--runroot", f"{home}/run/s"]
        return [*self.inside, self.program, *storage, "--storage-driver", "overlay"]


def _own_limits() -> Command:
    """Limits for a RUN that this process may set: the later buildah's defaults may be above those."""
    words = []
    # podman lowers its own number of processes to this.
    for name, number, most in (
        ("nofile", resource.RLIMIT_NOFILE, 1 << 20),
        ("nproc", resource.RLIMIT_NPROC, 32768),
    ):
        _, hard = resource.getrlimit(number)
        limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
        words += ["--ulimit", f"{name}={limit}:{limit}"]
    return words


class Podman(Buildah):
    """buildah's code behind podman's own start and store; no systemd is asked for cgroups."""

    def _verb(self) -> str:
        return "build"

    def _stored(self, home: Path) -> Command:
        return [*super()._stored(home), "--cgroup-manager", "cgroupfs"]


@dataclass(frozen=True, kw_only=True)
class BuildKit(Peer):
    """The one in docker.io's daemon, which is up before anything is timed; memory and CPU include it.

    Each place has a daemon of its own, without bridges and firewall rules, on a socket in the place; a
    RUN has the host's network, as the others' have. It runs as root or not at all.

    Attributes:
        daemon: The daemon's program.
    """

    daemon: str = "dockerd"

    def missing(self) -> str:
        if os.geteuid() != 0:
            return "its daemon needs root"
        return self._absent(self.program, self.daemon, "containerd", "runc")

    @contextlib.contextmanager
    def session(self, home: Path) -> Iterator[tuple[int, ...]]:
        """Starts the daemon, waits until it answers, ends it by its own process."""
        words = [*self.inside, self.daemon, "--iptables=false", "--ip6tables=false", "--bridge=none"]
        words += ["--host", self._socket(home), "--data-root", f"{home}/store", "--exec-root", f"{home}/x"]
        words += ["--pidfile", f"{home}/pid"]
        log = home / "dockerd.log"
        with log.open("wb") as file:
            environment = {"PATH": PATH, "HOME": str(home), "TMPDIR": str(home)}
            process = subprocess.Popen(
                words, cwd=home, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
            )
        try:
            self._wait(home, process, log)
            yield (process.pid,)
        finally:
            process.terminate()
            process.wait()

    def build(self, home: Path, build: Build) -> Command:
        words = ["build", "--progress=plain", "--network=host", *build.flags]
        words += ["-f", str(build.dockerfile), "-t", build.tag, str(build.context)]
        # The later client's BuildKit is a plugin; both know the variable.
        return [*self.inside, "env", "DOCKER_BUILDKIT=1", *self._client(home), *words]

    def pull(self, home: Path, reference: str) -> Command:
        return [*self.inside, *self._client(home), "pull", "--quiet", reference]

    def push(self, home: Path, reference: str, compression: str) -> Command:
        if compression != "gzip":
            raise Unfit("docker push writes gzip only")
        return [*self.inside, *self._client(home), "push", "--quiet", reference]

    def forward(self, home: Path, source: str, target: str) -> Command:
        client = [*self.inside, *self._client(home)]
        return chain([*client, "tag", source, target], [*client, "push", "--quiet", target])

    def remove(self, home: Path, tag: str) -> Command:
        client = [*self.inside, *self._client(home)]
        return chain([*client, "rmi", tag], [*client, "builder", "prune", "--all", "--force"])

    def show_version(self, home: Path) -> Command:
        return [*self.inside, *self._client(home), "version"]

    def list_images(self, home: Path) -> Command:
        return [*self.inside, *self._client(home), "images"]

    def _socket(self, home: Path) -> str:
        return f"unix://{home}/d.sock"

    def _client(self, home: Path) -> Command:
        return [self.program, "--host", self._socket(home)]

    def _wait(self, home: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        """Asks until the daemon answers: it says on no channel that it is ready."""
        ask = [*self.inside, *self._client(home), "version"]
        for _ in range(600):
            if process.poll() is not None:
                raise Failed(f"{self.daemon} ended:\n{log.read_text(errors='replace')[-1000:]}")
            if subprocess.run(ask, env={"PATH": PATH}, capture_output=True, check=False).returncode == 0:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        raise Failed(f"{self.daemon} does not answer:\n{log.read_text(errors='replace')[-1000:]}")


class Umoci(Peer):
    """skopeo fetches, umoci unpacks: two programs that do what a pull to a ready root is."""

    def missing(self) -> str:
        return self._absent("skopeo", "umoci")

    def version(self) -> str:
        return f"{self._says(['skopeo', '--version'])}, {self._says(['umoci', '--version'])}"

    def pull(self, home: Path, reference: str) -> Command:
        fetch = [*_SKOPEO, "--src-tls-verify=false", f"docker://{reference}", f"oci:{home}/layout:bench"]
        unpack = ["umoci", "unpack", "--image", f"{home}/layout:bench", f"{home}/bundle"]
        if self.identity.label != "root":
            unpack.insert(2, "--rootless")
        return chain(fetch, unpack)

    def forward(self, home: Path, source: str, target: str) -> Command:
        return [*_SKOPEO, "--dest-tls-verify=false", f"oci:{home}/layout:bench", f"docker://{target}"]

    def copy(self, home: Path, source: str, target: str) -> Command:
        words = [*_SKOPEO, "--src-tls-verify=false", "--dest-tls-verify=false"]
        return [*words, f"docker://{source}", f"docker://{target}"]

    def show_version(self, home: Path) -> Command:
        raise Unfit("two programs")


def all_peers(img: str, user: Identity, root: Identity, later: tuple[str, ...]) -> list[Peer]:
    """Every peer, `img` first.

    Args:
        img: The img to measure.
        user: The ordinary user; `root`: whoever runs the benches.
        later: Words that run a command in the root of a later Debian; empty: there is none.
    """
    both: list[Peer] = [
        Img(name="img", identity=user, program=img),
        Img(name="img-root", identity=root, program=img),
        BuildKit(name="buildkit", identity=root, program=_beside("dockerd", "docker")),
        Buildah(name="buildah", identity=root, program="buildah"),
        Buildah(name="buildah-user", identity=user, program="buildah"),
        Podman(name="podman", identity=root, program="podman"),
        Umoci(name="umoci", identity=root, program="umoci"),
    ]
    if later:
        both += [
            BuildKit(name="new-buildkit", identity=root, program="docker", inside=later),
            Buildah(name="new-buildah", identity=root, program="buildah", inside=later),
        ]
    # Without a second identity these would be run twice.
    twice = {"img-root", "buildah-user"} if user == root else set()
    return [peer for peer in both if peer.name not in twice]


def _beside(daemon: str, client: str) -> str:
    """The client of the same major version as the daemon: another vendor's may lie before it on the path."""
    where = [Path(folder) / client for folder in PATH.split(":")]
    found = [str(path) for path in where if path.exists()]
    if not shutil.which(daemon, path=PATH):
        return client
    wanted = _major(daemon)
    return next((program for program in found if _major(program) == wanted), client)


def _major(program: str) -> str:
    done = subprocess.run(
        [program, "--version"], env={"PATH": PATH}, capture_output=True, text=True, check=False
    )
    found = re.search(r"version (\d+)", done.stdout)
    return found.group(1) if found else ""
