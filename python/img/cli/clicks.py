"""`click` as this command line uses it: the whole of it, made to start quickly.

    from img.cli import clicks as click

Of what click imports, the parts that a command needs only to explain itself come with their first use. A
fifth of the time of `img ls` went there. Every file of `img.cli` imports click from here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from threading import RLock
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def _defer(name: str) -> None:
    """Has a module of the standard library loaded when something is first taken out of it.

    `importlib.util.LazyLoader` does the same, but loads with the next `import` of that name already.
    """
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    module, loader, lock = importlib.util.module_from_spec(spec), spec.loader, RLock()

    def load(attribute: str) -> Any:
        with lock:
            if module.__dict__.get("__getattr__") is load:
                loader.exec_module(module)
                module.__dict__.pop("__getattr__", None)
        return getattr(module, attribute)

    module.__dict__["__getattr__"] = load
    sys.modules[name] = module


_defer("inspect")  # click cleans the help texts with it

import click as _click  # noqa: E402
from click import *  # noqa: E402, F403
from click import exceptions as exceptions  # noqa: E402


class LineOption(_click.Option):
    """An option whose help is one line, from which nothing has to be cleaned."""

    def __init__(self, *args: Any, help: str | None = None, **attributes: Any) -> None:
        """As `click.Option`."""
        super().__init__(*args, **attributes)
        self.help = help


class HostOption(LineOption):
    """One that may stand before a name without a value, or take a registry: `--flag localhost:5000 NAME`."""


def option(*names: str, **attributes: Any) -> Callable[[_F], _F]:  # type: ignore[no-redef]
    """As `click.option`; the help is one line."""
    return _click.option(*names, **{"cls": LineOption, **attributes})
