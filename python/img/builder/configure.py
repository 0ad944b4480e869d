"""`configure`: what an instruction does to the image config alone. Pure, but for the draft that it changes.

Called by `plan` for every instruction that touches no file and no variable.
Source: Dockerfile reference, one section for each instruction; OCI image-spec v1.1, config.md.
"""

from __future__ import annotations

from collections.abc import Callable

from img.builder.draft import ConfigDraft
from img.dockerfile import instructions as ins
from img.dockerfile.faults import fault
from img.dockerfile.near import did_you_mean
from img.dockerfile.ports import PROTOCOLS, exposed_ports
from img.dockerfile.signals import NAMES, is_signal
from img.errors import DockerfileError

Expand = Callable[[str], str]


def configure(
    config: ConfigDraft, instruction: ins.Instruction, expand: Expand, *, command_set: bool
) -> None:
    """Carries out an instruction on the config. After an error it is of no use any more.

    Args:
        expand: Expands one word with the stage's variables.
        command_set: This stage has had a CMD of its own, which ENTRYPOINT then leaves alone.
    """
    handler = _HANDLERS[type(instruction)]
    if isinstance(instruction, ins.Entrypoint) and not command_set:
        config.set(Cmd=None)
    handler(config, instruction, expand)


def pairs_of(instruction: ins.Env | ins.Label, expand: Expand) -> dict[str, str]:
    """What an ENV or a LABEL sets: all of it expanded with the variables as they were before."""
    values = {}
    for name, value in instruction.pairs:
        expanded = expand(name)
        if not expanded and isinstance(instruction, ins.Env):  # docker takes a label without a name
            hint = "give the variable in it a value"
            raise fault(instruction.span, f"the name {name!r} is empty once expanded", at=name, hint=hint)
        values[expanded] = expand(value)
    return values


def _label(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Label)
    config.add("Labels", pairs_of(instruction, expand))


def _expose(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Expose)
    # A variable may hold several ports: it is parted where `expand` alone would leave one word.
    ports: dict[str, None] = {}
    for word in instruction.ports:
        for port in expand(word).split():
            try:
                ports.update(dict.fromkeys(exposed_ports(port)))
            except ValueError as error:
                raise _no_port(instruction, word, port, str(error)) from error
    config.add("ExposedPorts", ports)


def _no_port(instruction: ins.Expose, word: str, port: str, reason: str) -> DockerfileError:
    protocol = port.rpartition("/")[2]
    hint = did_you_mean(protocol, PROTOCOLS) if "/" in port and "protocol" in reason else ""
    hint = hint or "write 80, 80/udp or 8000-8010/tcp; ports end at 65535"
    return fault(instruction.span, f"{port!r} is no port: {reason}", at=word, hint=hint)


def _volume(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Volume)
    volumes: dict[str, None] = {}
    for word in instruction.paths:
        path = expand(word).strip()
        if not path:
            raise fault(instruction.span, "VOLUME names an empty path", at=word)
        volumes[path] = None
    config.add("Volumes", volumes)


def _user(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.User)
    config.set(User=expand(instruction.user))


def _cmd(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Cmd)
    config.set(Cmd=_words(config, instruction) or None)


def _entrypoint(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Entrypoint)
    config.set(Entrypoint=_words(config, instruction) or None)


def _words(config: ConfigDraft, instruction: ins.Cmd | ins.Entrypoint) -> list[str]:
    """Exec form as it is; shell form behind the stage's shell."""
    if instruction.exec_form:
        return list(instruction.words)
    return [*(config.shell or ("/bin/sh", "-c")), *instruction.words]


def _shell(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Shell)
    config.set(Shell=list(instruction.words))


def _stop_signal(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.StopSignal)
    signal = expand(instruction.signal)
    if not is_signal(signal):
        name = "SIG" + signal.upper().removeprefix("SIG")
        hint = did_you_mean(name, NAMES) if signal and not signal.isdecimal() else ""
        hint = hint or "a number from 1, or a name: SIGTERM, HUP, RTMIN+3"
        raise fault(instruction.span, f"there is no signal {signal!r}", at=instruction.signal, hint=hint)
    config.set(StopSignal=signal)


def _healthcheck(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Healthcheck)
    check: dict[str, object] = {"Test": list(instruction.test)}
    for field, value in (
        ("Interval", instruction.interval),
        ("Timeout", instruction.timeout),
        ("StartPeriod", instruction.start_period),
        ("StartInterval", instruction.start_interval),
        ("Retries", instruction.retries),
    ):
        if value:
            check[field] = value
    config.set(Healthcheck=check)


def _onbuild(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Onbuild)
    config.add_trigger(instruction.trigger)


def _maintainer(config: ConfigDraft, instruction: ins.Instruction, expand: Expand) -> None:
    assert isinstance(instruction, ins.Maintainer)
    config.set_author(instruction.name)


_HANDLERS: dict[type[ins.Instruction], Callable[[ConfigDraft, ins.Instruction, Expand], None]] = {
    ins.Label: _label,
    ins.Expose: _expose,
    ins.Volume: _volume,
    ins.User: _user,
    ins.Cmd: _cmd,
    ins.Entrypoint: _entrypoint,
    ins.Shell: _shell,
    ins.StopSignal: _stop_signal,
    ins.Healthcheck: _healthcheck,
    ins.Onbuild: _onbuild,
    ins.Maintainer: _maintainer,
}
