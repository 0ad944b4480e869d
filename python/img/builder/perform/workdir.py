"""WORKDIR, carried out: its cache key, and the folder. Source: Dockerfile reference, "WORKDIR"."""

from __future__ import annotations

from img import _core
from img.builder.graph import WorkdirOp
from img.builder.key import CacheKey
from img.builder.perform.step import Made, Step
from img.builder.users import identity


def workdir_key(step: Step, op: WorkdirOp) -> CacheKey:
    """The key of a WORKDIR."""
    return CacheKey.make(
        "workdir", below=step.inputs[0].content, path=op.path, user=op.user, epoch=step.site.epoch
    )


def workdir(step: Step, op: WorkdirOp) -> Made:
    """Makes the folder where it is missing."""
    folder = step.site.scratch / f"workdir-{step.node.number}"
    upper = folder / "upper"
    upper.mkdir(parents=True)
    try:
        who = identity(op.user, step.read) if op.user else None
        packed = _core.make_directory(
            parents=[str(path) for path in step.below],
            upper=str(upper),
            dest=op.path,
            owner=(who.uid, who.gid) if who else (0, 0),
        )
    except BaseException:
        _core.remove_tree(str(folder))
        raise
    return Made(packed=packed, upper=upper, discard=lambda: _core.remove_tree(str(folder)))
