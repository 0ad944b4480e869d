"""Flags of every verb that speaks to registries: how they are reached, and as whom.

They are kept with the global flags, so that `find_globals().settings()` knows them and no verb hands them on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from img.cli import clicks as click
from img.cli.common import Globals, kept_globally, words
from img.cli.go import truth

F = TypeVar("F", bound=Callable[..., Any])

EVERY = "*"
"""What `--insecure-registry` means without a value."""


def _keep_insecure(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    """Notes registries as insecure: those that are named, or all where the flag has no value, or `true`."""
    kept = ctx.ensure_object(Globals)
    for value in words(values):
        said = truth(value)
        kept.insecure += (EVERY,) if said else (value,) if said is None else ()


def _keep_verify(ctx: click.Context, parameter: click.Parameter, value: str) -> None:
    said = truth(value)
    if said is None:
        raise click.UsageError(f"--tls-verify takes true or false, not {value!r}.", ctx=ctx)
    if not said:
        ctx.ensure_object(Globals).insecure += (EVERY,)


def _keep_all_insecure(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Globals).insecure += (EVERY,)


def _keep_mirrors(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    """Notes mirrors: `HOST=MIRROR`, or docker's and kaniko's `MIRROR` alone, which is one of Docker Hub."""
    pairs = (value if "=" in value else f"docker.io={value}" for value in words(values))
    ctx.ensure_object(Globals).mirrors += tuple(pairs)


def _insecure(**form: Any) -> Callable[[F], F]:
    return click.option(
        "--insecure-registry", "-insecure-registry", multiple=True, expose_value=False,
        callback=_keep_insecure, **form,
    )  # fmt: skip


_OF_NAMES = _insecure(
    is_flag=False, flag_value=EVERY, cls=click.HostOption, metavar="[HOST[:PORT]]",
    help="Do not verify the registry's certificate, and take plain HTTP where it has no TLS.",
)  # fmt: skip
_OF_BUILDS = _insecure(
    metavar="HOST[:PORT]",
    help="Do not verify this registry's certificate, and take plain HTTP where it has no TLS.",
)


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


registries_conf_option = click.option(
    "--registries-conf", "-registries-conf", metavar="FILE", expose_value=False,
    callback=kept_globally("registries_conf"),
    help="Read mirrors, rewrites and credential helpers from this file alone.",
)  # fmt: skip
_HOW = (
    click.option(
        "--tls-ca", "-tls-ca", metavar="FILE", expose_value=False, callback=kept_globally("ca_file"),
        help="Trust the certificate authorities in this PEM file as well.",
    ),
    click.option(
        "--tls-verify", "-tls-verify", is_flag=False, flag_value="true", default="true", metavar="[=false]",
        expose_value=False, callback=_keep_verify, show_default=False,
        help="Verify the certificates of registries (default); false is --insecure-registry for all.",
    ),
    click.option(
        "--insecure", "-insecure", is_flag=True, expose_value=False, callback=_keep_all_insecure,
        help="The same as --tls-verify=false, as docker manifest and crane write it.",
    ),
    click.option(
        "--cert-dir", "-cert-dir", metavar="DIR", expose_value=False, callback=kept_globally("cert_dir"),
        help="Take authorities (*.crt) and a client's certificate (*.cert, *.key) from this folder.",
    ),
    click.option(
        "--registry-mirror", "-registry-mirror", multiple=True, metavar="[HOST=]MIRROR", expose_value=False,
        callback=_keep_mirrors, help="Ask this mirror before the registry HOST (docker.io).",
    ),
    registries_conf_option,
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
    return _added(function, _HOW, _OF_NAMES)


def registry_options(function: F) -> F:
    """Adds all of them to a verb whose words are names of images."""
    return _added(function, (*_HOW, *_AS_WHOM), _OF_NAMES)


def build_registry_options(function: F) -> F:
    """Adds them to a verb whose word is a folder: here `--insecure-registry` always takes its registry."""
    return _added(function, (*_HOW, *_AS_WHOM), _OF_BUILDS)


def _added(function: F, options: Sequence[Callable[[F], F]], insecure: Callable[[F], F]) -> F:
    for option in reversed(options):
        function = option(function)
    return insecure(function)
