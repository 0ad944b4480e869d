"""Plans and solves a build. `build` is the whole of it: a parsed Dockerfile in, an image out.

dockerfile -> plan.make_plan -> BuildGraph -> solver.Solver -> results -> assemble -> Image

What only asks about a Dockerfile is in `checking` and `outline`, which a build does not import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from img.builder.assemble import assemble
from img.builder.graph import INPUTS, BuildGraph
from img.builder.plan import NamedContext, PlanOptions, context_name, make_plan, needed_bases
from img.builder.plan.checks import unknown_base
from img.builder.site import Fetched, Images, Remotes, Result, RunOptions, Site
from img.builder.solver import Solver
from img.oci import Image
from img.values import dataclass

__all__ = [
    "BuildGraph",
    "Fetched",
    "Images",
    "NamedContext",
    "PlanOptions",
    "Remotes",
    "Result",
    "RunOptions",
    "Site",
    "Solved",
    "Solver",
    "context_name",
    "make_plan",
    "needed_bases",
    "solve",
    "unknown_base",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What a build gave.

    Attributes:
        steps: Instructions carried out or found in the cache.
        cached_steps: Those found in the cache, and those that touch the config alone.
    """

    image: Image
    results: Mapping[int, Result]
    steps: int
    cached_steps: int


def solve(
    graph: BuildGraph, site: Site, *, memo: Any = None, jobs: int, use_cache: bool, created: str | None
) -> Solved:
    """Carries a plan out.

    Args:
        memo: Digests of context files from earlier builds (`_core.DigestMemo`), or None.
        jobs: Steps at work at once, at the most.
        created: Time to write into the image in place of the steps' own.
    Raises:
        BuildError: a step's process failed.
        DockerfileError: a step cannot be done as the Dockerfile has it.
    """
    results = Solver(graph, site, memo=memo, jobs=jobs, use_cache=use_cache).solve()
    done = [n.number for n in graph.nodes if n.number in results and not isinstance(n.op, INPUTS)]
    return Solved(
        image=assemble(graph, results, created=created),
        results=results,
        steps=len(done),
        cached_steps=sum(1 for number in done if results[number].cached),
    )
