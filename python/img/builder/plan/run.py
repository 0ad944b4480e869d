"""`plan_run`: from a parsed RUN to its `RunOp`, variables in place.

`plan.Planner` calls it. Source: Dockerfile reference, "RUN", "Here-documents".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from img.builder.graph import InlineFile, RunMount, RunOp
from img.dockerfile import instructions as ins
from img.dockerfile.faults import fault

if TYPE_CHECKING:
    from img.builder.plan import Planner, StageState

PIPES = "/dev/pipes"
"""Where a RUN finds its here-document. Source: Dockerfile reference, "Here-documents"."""


def plan_run(
    planner: Planner, stage: ins.Stage, state: StageState, run: ins.Run
) -> tuple[RunOp, tuple[int, ...], str]:
    """Plans a RUN.

    Returns:
        The op, the nodes that it stands on, and its line of history.
    Raises:
        DockerfileError: a mount names what is not there, or asks for what was not allowed.
    """
    _only_known(run)
    script = _own_script(run)
    if script is not None:
        args: tuple[str, ...] = (f"{PIPES}/{script.name}",)
    elif run.exec_form:
        args = run.words
    else:
        args = (*(state.config.words("Shell") or ("/bin/sh", "-c")), _script(run))
    mounts, inputs = _mounts(planner, stage, state, run)
    op = RunOp(
        args=args,
        env=state.scope.run_env(),
        hidden_env=state.scope.proxies(),
        cwd=state.config.working_dir,
        user=state.config.user,
        network=run.network or "default",
        mounts=mounts,
        platform=state.platform,
        script=script,
        hostname=planner.hostname,
    )
    shown = state.scope.run_args()
    prefix = f"|{len(shown)} {' '.join(f'{k}={v}' for k, v in shown.items())} " if shown else ""
    return op, (state.node, *inputs), f"RUN {prefix}{' '.join(args)}"


def _mounts(
    planner: Planner, stage: ins.Stage, state: StageState, run: ins.Run
) -> tuple[tuple[RunMount, ...], tuple[int, ...]]:
    """The mounts, and the nodes that their `from` names."""
    return (), ()


def _only_known(run: ins.Run) -> None:
    """Refuses what this version parses but does not carry out; nothing is ignored silently."""
    refused = ""
    if run.mounts:
        refused = "--mount"
    elif run.security not in ("", "sandbox"):
        refused = f"--security={run.security}"
    elif run.devices:
        refused = "--device"
    if refused:
        raise fault(run.span, f"RUN {refused} is not supported yet", at=refused.partition("=")[0])


def _own_script(run: ins.Run) -> InlineFile | None:
    """A lone here-document that names its interpreter, and so needs no shell."""
    if not run.lone_heredoc or not run.heredocs[0].content.startswith("#!"):
        return None
    return InlineFile(name=run.heredocs[0].name, content=run.heredocs[0].content)


def _script(run: ins.Run) -> str:
    """The shell's script. Source: Dockerfile reference, "Here-documents"."""
    text = run.words[0]
    if run.lone_heredoc:
        return run.heredocs[0].content
    for heredoc in run.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return text
