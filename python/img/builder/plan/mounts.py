"""`plan_mounts`: from the `--mount` flags of a RUN to its `RunMount`s, variables in place.

`plan.run` calls it. Source: Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from img.builder.graph import MountKind, RunMount, Sharing
from img.dockerfile import instructions as ins
from img.dockerfile.faults import fault
from img.dockerfile.mounts import MountValues, settle

if TYPE_CHECKING:
    from img.builder.plan import Planner, StageState

NAMESPACE_ARG = "BUILDKIT_CACHE_MOUNT_NS"
"""Build argument that keeps the caches of one caller apart from those of others."""

_KINDS: dict[str, MountKind] = {
    "bind": "bind", "cache": "cache", "tmpfs": "tmpfs", "secret": "secret", "ssh": "ssh",
}  # fmt: skip
_SHARINGS: dict[str, Sharing] = {"shared": "shared", "private": "private", "locked": "locked"}


def plan_mounts(
    planner: Planner, stage: ins.Stage, state: StageState, run: ins.Run
) -> tuple[tuple[RunMount, ...], tuple[int, ...]]:
    """Plans the mounts of a RUN.

    Returns:
        The mounts in the Dockerfile's order, and the nodes that their `from` names.
    Raises:
        DockerfileError: a value is none once its variables are known, or names what is not there.
    """
    mounts: list[RunMount] = []
    inputs: list[int] = []
    for mount in run.mounts:
        values = _settled(planner, state, run, mount)
        number = 0
        if values.from_ and values.kind in ("bind", "cache"):
            node = planner.source_node(stage, run, values.from_)
            if node not in inputs:
                inputs.append(node)
            number = inputs.index(node) + 1
        agents = sum(1 for planned in mounts if planned.kind == "ssh")
        mounts.append(_planned(planner, state, run, values, number, agents))
    return tuple(mounts), tuple(inputs)


def _settled(planner: Planner, state: StageState, run: ins.Run, mount: ins.Mount) -> MountValues:
    """Puts the variables in; says what has no effect."""
    variables = state.scope.variables

    def expand(name: str, value: str) -> str:
        # What `from` names is looked up as a whole, variables and all.
        return value if name == "from" else planner.expand(run, value, variables)

    values = settle(run.span, mount, expand)
    for name in values.idle:
        planner.warn(run.span, f"{name} has no effect on a {values.kind} mount")
    return values


def _planned(
    planner: Planner, state: StageState, run: ins.Run, values: MountValues, number: int, agents: int
) -> RunMount:
    if values.kind == "cache" and values.source and not number:
        raise fault(run.span, "a cache mount has a source and no from", at="source", hint="add from=STAGE")
    id_, target = values.id or values.source, values.target
    if values.kind == "secret":
        id_ = id_ or posixpath.basename(target.rstrip("/"))
        if not id_:
            hint = "write id=NAME; a variable in it may have no value here"
            raise fault(run.span, "a secret mount is of no secret: its id is empty", at="id", hint=hint)
        if not target and not values.env:
            target = f"/run/secrets/{posixpath.basename(id_)}"
    elif values.kind == "ssh":
        id_, target = values.id or "default", target or f"/run/buildkit/ssh_agent.{agents}"
    elif values.kind == "cache":
        # As BuildKit has it: by the target as written, wherever the working folder is.
        id_ = values.id or posixpath.normpath(target or ".")
        if namespace := planner.options.build_args.get(NAMESPACE_ARG):
            id_ = f"{namespace}/{id_}"
    else:
        id_ = ""
    source = posixpath.normpath(f"/{values.source}")
    return RunMount(
        kind=_KINDS[values.kind],
        target=_target(planner, state, run, values, target) if target or values.kind != "secret" else "",
        input=number,
        source="/" + source.lstrip("/") if values.kind in ("bind", "cache") else "/",
        readonly=values.readonly and values.kind in ("bind", "cache", "tmpfs"),
        id=id_,
        sharing=_SHARINGS[values.sharing],
        required=values.required,
        size=values.size,
        mode=values.mode,
        uid=values.uid or 0,
        gid=values.gid or 0,
        env=values.env,
    )


def _target(planner: Planner, state: StageState, run: ins.Run, values: MountValues, target: str) -> str:
    """Where a mount goes: from the working folder, and never over the root itself."""
    path = planner.absolute(state, target)
    if path == "/":
        at = "target" if values.target else "--mount"
        hint = "write target=/PATH; one without a target goes onto the working folder"
        raise fault(run.span, f"a {values.kind} mount cannot be on /", at=at, hint=hint)
    return path
