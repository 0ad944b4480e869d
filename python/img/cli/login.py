"""`img login` and `img logout`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from img.cli import clicks as click
from img.cli.common import find_globals, kept_globally, print_json, show_warnings, verb
from img.cli.reaching import reaching_options, registries_conf_option

if TYPE_CHECKING:
    from img.engine import LoginResult
    from img.engine.logins import Logins

_LONGEST_PASSWORD = 64 << 10

authfile_option = click.option(
    "--authfile", "-authfile", metavar="FILE", expose_value=False, callback=kept_globally("authfile"),
    help="File that keeps credentials. Default: $REGISTRY_AUTH_FILE, else docker's config.json.",
)  # fmt: skip


@verb(
    "login",
    short="Log in to a registry.",
    example='img login registry.example.org\necho "$TOKEN" | img login -u ci --password-stdin ghcr.io/me',
)
@click.argument("server", default="", metavar="[REGISTRY[:PORT][/NAMESPACE]]")
@click.option("-u", "-username", "--username", default="", metavar="USER", help="User name.")
@click.option(
    "-p", "-password", "--password", default="", metavar="PASSWORD",
    help="Password. Others see it on a command line: --password-stdin is safer.",
)  # fmt: skip
@click.option(
    "-password-stdin", "--password-stdin", is_flag=True, help="Read the password from standard input."
)
@click.option("--get-login", is_flag=True, help="Print the user name that is logged in, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@authfile_option
@reaching_options
def login_command(
    server: str, username: str, password: str, password_stdin: bool, get_login: bool, as_json: bool
) -> int:  # fmt: skip
    """Log in to a registry, docker.io by default. The credentials are shown to it first, and kept where it
    takes them: by a credential helper that registries.conf or the file names, else in the file. Without a
    user and a password, those that are kept are tried; then they are asked for on the terminal.
    """
    from img.engine import Engine

    if password and password_stdin:
        raise click.UsageError("--password and --password-stdin are two passwords.")
    if password_stdin and not username:
        raise click.UsageError("--password-stdin needs --username.")
    if password and not username:
        raise click.UsageError("--password needs --username.")
    if password:
        click.echo("warning: others see a password on a command line: --password-stdin is safer", err=True)
    if password_stdin:
        password = _read_password()
    with Engine(find_globals().settings(), show_warnings) as engine:
        logins = engine.logins()
        if get_login:
            return _show_user(logins, server, as_json=as_json)
        result = None if username else _verified(logins, server)
        if result is None:
            username, password = _ask(logins, server, username, password)
            result = logins.login(server, username, password)
    if as_json:
        from img.values import asdict

        print_json(asdict(result))
    else:
        click.echo("Login succeeded.")
    return 0


@verb("logout", short="Log out of a registry.", example="img logout registry.example.org\nimg logout --all")
@click.argument("server", default="", metavar="[REGISTRY[:PORT][/NAMESPACE]]")
@click.option("-a", "-all", "--all", "everything", is_flag=True, help="Log out of every registry.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@authfile_option
@registries_conf_option
def logout_command(server: str, everything: bool, as_json: bool) -> None:
    """Log out of a registry, docker.io by default: what is kept for it is removed, from the file and from the
    credential helpers that it and registries.conf name.
    """
    from img.engine import Engine
    from img.values import asdict

    if server and everything:
        raise click.UsageError("--all is every registry: name none.")
    with Engine(find_globals().settings(), show_warnings) as engine:
        logins = engine.logins()
        results = logins.logout_all() if everything else [logins.logout(server)]
    if as_json:
        print_json([asdict(result) for result in results])
        return
    for result in results:
        if result.removed:
            click.echo(f"Removing login credentials for {result.server}")
        else:
            click.echo(f"Not logged in to {result.server}")
    if not results:
        click.echo("Not logged in to any registry")
    if any(result.removed for result in results):
        click.echo("Logout succeeded.")


def _show_user(logins: Logins, server: str, *, as_json: bool) -> int:
    """Prints whose login is known; gives the exit code."""
    found = logins.find(server)
    if as_json:
        from img.values import asdict

        print_json(asdict(found) if found else None)
    elif found:
        click.echo(found.username or "<token>")
    else:
        click.echo(f"img: not logged in to {server or 'docker.io'}", err=True)
    return 0 if found else 1


def _verified(logins: Logins, server: str) -> LoginResult | None:
    """Tries what is known already."""
    known = logins.find(server)
    if known is None:
        return None
    whose = f" of {known.username}" if known.username else ""
    click.echo(f"Trying the credentials{whose} in {known.source}", err=True)
    return logins.verify(server)


def _read_password() -> str:
    """All of standard input but its line end."""
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("--password-stdin: standard input is a terminal.")
    raw = sys.stdin.buffer.read(_LONGEST_PASSWORD + 1)
    password = raw.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    if not password or len(raw) > _LONGEST_PASSWORD:
        raise click.UsageError("--password-stdin: standard input is empty, or no password.")
    return password


def _ask(logins: Logins, server: str, username: str, password: str) -> tuple[str, str]:
    """Asks on the terminal for what is missing."""
    from img.cli.terminal import ask, ask_password

    if username and password:
        return username, password
    if not username:
        known = logins.find(server)
        usual = known.username if known else ""
        answer = ask(f"Username ({usual}): " if usual else "Username: ")
        if answer is None:
            raise click.UsageError(
                "there is no terminal to ask on: give --username, and the password with --password-stdin."
            )
        username = answer.strip() or usual
        if not username:
            raise click.UsageError("a user name is needed.")
    secret = ask_password("Password: ")
    if secret is None:
        raise click.UsageError("there is no terminal to ask on: give the password with --password-stdin.")
    if not secret:
        raise click.UsageError("a password is needed.")
    return username, secret
