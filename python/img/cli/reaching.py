"""Flags of every verb that speaks to registries: how they are reached, and as whom.

They are kept with the global flags, so that `find_globals().settings()` knows them and no verb hands them on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from img.cli import clicks as click
from img.cli.common import Globals, kept_globally

F = TypeVar("F", bound=Callable[..., Any])


def _read_creds(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from img.cli.credentials import read_line

        kept = ctx.ensure_object(Globals)
        kept.creds = (*kept.creds, read_line())


def _keep_authfile(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        if not os.path.exists(value):
            raise click.UsageError(f"--authfile: there is no file {value}.")
        ctx.ensure_object(Globals).authfile = value


def _keep_creds(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    kept = ctx.ensure_object(Globals)
    kept.creds = (*kept.creds, *value)


_HOW = (
    click.option(
        "--tls-ca", "-tls-ca", metavar="FILE", expose_value=False, callback=kept_globally("ca_file"),
        help="Trust the certificate authorities in this PEM file as well.",
    ),
)  # fmt: skip
_AS_WHOM = (
    click.option(
        "--authfile", "-authfile", metavar="FILE", expose_value=False, callback=_keep_authfile,
        help="Take credentials from this file, and from no other.",
    ),
    click.option(
        "--creds", "-creds", multiple=True, metavar="[REGISTRY=]USER[:PASSWORD]", expose_value=False,
        callback=_keep_creds,
        help="Credentials for the registry that is named. Others see a password on a command line.",
    ),
    click.option(
        "--creds-stdin", "-creds-stdin", is_flag=True, expose_value=False, callback=_read_creds,
        help="Read them, USER:PASSWORD, from the first line of standard input.",
    ),
)  # fmt: skip


def reaching_options(function: F) -> F:
    """Adds those that say how registries are reached, for a verb that has its own about credentials."""
    for option in reversed(_HOW):
        function = option(function)
    return function


def registry_options(function: F) -> F:
    """Adds all of them to a verb."""
    for option in reversed(_AS_WHOM):
        function = option(function)
    return reaching_options(function)
