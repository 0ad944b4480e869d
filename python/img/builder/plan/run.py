"""`plan_run`: from a parsed RUN to its `RunOp`, variables in place.

`plan.Planner` calls it. Source: Dockerfile reference, "RUN", "Here-documents".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from img.builder.graph import InlineFile, RunOp
from img.builder.plan.mounts import plan_mounts
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
    _refuse_devices(run)
    script = _own_script(run)
    if script is not None:
        args: tuple[str, ...] = (f"{PIPES}/{script.name}",)
    elif run.exec_form:
        args = run.words
    else:
        args = (*(state.config.shell or ("/bin/sh", "-c")), _script(run))
    mounts, inputs = plan_mounts(planner, stage, state, run)
    op = RunOp(
        args=args,
        env=state.scope.run_env(),
        hidden_env=state.scope.proxies(),
        cwd=state.config.working_dir,
        user=state.config.user,
        network=_network(planner, run),
        security=_security(planner, run),
        mounts=mounts,
        platform=state.platform,
        script=script,
        hostname=planner.hostname,
    )
    shown = state.scope.run_args()
    prefix = f"|{len(shown)} {' '.join(f'{k}={v}' for k, v in shown.items())} " if shown else ""
    return op, (state.node, *inputs), f"RUN {prefix}{' '.join(args)}"


def _network(planner: Planner, run: ins.Run) -> str:
    """The network of a RUN: its own word, else the caller's."""
    network = run.network or planner.options.network
    allowed = "network.host" in planner.options.allow or planner.options.network == "host"
    if network == "host" and not allowed:
        raise fault(
            run.span,
            "RUN --network=host is not allowed",
            at="--network",
            hint="allow it for this build with --allow network.host, as for docker",
        )
    return network


def _security(planner: Planner, run: ins.Run) -> str:
    """What holds the process back. Nothing of the Dockerfile alone can lift it."""
    if run.security == "insecure" and "security.insecure" not in planner.options.allow:
        raise fault(
            run.span,
            "RUN --security=insecure is not allowed",
            at="--security",
            hint="allow it for this build with --allow security.insecure",
        )
    return run.security or "sandbox"


def _refuse_devices(run: ins.Run) -> None:
    """Docker's stable syntax knows no `--device` either; its experimental one asks a daemon's list."""
    if run.devices:
        raise fault(
            run.span,
            "RUN --device is not supported: a step gets no devices of this machine",
            at="--device",
            hint="docker's stable syntax refuses it as well",
        )


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
