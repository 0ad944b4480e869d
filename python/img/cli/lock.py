"""`img lock`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from img.cli import clicks as click
from img.cli.build_inputs import secrets_and_agents
from img.cli.common import build_args_option, find_globals, pairs, print_json, verb, words
from img.cli.reaching import build_registry_options
from img.cli.render import renderer
from img.cli.transfer import progress

if TYPE_CHECKING:
    from img.engine import LockMode, LockResult
    from img.engine.requests import LockEntry

_WRITTEN = {"current": "kept", "missing": "added", "moved": "renewed", "stale": "dropped"}
"""How an entry is said to stand once the file was written; as it is called where it was compared."""

_ALL = "*"


@verb(
    "lock",
    short="Pin what a Dockerfile names to digests, in img.lock.",
    example="img lock .\nimg lock --update .\nimg lock --update=alpine:3.20 .\nimg lock --check .",
)
@click.argument("path", metavar="[PATH]", default=".")
@click.option(
    "-f",
    "-file",
    "--file",
    "dockerfile",
    default="",
    metavar="FILE",
    help="Name of the Dockerfile. Default: PATH/Dockerfile.",
)
@click.option(
    "-update",
    "--update",
    "update",
    multiple=True,
    is_flag=False,
    flag_value=_ALL,
    metavar="[=NAME[,…]]",
    help="Pin again to what names mean now: all of them, or those that are given.",
)
@click.option("-check", "--check", is_flag=True, help="Change nothing; exit with 1 where the file differs.")
@click.option(
    "--lock-file", default="", metavar="FILE", help="The lock file. Default: img.lock beside the Dockerfile."
)
@build_args_option
@click.option(
    "-target",
    "--target",
    "targets",
    multiple=True,
    metavar="STAGE",
    help="Look at what this stage needs; may be repeated. Default: every stage.",
)
@click.option(
    "-platform",
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[,…]",
    help="Platform that is built for; may be repeated.",
)
@click.option(
    "-build-context",
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME=VALUE",
    help="Named context of the build; docker-image://NAME is pinned too.",
)
@click.option(
    "-secret",
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=ID[,src=FILE|,env=NAME]",
    help="A token that a git repository or a URL asks for.",
)
@click.option(
    "-ssh",
    "--ssh",
    "agents",
    multiple=True,
    metavar="default|ID[=SOCKET|KEY[,KEY]]",
    help="An ssh agent for git: its socket, or keys.",
)
@click.option("--offline", is_flag=True, help="Open no socket: pin to what the store has.")
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON.")
@build_registry_options
@progress
def lock_command(**flags: Any) -> None:
    """Pin every image, repository and URL that the Dockerfile in PATH names to what it means now. Builds
    take what is pinned in img.lock; img build --locked refuses what is not.
    """
    from img.engine import BuildRequest, Engine

    mode, names = _mode(flags)
    request = BuildRequest(
        context=flags["path"],
        dockerfile=flags["dockerfile"],
        cwd=os.getcwd(),
        build_args=pairs(flags["build_args"], "--build-arg", bare=True),
        targets=flags["targets"],
        platforms=words(flags["platforms"]),
        contexts=pairs(flags["contexts"], "--build-context", bare=False),
        lock_file=flags["lock_file"],
        offline=flags["offline"],
        **secrets_and_agents(flags),
    )
    options = find_globals()
    settings = options.settings()
    with renderer(flags["progress"], debug=options.debug) as show, Engine(settings, show) as engine:
        result = engine.lock(request, mode=mode, names=names)
    _report(result, mode, as_json=flags["as_json"])
    if mode == "check" and result.drifted:
        raise click.exceptions.Exit(1)


def _mode(flags: dict[str, Any]) -> tuple[LockMode, tuple[str, ...]]:
    """What is to be done, and for which names.

    Raises:
        click.UsageError: it is both to be changed and not to be changed; or there is no Dockerfile to lock.
    """
    if "-" in (flags["path"], flags["dockerfile"]):
        raise click.UsageError("img lock reads no standard input: name a folder and a file.")
    if flags["check"] and flags["update"]:
        raise click.UsageError("--check changes nothing, and --update does: give one of them.")
    if flags["check"]:
        return "check", ()
    if not flags["update"]:
        return "add", ()
    names = words(flags["update"])
    return "update", () if _ALL in names else names


def _report(result: LockResult, mode: LockMode, *, as_json: bool) -> None:
    if as_json:
        from img.values import asdict

        print_json(asdict(result))
        return
    for entry in result.entries:
        if entry.state != "current":
            click.echo(_line(entry, mode))
    count = len(result.entries)
    pinned = f"{count} entr{'y' if count == 1 else 'ies'}"
    if result.written:
        click.echo(f"{result.path}: written, {pinned}")
    elif result.drifted:
        hint = "img lock --update renews it"
        click.echo(f"{result.path}: differs from what its Dockerfile names; {hint}")
    else:
        click.echo(f"{result.path}: up to date, {pinned}")


def _line(entry: LockEntry, mode: LockMode) -> str:
    word = entry.state if mode == "check" else _WRITTEN[entry.state]
    arrow = f"{entry.was} -> {entry.pin}" if entry.state == "moved" else entry.pin or entry.was
    return f"{word:<8} {entry.name} {arrow}"
