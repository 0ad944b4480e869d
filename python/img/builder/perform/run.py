"""RUN, carried out: its cache keys, and its container. Source: Dockerfile reference, "RUN"."""

from __future__ import annotations

import codecs
import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from io import RawIOBase
from pathlib import Path

from img import _core
from img.builder.graph import RunMount, RunOp
from img.builder.key import CacheKey
from img.builder.perform.binds import Binds
from img.builder.perform.mounts import furnish
from img.builder.perform.step import Made, Step
from img.builder.perform.veil import Veil
from img.builder.users import identity
from img.dockerfile.faults import fault, printable
from img.errors import BuildError
from img.executor import HOSTNAME, Mount, RunSpec
from img.progress import StepOutput

TAIL_LINES = 20
"""Lines of a failed step's output that its error carries."""


def quick_run_key(step: Step, op: RunOp) -> CacheKey | None:
    """The key that needs nothing read: bind mounts named by what they stand in.

    None where that is not enough, since a context is known by its files alone.
    """
    sources = []
    for mount in op.mounts:
        if mount.kind == "bind":
            content = step.inputs[mount.input].content if mount.input else ""
            if not content:
                return None
            sources.append([content, mount.source])
    return run_key(step, op, sources=sources)


def run_key(step: Step, op: RunOp, **bound: object) -> CacheKey:
    """The key of a RUN: all that its process can see, proxies, secrets, agents and caches aside.

    Args:
        bound: What the bind mounts show: `sources` names it by stack and path, `content` by content.
    """
    return CacheKey.make(
        "run",
        below=step.inputs[0].content,
        args=list(op.args),
        script=op.script.content if op.script else "",
        env=[list(pair) for pair in op.env],
        cwd=op.cwd,
        user=op.user,
        network="" if op.network == "default" else op.network,
        security="" if op.security == "sandbox" else op.security,
        mounts=[_mount_facts(mount) for mount in op.mounts],
        secrets=_secrets(step, op),
        hosts=sorted({name for name, _ in step.site.run_options.hosts}),
        platform=str(op.platform),
        hostname=op.hostname,
        epoch=step.site.epoch,
        **bound,
    )


def _mount_facts(mount: RunMount) -> dict[str, object]:
    """What of a mount counts. What a cache is called does not, nor what is in it."""
    facts: dict[str, object] = {"type": mount.kind, "target": mount.target}
    if mount.kind in ("secret", "ssh"):
        facts["id"] = mount.id
    for name in ("readonly", "required", "size", "uid", "gid", "env"):
        if value := getattr(mount, name):
            facts[name] = value
    if mount.mode is not None:
        facts["mode"] = mount.mode
    return facts


def _secrets(step: Step, op: RunOp) -> list[list[str]]:
    """The secrets whose value counts, since the caller wants it (`cache=hash`): by a keyed digest each."""
    digests = step.site.run_options.secret_digests
    used = {mount.id for mount in op.mounts if mount.kind == "secret"}
    return [[id_, digests[id_]] for id_ in sorted(used & digests.keys())]


def run(step: Step, op: RunOp, binds: Binds) -> Made:
    """Runs the container.

    Args:
        binds: What its bind mounts show.
    Raises:
        BuildError: its process did not end with 0.
        DockerfileError: a secret or agent that it requires was not given, or the build is offline and it
            asks for the network by name.
    """
    site = step.site
    if site.run_options.offline and op.network == "host" and step.node.span is not None:
        message = "this step asks for the network of the host, and --offline gives it none"
        raise fault(step.node.span, message, at="--network=host", hint="build it once without --offline")
    who = identity(op.user, step.read)
    snapshot = site.snapshots.writable(step.below)
    try:
        with furnish(step, op, binds, snapshot.scratch) as furnished:
            env = {**dict(op.hidden_env), "HOME": who.home, **dict(op.env), **furnished.env}
            spec = RunSpec(
                root=str(snapshot.root),
                args=op.args,
                env=tuple(env.items()),
                cwd=op.cwd,
                uid=who.uid,
                gid=who.gid,
                additional_gids=who.groups,
                mounts=(*furnished.mounts, *_script_mount(op, snapshot.scratch)),
                network="none" if site.run_options.offline or op.network == "none" else "host",
                hostname=op.hostname or HOSTNAME,
                security="insecure" if op.security == "insecure" else "sandbox",
                hosts=site.run_options.hosts,
                shm_bytes=site.run_options.shm_bytes,
                rlimits=site.run_options.rlimits,
            )
            code, tail = _run_logged(step, spec, Veil(furnished.secrets))
        if code:
            raise _failed(step, op, code, tuple(tail))
        snapshot.detach()
        assert snapshot.upper is not None
        packed = _core.pack_layer(str(snapshot.upper), clamp_mtime=site.epoch)
        return Made(packed=packed, upper=snapshot.upper, discard=snapshot.close)
    except BaseException:
        snapshot.close()
        raise


def _failed(step: Step, op: RunOp, code: int, tail: tuple[str, ...]) -> BuildError:
    """The error for a process that did not end with 0, with its instruction's lines."""
    node = step.node
    line, excerpt = (node.span.start, printable(node.span.text)) if node.span else (0, "")
    error = BuildError(node.shown, code, tail, node.where, line, excerpt)
    if step.site.run_options.offline and op.network != "none":
        error.hint = "--offline gives RUN no network"
    return error


def _script_mount(op: RunOp, folder: Path) -> tuple[Mount, ...]:
    """Writes a RUN's own script down and says where the container finds it: on its `/dev`, in no layer."""
    if op.script is None:
        return ()
    path = folder / "script"
    path.write_bytes(op.script.content.encode("utf-8", "surrogateescape"))
    path.chmod(0o755)
    return (Mount(destination=op.args[0], type="bind", source=str(path), options=("bind", "ro")),)


def _run_logged(step: Step, spec: RunSpec, veil: Veil) -> tuple[int, deque[str]]:
    """Runs a container, whose output is passed on as it comes; gives its exit code and its last lines.

    One thread does both, the output first: its pipe ends with the container, or earlier.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with open(reading, "rb", buffering=0) as output, ExitStack() as held:
        try:
            container = held.enter_context(step.site.executor.start(spec, output=writing))
        finally:
            os.close(writing)
        _pass_on(step, output, veil, tail)
        return container.wait(), tail


def _pass_on(step: Step, output: RawIOBase, veil: Veil, tail: deque[str]) -> None:
    """Reads a container's output to its end: bytes for the log, text for people; keeps the last lines."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    logs = step.site.logs
    for piece in _pieces(output, veil):
        if logs is not None:
            logs.write(step.node.number, piece)
        text = decode(piece)
        step.site.progress(StepOutput(step=step.node.number, text=text))
        *lines, rest = (rest + text).split("\n")
        rest = rest[-4096:]
        tail.extend(line[-4096:] for line in lines)
    if rest:
        tail.append(rest)


def _pieces(output: RawIOBase, veil: Veil) -> Iterator[bytes]:
    """What comes through a pipe, as it comes, without what nobody may see."""
    while piece := output.read(1 << 16):
        if shown := veil(piece):
            yield shown
    if held := veil.rest():
        yield held
