"""Plans and solves a build. `build` is the whole of it: a parsed Dockerfile in, images out.

dockerfile -> plan.plan_together -> BuildGraph -> solver.Solver -> results -> assemble -> Image

What only asks about a Dockerfile is in `checking` and `outline`, which a build does not import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from img.builder.assemble import assemble
from img.builder.graph import INPUTS, BuildGraph, Goal
from img.builder.plan import (
    NamedContext,
    PlanOptions,
    context_name,
    make_plan,
    needed_bases,
    plan_together,
)
from img.builder.plan.checks import unknown_base
from img.builder.site import Fetched, Images, Remotes, Result, RunOptions, SharedLost, Site
from img.builder.solver import Solver
from img.oci import Image
from img.values import dataclass

__all__ = [
    "BuildGraph",
    "Fetched",
    "Goal",
    "Images",
    "NamedContext",
    "PlanOptions",
    "Remotes",
    "Result",
    "RunOptions",
    "SharedLost",
    "Site",
    "Solved",
    "Solver",
    "context_name",
    "make_plan",
    "needed_bases",
    "plan_together",
    "solve",
    "unknown_base",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What a build gave.

    Attributes:
        images: One for each target of the graph, in its order.
        steps: Instructions carried out or found in the cache.
        cached_steps: Those found in the cache, and those that touch the config alone.
    """

    images: tuple[Image, ...]
    results: Mapping[int, Result]
    steps: int
    cached_steps: int


def solve(
    graph: BuildGraph,
    site: Site,
    *,
    memo: Any = None,
    jobs: int,
    fresh: Mapping[int, str],
    fail_fast: bool = False,
    created: str | None,
) -> Solved:
    """Carries a plan out.

    Args:
        memo: Digests of context files from earlier builds (`_core.DigestMemo`), or None.
        jobs: Steps at work at once, at the most.
        fresh: Nodes that run even where the cache has a record of them, and why (`fresh.fresh_nodes`).
        fail_fast: A step that fails ends those that run beside it; else they run to their end.
        created: Time to write into the images in place of the steps' own.
    Raises:
        BuildError: a step's process failed.
        DockerfileError: a step cannot be done as the Dockerfile has it.
        SharedLost: a shared cache gave up; to be called again.
    """
    solver = Solver(graph, site, memo=memo, jobs=jobs, fresh=fresh, fail_fast=fail_fast)
    results = solver.solve()
    done = [n.number for n in graph.nodes if n.number in results and not isinstance(n.op, INPUTS)]
    return Solved(
        images=tuple(assemble(graph, target, results, created=created) for target in graph.targets),
        results=results,
        steps=len(done),
        cached_steps=sum(1 for number in done if results[number].cached),
    )
