"""`in_order`: stages, each after those that it needs; and that they make no circle.

`plan` asks; nothing is resolved here.
Source: Dockerfile reference, "FROM", "COPY --from", "ONBUILD".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from img.dockerfile import instructions as ins
from img.dockerfile.faults import fault
from img.errors import DockerfileError
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One name in a FROM, a `--from` or a mount's `from`, variables in place.

    Attributes:
        at: The instruction that names it.
        stage: The stage that it means, or None where it is an image or a named context.
        written: The name as the Dockerfile has it.
    """

    at: ins.Instruction
    name: str
    written: str
    stage: ins.Stage | None = None


def in_order(wanted: Iterable[ins.Stage], uses: Callable[[ins.Stage], Iterable[Use]]) -> list[ins.Stage]:
    """Gives stages and all that they need, each after those that it needs itself.

    Raises:
        DockerfileError: stages need each other; with every instruction that has a part in it.
    """
    order: dict[int, ins.Stage] = {}
    for first in wanted:
        walk = [] if first.index in order else [(first, iter(uses(first)))]
        depth = {first.index: 0}
        path: list[Use] = []  # the use at n leads from the stage at n of the walk to the next one
        while walk:
            stage, rest = walk[-1]
            use = next((use for use in rest if use.stage and use.stage.index not in order), None)
            if use is None or use.stage is None:
                order[stage.index] = stage
                walk.pop()
                del path[-1:]
                continue
            path.append(use)
            start = depth.get(use.stage.index)
            if start is not None:
                raise circle([stage for stage, _ in walk[start:]], path[start:])
            depth[use.stage.index] = len(walk)
            walk.append((use.stage, iter(uses(use.stage))))
    return list(order.values())


def circle(stages: Sequence[ins.Stage], uses: Sequence[Use]) -> DockerfileError:
    """The error for stages that need each other.

    Args:
        stages: The stages of the circle, each needing the next and the last the first.
        uses: The instructions that make it so.
    """
    start = min(range(len(stages)), key=lambda n: stages[n].index)
    stages, uses = [*stages[start:], *stages[:start]], [*uses[start:], *uses[:start]]
    names = [stage.name or str(stage.index) for stage in stages]
    first = uses[0]
    if len(names) == 1:
        message = f"the stage {names[0]} takes from itself"
    else:
        message = f"the stages need each other: {' -> '.join([*names, names[0]])}"
    hint = "move what both need into a stage of its own"
    return fault(first.at.span, message, at=first.written, hint=hint, also=[use.at.span for use in uses[1:]])
