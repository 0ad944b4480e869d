"""`Flags`: the `--name[=value]` words of one instruction, checked against what it knows.

`grammar` names the flags of each instruction and reads their values from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from img.dockerfile.faults import fault
from img.dockerfile.near import did_you_mean
from img.dockerfile.source import Line
from img.dockerfile.words import split_flags
from img.errors import DockerfileError
from img.values import dataclass


class Kind(Enum):
    """What a flag takes."""

    TEXT = "a value"
    MANY = "a value, and may be repeated"
    SWITCH = "true or false"


Known = Mapping[str, Kind]
"""The flags of an instruction, by name without dashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags that an instruction was given.

    Attributes:
        values: By name, in the order of writing. A switch's value is `true` or `false`.
        rest: The instruction's text after them.
    """

    values: Mapping[str, tuple[str, ...]]
    rest: str

    def text(self, name: str) -> str:
        """A flag's value, empty where it was not given."""
        return self.values.get(name, ("",))[0]

    def many(self, name: str) -> tuple[str, ...]:
        """Every value of a flag that may be repeated."""
        return self.values.get(name, ())

    def switch(self, name: str) -> bool | None:
        """A switch's state, None where it was not given."""
        value = self.values.get(name)
        return None if value is None else value[0] == "true"


def read_flags(line: Line, known: Known) -> Flags:
    """Takes an instruction's flags off its text.

    Raises:
        DockerfileError: a flag is unknown, is given twice, or lacks or mistakes its value.
    """
    words, rest = split_flags(line.value)
    values: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, value = word[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise _unknown(line, name, known)
        if name in values and kind is not Kind.MANY:
            raise fault(
                line.span, f"{line.keyword} has --{name} twice", at=f"--{name}", hint="keep one of them"
            )
        if kind is Kind.SWITCH:
            value = _switch(line, name, value if equals else "true")
        elif not equals:
            raise fault(line.span, f"--{name} needs a value", at=f"--{name}", hint=f"write --{name}=VALUE")
        values[name] = (*values.get(name, ()), value)
    return Flags(values=values, rest=rest)


def _switch(line: Line, name: str, value: str) -> str:
    state = value.lower()
    if state not in ("true", "false"):
        message = f"--{name} is true or false, not {value!r}"
        raise fault(line.span, message, at=f"--{name}", hint=f"write --{name} or --{name}=false")
    return state


def _unknown(line: Line, name: str, known: Known) -> DockerfileError:
    flags = [f"--{flag}" for flag in known]
    hint = did_you_mean(f"--{name}", flags)
    if not hint:
        hint = f"it knows {', '.join(flags)}" if flags else f"{line.keyword} takes no flags"
    return fault(line.span, f"{line.keyword} knows no flag --{name}", at=f"--{name}", hint=hint)
