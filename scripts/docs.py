"""Writes the generated parts of `docs/`: what the command line, the errors, the events and the client say.

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end -->`; all else on it is written by
hand and left alone. `python scripts/docs.py` brings the pages up to date, `--check` only tells whether
they are. `tests/house/test_docs.py` holds them to it.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import click
import img
from img import errors, progress
from img.cli import VERBS, main
from img.client import Client

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("cli.md", "library.md")
_PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str) -> str:
    """Gives a page with every generated part made anew.

    Raises:
        KeyError: the page asks for a part that there is none of.
    """
    return _PART.sub(lambda found: f"{found[1]}\n{part(found[2])}\n\n{found[3]}", page)


def part(name: str) -> str:
    """Makes one part, by its name.

    Raises:
        KeyError: there is no such part.
    """
    if name.startswith("verb "):
        return _verb(name.removeprefix("verb "))
    makers: dict[str, Callable[[], str]] = {
        "verbs": _verbs,
        "globals": lambda: "\n".join(_flags(main)),
        "exit codes": _exit_codes,
        "errors": _errors,
        "events": _events,
        "client": _client,
        "names": lambda: ", ".join(f"`{name}`" for name in img.__all__) + ".",
    }
    return makers[name]()


# ---- the command line ---------------------------------------------------------------------------


def command_of(verb: str) -> click.Command:
    """Imports a verb's command."""
    command = main.get_command(click.Context(main, info_name="img"), verb)
    if command is None:
        raise KeyError(verb)
    return command


def _verbs() -> str:
    return "\n".join(f"- [`img {verb}`](#img-{verb}): {line}" for verb, (_, line) in sorted(VERBS.items()))


def _verb(verb: str) -> str:
    """Synopsis, description, flags and example of a verb; of a group, its verbs, each under a heading."""
    return _command(verb, command_of(verb))


def _command(verb: str, command: click.Command) -> str:
    """The same from what its `--help` is made of."""
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=verb)
        parts = [_text(verb, command)]
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            parts += [f"### img {verb} {name}", _command(f"{verb} {name}", below)]
        return "\n\n".join(parts)
    return _text(verb, command)


def _text(verb: str, command: click.Command) -> str:
    words = [_argument(p) for p in command.params if isinstance(p, click.Argument)]
    if isinstance(command, click.Group):
        words = ["COMMAND"]
    own = {flag for parameter in main.params for flag in parameter.opts}
    flags = list(_flags(command, without=own))
    return "\n".join(
        [
            "```text",
            " ".join(["img", verb, "[OPTIONS]", *words]),
            "```",
            "",
            inspect.cleandoc(command.help or ""),
            "",
            *(flags or ["No flags of its own."]),
            "",
            "```sh",
            *_example(command),
            "```",
        ]
    )


def _argument(argument: click.Argument) -> str:
    return argument.metavar or (argument.name or "").upper()


def _flags(command: click.Command, *, without: set[str] | None = None) -> Iterator[str]:
    """One line for each flag that is shown; those of `without` are left to the page's head."""
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden or (without or set()) & set(option.opts):
            continue
        # The long form is the last: it carries the value's name.
        *short, last = [*option.opts, *option.secondary_opts]
        value = _value(option)
        shown = [*(f"`{name}`" for name in short), f"`{last}{' ' + value if value else ''}`"]
        yield f"- {', '.join(shown)}: {option.help or ''}"


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(str(choice) for choice in option.type.choices)
    return "" if option.is_flag else "VALUE"


def _example(command: click.Command) -> list[str]:
    """The lines below `Example:` in a command's help."""
    _, _, lines = (command.epilog or "").partition("Example:\n")
    return [line.removeprefix("  ") for line in lines.splitlines()]


def _exit_codes() -> str:
    """The codes as `img --help` lists them, each with the errors that end in it."""
    _, _, text = (main.epilog or "").partition("Exit codes: ")
    kinds: dict[int, list[str]] = {}
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.ImgError) and kind is not errors.ImgError:
            kinds.setdefault(kind.exit_code, []).append(f"`{name}`")
    lines = ["| code | meaning | errors |", "|---|---|---|"]
    for entry in text.rstrip(".").split(", "):
        code, _, meaning = entry.partition(" ")
        lines.append(f"| {code} | {meaning} | {', '.join(kinds.get(int(code), []))} |")
    return "\n".join(lines)


# ---- the library --------------------------------------------------------------------------------


def _errors() -> str:
    tree = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    return "\n".join(["```text", *(line.removeprefix("    ") for line in tree), "```"])


def _events() -> str:
    lines = []
    for kind in vars(progress).values():
        if isinstance(kind, type) and issubclass(kind, progress.Event) and kind is not progress.Event:
            names = ", ".join(field.name for field in fields(kind))
            lines.append(f"- `{kind.__name__}({names})`: {_first(kind)}")
    return "\n".join(lines)


def _client() -> str:
    lines = []
    for name, value in vars(Client).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            lines.append(f"- `{name}{_signature(value)}`: {_first(value)}")
    return "\n".join(lines)


def _signature(function: Callable[..., object]) -> str:
    """Names and defaults; the types stand in the docstrings and in every editor."""
    signature = inspect.signature(function)
    words: list[str] = []
    for parameter in list(signature.parameters.values())[1:]:
        star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not any(w.startswith("*") for w in words):
            words.append("*")
        default = "" if parameter.default is inspect.Parameter.empty else f"={parameter.default!r}"
        words.append(f"{star}{parameter.name}{default}")
    return f"({', '.join(words)}) -> {signature.return_annotation}"


def _first(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def run(*, check: bool) -> int:
    """Writes the pages, or only tells which are behind; gives the exit code."""
    behind = 0
    for name in PAGES:
        path = DOCS / name
        old = path.read_text(encoding="utf-8")
        new = render(old)
        if new == old:
            continue
        behind += 1
        sys.stdout.write(f"{name} {'is behind: run scripts/docs.py' if check else 'written'}\n")
        if not check:
            path.write_text(new, encoding="utf-8")
    return 1 if check and behind else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Brings the generated parts of docs/ up to date.")
    parser.add_argument(
        "--check", action="store_true", help="Change nothing; exit with 1 where one is behind."
    )
    sys.exit(run(check=parser.parse_args().check))
