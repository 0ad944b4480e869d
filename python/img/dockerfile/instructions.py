"""One frozen class per Dockerfile instruction: what it says, before variables are expanded.

`stages.py` makes them from parsed lines; `builder` reads them. They hold words as the Dockerfile
has them: expansion needs a build's variables and happens in the builder, by `expand.py`.
Source: Dockerfile reference, one section for each instruction.
"""

from __future__ import annotations

from collections.abc import Mapping

from img.dockerfile.findings import Finding
from img.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where an instruction stands.

    Attributes:
        path: The Dockerfile's name as given.
        start: First line, from 1.
        end: Last line, heredoc bodies included.
        text: Those lines as they are.
    """

    path: str
    start: int
    end: int
    text: str

    @property
    def where(self) -> str:
        """`path:line`."""
        return f"{self.path}:{self.start}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A here-document of RUN, COPY or ADD.

    Attributes:
        name: The word after `<<`.
        content: The body, tabs already stripped for `<<-`.
        expand: False where the word was quoted.
        fd: File descriptor number before `<<`; 0 where there is none.
    """

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    fd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """The root."""

    span: Span
    original: str
    """The whole instruction on one line, for history and display."""


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """FROM."""

    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One `RUN --mount`, unexpanded: its options in order, `type` always among them.

    Names are the long ones: `source`, `target`, `readonly`, `readwrite`; one without a value is `true`.
    `original` is the flag's value as written.
    """

    options: tuple[tuple[str, str], ...]
    original: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """RUN. `exec_form`: `words` are the arguments; else `words` is one string for the shell.

    `lone_heredoc`: the string is nothing but one `<<NAME`, so that the body is the script itself.
    """

    words: tuple[str, ...]
    exec_form: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    lone_heredoc: bool = False
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY, and ADD where `add` is set. `sources` and `dest` are unexpanded words.

    The words `<<NAME` are not among `sources`: their files are `heredocs`.
    """

    sources: tuple[str, ...]
    dest: str
    add: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """ARG: names with their unexpanded defaults (None where there is none)."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """ENV, both forms."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """LABEL."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """EXPOSE, unexpanded words."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """VOLUME."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """USER."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """WORKDIR."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """CMD."""

    words: tuple[str, ...]
    exec_form: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """ENTRYPOINT."""

    words: tuple[str, ...]
    exec_form: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """SHELL."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """STOPSIGNAL."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """HEALTHCHECK; durations in nanoseconds, 0 where not set; `test` as the config has it."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    """ONBUILD: the trigger's text, and the instruction that it is; None where it will fail as none."""

    trigger: str
    instruction: Instruction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """MAINTAINER."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A FROM and what follows it. `index` counts from 0; `name` is lower-case or empty."""

    index: int
    name: str
    from_: From
    instructions: tuple[Instruction, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A whole Dockerfile: the ARGs before the first FROM, and the stages in order.

    Attributes:
        check: What the check directive says; `check_span` is where.
        comments: The comments right above an instruction, by its first line.
    """

    path: str
    args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    syntax: str = ""
    check: str = ""
    check_span: Span | None = None
    comments: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[Finding, ...] = field(default=())
