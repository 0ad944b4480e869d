"""`configure`: what an instruction does to the image config alone. Pure.

Called by `plan` for every instruction that touches no file.
Source: Dockerfile reference, one section for each instruction; OCI image-spec v1.1, config.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from img.builder.ports import port_numbers
from img.dockerfile import instructions as ins
from img.dockerfile.faults import fault
from img.oci import ImageConfig

Expand = Callable[[str], str]


def configure(
    config: ImageConfig, instruction: ins.Instruction, expand: Expand, *, command_set: bool
) -> ImageConfig:
    """Gives the config after an instruction.

    Args:
        expand: Expands one word with the stage's variables.
        command_set: This stage has had a CMD of its own, which ENTRYPOINT then leaves alone.
    """
    handler = _HANDLERS[type(instruction)]
    if isinstance(instruction, ins.Entrypoint) and not command_set:
        config = config.with_run(Cmd=None)
    return handler(config, instruction, expand)


def _env(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Env)
    # All values are expanded with the environment as it was before the instruction.
    values = {expand(name): expand(value) for name, value in instruction.pairs}
    env = {**config.env, **values}
    return config.with_run(Env=[f"{name}={value}" for name, value in env.items()])


def _label(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Label)
    values = {expand(name): expand(value) for name, value in instruction.pairs}
    return config.with_run(Labels={**config.labels, **values})


def _expose(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Expose)
    ports = dict(config.run.get("ExposedPorts") or {})
    for word in instruction.ports:
        for port in expand(word).split():
            for number in _port_numbers(instruction, word, port):
                ports[number] = {}
    return config.with_run(ExposedPorts={name: {} for name in sorted(ports)})


def _port_numbers(instruction: ins.Expose, word: str, port: str) -> list[str]:
    try:
        return port_numbers(port)
    except ValueError as error:
        hint = "write 80, 80/udp or 8000-8010/tcp; ports end at 65535"
        raise fault(instruction.span, str(error), at=word, hint=hint) from error


def _volume(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Volume)
    volumes = dict(config.run.get("Volumes") or {})
    for word in instruction.paths:
        path = expand(word).strip()
        if not path:
            raise fault(instruction.span, "VOLUME names an empty path", at=word)
        volumes[path] = {}
    return config.with_run(Volumes={name: {} for name in sorted(volumes)})


def _user(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.User)
    return config.with_run(User=expand(instruction.user))


def _cmd(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Cmd)
    return config.with_run(Cmd=_words(config, instruction))


def _entrypoint(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Entrypoint)
    return config.with_run(Entrypoint=_words(config, instruction))


def _words(config: ImageConfig, instruction: ins.Cmd | ins.Entrypoint) -> list[str]:
    """Exec form as it is; shell form behind the stage's shell."""
    if instruction.exec_form:
        return list(instruction.words)
    return [*(config.words("Shell") or ("/bin/sh", "-c")), *instruction.words]


def _shell(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Shell)
    return config.with_run(Shell=list(instruction.words))


def _stop_signal(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.StopSignal)
    return config.with_run(StopSignal=expand(instruction.signal))


def _healthcheck(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
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
    return config.with_run(Healthcheck=check)


def _onbuild(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Onbuild)
    return config.with_run(OnBuild=[*(config.words("OnBuild") or ()), instruction.trigger])


def _maintainer(config: ImageConfig, instruction: ins.Instruction, expand: Expand) -> ImageConfig:
    assert isinstance(instruction, ins.Maintainer)
    return replace(config, author=instruction.name)


_HANDLERS: dict[type[ins.Instruction], Callable[[ImageConfig, ins.Instruction, Expand], ImageConfig]] = {
    ins.Env: _env,
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
