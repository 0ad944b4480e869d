"""`check_plan`: a plan that is made for what its checks find, as far as it can be made.

The engine calls it for `--check`, and has the bases that can be had. Nothing of the plan is built.
"""

from __future__ import annotations

from dataclasses import dataclass

from img.builder.graph import Node
from img.builder.plan import Planner, PlanOptions, Resolve, say_unused
from img.dockerfile import Dockerfile, Finding
from img.dockerfile.checks import CheckOptions
from img.errors import DockerfileError


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPlan:
    """A plan that was made for what its checks find.

    Attributes:
        options: Which checks are wanted, for those that look at more than the plan.
        nodes: What was planned; of every stage, where no target was asked for.
        warnings: Remarks for people.
        error: Why planning went no further, or None.
    """

    findings: tuple[Finding, ...]
    options: CheckOptions
    nodes: tuple[Node, ...]
    warnings: tuple[str, ...] = ()
    error: DockerfileError | None = None


def check_plan(dockerfile: Dockerfile, options: PlanOptions, resolve: Resolve) -> CheckedPlan:
    """Plans a build for its checks alone; without a target, every stage.

    Args:
        resolve: As for `make_plan`; `unknown_base` stands for an image that cannot be had.
    Raises:
        DockerfileError: the check directive cannot be read, or there is no such target.
        UsageError: the build argument in its place cannot be read.
    """
    planner = Planner(dockerfile, options, resolve)
    planner.checks.habits()
    error = None
    try:
        planner.plan()
        say_unused([planner])
        for stage in () if options.target else dockerfile.stages:
            planner.stage(stage)
    except DockerfileError as found:
        error = found
    return CheckedPlan(
        findings=planner.checks.findings(),
        options=planner.checks.options,
        nodes=tuple(planner.nodes.all),
        warnings=tuple(planner.warnings),
        error=error,
    )
