"""`GoCommand` and `GoGroup`: click, with the flags of both worlds.

`-build-arg K=V`, `-t=x`, `--no-cache=false` and `-d=true` mean what they mean to Go's flag package
and to docker; a word that is no flag is named whole in the error, with the near one. Verbs are
imported only when they are called.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from img import regex
from img.cli import clicks as click

_VALUED = frozenset({"-s", "-state", "--state", "-b", "-backend", "--backend"})
"""The global flags that take a value."""
_HOST = regex.compile(
    r"(?:localhost|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9][\w-]*(?:\.[\w-]+)+)(?::\d{1,5})?"
    r"|[A-Za-z0-9][\w-]*:\d{1,5}|(?:[0-9.]+|[0-9a-fA-F:]+)/\d{1,3}"
)
"""What is a registry and no name of an image: a dot or a port, and no repository. Or a network."""
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class _Helped(click.Command):
    """A command with a help option of its own: click's own is translated, which takes longer than parsing."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option that shows the help."""
        names = self.get_help_option_names(ctx)
        return click.LineOption(
            names, is_flag=True, is_eager=True, expose_value=False, callback=_show_help,
            help="Show this message and exit.",
        )  # fmt: skip


def _show_help(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class GoCommand(_Helped):
    """A command whose flags may be written Go's way."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrites the words into click's form, then parses them."""
        return super().parse_args(ctx, list(self._rewrite(ctx, args)))

    def _rewrite(self, ctx: click.Context, args: Sequence[str]) -> Iterator[str]:
        options = {
            name: parameter
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        words = iter(args)
        while (word := next(words, None)) is not None:
            if word == "--":
                yield word
                yield from words
                return
            name, equals, value = word.partition("=")
            option = options.get(name)
            name = _long(option, name)
            if option is None:
                self._refuse_unknown(ctx, name, options)
                yield word
            elif option.is_flag or option.count:
                yield from _flag(option, name, equals, value)
            elif equals:
                yield from (name, value)
            elif isinstance(option.flag_value, str):
                # `--pull .`: the word after it is its value only where it can be one.
                following, further = next(words, None), next(words, None)
                words = chain((word for word in (further,) if word is not None), words)
                given = following is not None and _can_be_value(option, following, last=further is None)
                yield from (name, following if given and following else str(option.flag_value))
                words = words if given or following is None else chain((following,), words)
            else:
                yield name
                following = next(words, None)
                if following is not None:
                    yield following

    def _refuse_unknown(self, ctx: click.Context, name: str, options: dict[str, click.Option]) -> None:
        """Names a whole unknown word; clusters and glued values (`-dq`, `-tname`) pass."""
        if not name.startswith("-") or name == "-":
            return
        glued = options.get(name[:2])
        if not name.startswith("--") and glued is not None and len(name) > 2:
            takes_value = not (glued.is_flag or glued.count)
            letters = [options.get(f"-{letter}") for letter in name[1:]]
            cluster = all(o is not None and (o.is_flag or o.count) for o in letters)
            like = close_matches(name, options, n=1, cutoff=0.75)
            if cluster or (takes_value and not like):
                return
        wanted = name.lstrip("-")
        like = close_matches(wanted, [o.lstrip("-") for o in options], n=1, cutoff=0.6)
        hint = f" Did you mean --{like[0]}?" if like else ""
        raise click.UsageError(f"No such flag: {name}.{hint}", ctx=ctx)


def _long(option: click.Option | None, name: str) -> str:
    """The name with two dashes: click takes one with one dash for letters, and looks for what it may mean."""
    names = option.opts if option is not None else ()
    return next((long for long in names if long.startswith("--")), name)


def _can_be_value(option: click.Option, word: str, *, last: bool) -> bool:
    if isinstance(option, click.HostOption):
        return not last and _HOST.fullmatch(word) is not None
    return isinstance(option.type, click.Choice) and word in option.type.choices


def truth(word: str) -> bool | None:
    """What a word means to Go's flag package; None where it is no truth value."""
    return True if word in _TRUE else False if word in _FALSE else None


def _flag(option: click.Option, name: str, equals: str, value: str) -> Iterator[str]:
    """A flag without a value, or Go's `=true` and `=false`."""
    said = truth(value) if equals else True
    if said is None:
        raise click.UsageError(f"{name} takes true or false, not {value!r}.")
    if said:
        yield name
    elif option.secondary_opts and name in option.opts:
        yield option.secondary_opts[0]  # of a flag that is on unless it is taken back


class GoGroup(_Helped, click.Group):
    """The verbs, imported when they are called; a mistyped one suggests the near one."""

    def __init__(self, *args: Any, verbs: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        """Takes `verbs`: name -> (module below `img.cli`, line of help)."""
        super().__init__(*args, **kwargs)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in alphabetical order."""
        return sorted(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a verb."""
        if cmd_name not in self.verbs:
            return None
        module = importlib.import_module(f"img.cli.{self.verbs[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_") + "_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            like = close_matches(args[0], self.verbs, n=1, cutoff=0.5)
            path = ctx.command_path
            hint = f"\nDid you mean '{path} {like[0]}'?" if like else ""
            raise click.UsageError(
                f"'{args[0]}' is not an {path} command.{hint}\nSee '{path} --help'.", ctx=ctx
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads Go's forms of the global flags, up to the verb."""
        rewritten: list[str] = []
        options = {
            name: parameter
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in parameter.opts
        }
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if word == "help":
                rewritten.extend((*words, "--help"))
            elif not word.startswith("-"):
                rewritten.extend((word, *words))
            elif (option := options.get(name)) is not None and option.is_flag:
                rewritten.extend(_flag(option, _long(option, name), equals, value))
            elif equals and not name.startswith("--"):
                rewritten.extend((_long(option, name), value))
            else:
                rewritten.append(word if equals else _long(option, name))
                if name in _VALUED and not equals:
                    rewritten.extend(word for word in [next(words, None)] if word is not None)
        return super().parse_args(ctx, rewritten)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs without importing any."""
        if not self.verbs:
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.verbs[name][1]) for name in self.list_commands(ctx)])


def close_matches(word: str, choices: Iterable[str], *, n: int, cutoff: float) -> list[str]:
    """As `difflib.get_close_matches`; only a mistake pays for that import."""
    from difflib import get_close_matches

    return get_close_matches(word, list(choices), n=n, cutoff=cutoff)
