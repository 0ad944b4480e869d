"""`furnish`: the mounts of one RUN, at hand for as long as its container runs.

`perform.run` calls it. Everything is let go of when the block ends, and what the process does not live
to let go of goes with it: mounts are the builder's own, and a cache's lock dies with its holder.
Secrets and agents' sockets lie in memory alone, in a mount that nobody else sees.
Source: Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from img import _core
from img.builder.graph import RunMount, RunOp, Sharing
from img.builder.perform.binds import Bind, Binds
from img.builder.perform.step import Step
from img.dockerfile.faults import fault
from img.dockerfile.near import did_you_mean
from img.errors import ImgError
from img.executor import Mount
from img.progress import Note
from img.store import CacheLease, CacheShape
from img.values import dataclass, field

_SAFE = ("nosuid", "nodev", "noexec")
_SECRET_MODE, _AGENT_MODE, _CACHE_MODE = 0o400, 0o600, 0o755


@dataclass(slots=True)
class Furnished:
    """What a container gets: `mounts`, parents first, variables, and the values of its `secrets`."""

    mounts: list[Mount] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: list[bytes] = field(default_factory=list, repr=False)


@contextmanager
def furnish(step: Step, op: RunOp, binds: Binds, folder: Path) -> Iterator[Furnished]:
    """Makes the mounts of a RUN ready.

    Args:
        folder: Folder beside the step's root, which is removed with it.
    Raises:
        DockerfileError: a secret or agent is required, and was not given.
    """
    with ExitStack() as held:
        furnishing = _Furnishing(step, binds, folder, held)
        leases = furnishing.lease_caches(op)
        found: list[tuple[int, Mount]] = []
        for place, mount in enumerate(op.mounts):
            made = furnishing.mount(place, mount, leases.get(place))
            if made is not None:
                found.append((place, made))
        # A mount inside another one comes after it, whatever the Dockerfile's order.
        found.sort(key=lambda pair: (PurePosixPath(pair[1].destination).parts, pair[0]))
        mounts = [made for _, made in found]
        furnished = Furnished(mounts=mounts, env=furnishing.env, secrets=furnishing.secrets)
        agents = [mount.target for mount in op.mounts if mount.kind == "ssh"]
        if agents and all(name != "SSH_AUTH_SOCK" for name, _ in op.env):
            furnished.env["SSH_AUTH_SOCK"] = agents[0]
        yield furnished


class _Furnishing:
    """The mounts of one RUN in the making; `held` lets go of them."""

    def __init__(self, step: Step, binds: Binds, folder: Path, held: ExitStack) -> None:
        self._step = step
        self._options = step.site.run_options
        self._binds = binds
        self._folder = folder
        self._held = held
        self._memory: Path | None = None
        self.env: dict[str, str] = {}
        self.secrets: list[bytes] = []

    def mount(self, place: int, mount: RunMount, lease: CacheLease | None) -> Mount | None:
        """One mount; None for a secret or an agent that is not there and need not be."""
        if mount.kind == "bind":
            return self._bind(place, self._binds.by_place[place])
        if mount.kind == "secret":
            return self._secret(place, mount)
        if mount.kind == "ssh":
            return self._agent(place, mount)
        if lease is not None:
            return _bound(mount.target, lease.data, *(("ro",) if mount.readonly else ()), "nodev")
        size = (f"size={mount.size}",) if mount.size else ()
        readonly = ("ro",) if mount.readonly else ()
        options = ("nosuid", "nodev", "mode=1777", *size, *readonly)
        return Mount(destination=mount.target, type="tmpfs", source="tmpfs", options=options)

    def _bind(self, place: int, bind: Bind) -> Mount:
        folder = self._folder / f"bind-{place}"
        folder.mkdir()
        source = self._binds.shown(bind, folder)
        readonly = ("ro",) if bind.mount.readonly else ()
        # What is mounted below a context comes along; no device of it does.
        return _bound(bind.mount.target, source, "rbind", "nodev", *readonly)

    # ---- caches ------------------------------------------------------------------------------

    def lease_caches(self, op: RunOp) -> dict[int, CacheLease]:
        """The caches, by place. All are asked for in one order, so that no two steps wait for each other.

        Those that never wait come last. A cache that one step mounts twice is held once.
        """
        shapes = {place: self._shape(m) for place, m in enumerate(op.mounts) if m.kind == "cache"}
        keys = {place: shape.key for place, shape in shapes.items()}
        leases: dict[int, CacheLease] = {}
        shared: dict[str, CacheLease] = {}
        for place, key in sorted(keys.items(), key=lambda pair: (pair[1], pair[0])):
            mount = op.mounts[place]
            if mount.sharing == "private":
                continue
            if key not in shared:
                same = [op.mounts[other] for other in keys if keys[other] == key]
                locked = any(other.sharing == "locked" for other in same)
                shared[key] = self._lease(shapes[place], mount, "locked" if locked else "shared")
            leases[place] = shared[key]
        for place, shape in shapes.items():
            if place not in leases:
                leases[place] = self._lease(shape, op.mounts[place], "private")
        return leases

    def _shape(self, mount: RunMount) -> CacheShape:
        """All that the beginning of a cache depends on: another seed or owner is another cache."""
        seed = ""
        if mount.input:
            seed = self._step.inputs[mount.input].content or self._seed(mount).digest(None)
        return CacheShape(
            id=mount.id, uid=mount.uid, gid=mount.gid, mode=mount.mode, seed=seed, source=mount.source
        )

    def _lease(self, shape: CacheShape, mount: RunMount, sharing: Sharing) -> CacheLease:
        step = self._step

        def waiting() -> None:
            text = f"{step.node.where}: waiting for the cache {mount.id}, which another step is using"
            step.site.progress(Note(level="info", text=text))

        travelling = step.site.travelling
        lease = step.site.store.cache_mounts.lease(
            shape.key,
            sharing,
            id=mount.id,
            shape=str(shape),
            work=step.site.scratch,
            fill=lambda folder: self._fill(mount, shape, folder),
            waiting=waiting,
            refill=(lambda folder: self._bring(mount, shape, folder)) if travelling else None,
        )
        if travelling:
            travelling.used(mount.id, shape.key, lease.path)
        return self._held.enter_context(lease)

    def _fill(self, mount: RunMount, shape: CacheShape, folder: Path) -> None:
        """Gives a new cache what another machine had in it, or its seed; and its owner and mode."""
        if self._bring(mount, shape, folder):
            return
        if mount.input:
            seed = self._folder_seed(mount)
            _core.copy_layer(
                [seed.selection], parents=[], upper=str(folder), dest="/", owner=None, keep_owner=True
            )
        self._finish(mount, folder)

    def _bring(self, mount: RunMount, shape: CacheShape, folder: Path) -> bool:
        """Fills a cache from another machine's, where a shared cache carries it."""
        travelling = self._step.site.travelling
        if travelling is None or not travelling.bring(mount.id, shape.key, folder):
            return False
        self._finish(mount, folder)
        return True

    def _finish(self, mount: RunMount, folder: Path) -> None:
        """Gives a cache's folder the owner and mode that the mount says, or else its seed's."""
        mode = mount.mode
        owner = (mount.uid, mount.gid)
        if mount.input:
            seed = self._folder_seed(mount)
            status = (seed.root / seed.path).stat()
            mode = status.st_mode & 0o7777 if mode is None else mode
            owner = owner if owner != (0, 0) or seed.tree else (status.st_uid, status.st_gid)
        self._own(folder, owner)
        folder.chmod(_CACHE_MODE if mode is None else mode)

    def _folder_seed(self, mount: RunMount) -> Bind:
        seed = self._seed(mount)
        if not seed.is_folder:
            raise self._fault(mount.source, f"a cache cannot begin as {mount.source}, which is a file", "")
        return seed

    def _seed(self, mount: RunMount) -> Bind:
        return self._binds.look_up(mount)

    # ---- secrets and agents --------------------------------------------------------------------

    def _secret(self, place: int, mount: RunMount) -> Mount | None:
        value = self._value(mount)
        if value is None:
            return None
        self.secrets.append(value)
        if mount.env:
            if b"\0" in value:
                raise self._fault(mount.env, f"the secret {mount.id} holds a NUL byte: no variable can", "")
            self.env[mount.env] = value.decode("utf-8", "surrogateescape")
        if not mount.target:
            return None
        path = self._in_memory() / f"secret-{place}"
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(value)
        self._give(path, mount, _SECRET_MODE)
        return _bound(mount.target, path, "ro", *_SAFE)

    def _value(self, mount: RunMount) -> bytes | None:
        """A secret's value; None where it was not given and need not be."""
        given = self._options.secret_values.get(mount.id)
        if given is not None:
            return given.encode("utf-8", "surrogateescape")
        path = self._options.secret_files.get(mount.id)
        if path is not None:
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise self._fault(
                    mount.id, f"the secret {mount.id} cannot be read: {error.strerror}", ""
                ) from error
        if not mount.required:
            return None
        known = (*self._options.secret_files, *self._options.secret_values)
        hint = did_you_mean(mount.id, known) or f"give it with --secret id={mount.id},src=FILE"
        raise self._fault(mount.id, f"the secret {mount.id} is required, and was not given", hint)

    def _agent(self, place: int, mount: RunMount) -> Mount | None:
        agent = self._options.agents.get(mount.id)
        if agent is None:
            if not mount.required:
                return None
            hint = did_you_mean(mount.id, self._options.agents) or f"give it with --ssh {mount.id}=SOCKET"
            raise self._fault("type=ssh", f"the ssh agent {mount.id} is required, and was not given", hint)
        from img.builder.perform.agents import Relay, reached  # few builds have an agent

        memory = self._in_memory()
        own = memory / f"agent-{place}"
        own.mkdir(mode=0o700)
        socket = self._held.enter_context(reached(agent, mount.id, own))
        path = memory / f"ssh-{place}"
        relay = Relay(path, socket)
        self._held.callback(relay.close)
        self._give(path, mount, _AGENT_MODE)
        return _bound(mount.target, path, *_SAFE)

    def _in_memory(self) -> Path:
        """A folder that never reaches a disk, gone with the step or this process."""
        if self._memory is None:
            memory = self._folder / "memory"
            memory.mkdir(mode=0o700)
            _core.mount_memory(str(memory))
            self._held.callback(_core.unmount, str(memory))
            self._memory = memory
        return self._memory

    def _give(self, path: Path, mount: RunMount, default: int) -> None:
        self._own(path, (mount.uid, mount.gid))
        path.chmod(default if mount.mode is None else mount.mode)

    def _own(self, path: Path, owner: tuple[int, int]) -> None:
        """Gives a file to a user. With one id only there is one user to give it to."""
        if not self._step.site.ranged:
            return
        try:
            os.chown(path, *owner)
        except OSError as error:
            message = f"a mount cannot belong to {owner[0]}:{owner[1]}: {error.strerror}"
            raise self._fault(
                "uid", message, "use ids that this user's range in /etc/subuid holds"
            ) from error

    def _fault(self, at: str, message: str, hint: str) -> ImgError:
        span = self._step.node.span
        if span is None:
            return ImgError(message, hint=hint)
        return fault(span, message, at=at if at in span.text else "--mount", hint=hint)


def _bound(target: str, source: Path, *options: str) -> Mount:
    return Mount(destination=target, type="bind", source=str(source), options=("bind", *options))
