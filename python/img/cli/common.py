"""What every verb shares: the global flags, the settings made of them, and tables."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from img.amounts import human_size as human_size
from img.amounts import human_time as human_time
from img.cli import clicks as click
from img.cli.go import GoCommand, GoGroup
from img.values import dataclass, field

if TYPE_CHECKING:
    from img.engine import Backend, Settings
    from img.progress import Event

F = TypeVar("F", bound=Callable[..., Any])


BACKENDS: dict[str, Backend] = {"auto": "auto", "overlayfs": "overlay", "native": "native"}
"""What `--backend` takes."""

_CACHE_PREFIXES = ("AWS_", "ACTIONS_", "AZURE_STORAGE_", "BUILDKIT_AZURE_STORAGE_")
_CACHE_NAMES = frozenset({"GITHUB_API_URL", "GITHUB_BASE_REF", "GITHUB_REF", "GITHUB_REPOSITORY"})

BACKEND_HELP = "How steps get their files: overlayfs mounts, native copies, or auto (the default)."


@dataclass(slots=True)
class Globals:
    """The global flags, which may stand before or after the verb."""

    state: str = ""
    debug: bool = False
    single_id: bool = False
    backend: str = ""
    insecure: tuple[str, ...] = field(default=())
    ca_file: str = ""
    cert_dir: str = ""
    mirrors: tuple[str, ...] = field(default=())
    registries_conf: str = ""
    authfile: str = ""
    creds: tuple[str, ...] = ()

    def settings(self, *, jobs: int = 0, insecure: Sequence[str] = ()) -> Settings:
        """Makes the engine's settings out of flags and environment. Only the CLI reads the latter."""
        from img.cli import network
        from img.engine import Settings

        return Settings(
            state=self.state or default_state(),
            credentials=self._credentials(),
            **credential_files(self.authfile),
            insecure=(*self.insecure, *insecure),
            proxies=network.proxies(),
            no_proxy=network.no_proxy(),
            ca_file=self.ca_file or os.environ.get("SSL_CERT_FILE", ""),
            cert_dirs=network.cert_dirs(),
            cert_dir=self.cert_dir,
            mirrors=self.mirrors,
            registries_conf=network.registries_conf(self.registries_conf),
            jobs=jobs,
            single_id=self.single_id,
            backend=BACKENDS[self.backend or "auto"],
            variables=_for_caches(),
        )

    def _credentials(self) -> Mapping[str, Sequence[str]]:
        """Credentials for this command alone; most have none."""
        if not self.creds and not any(os.environ.get(f"IMG_REGISTRY_{n}") for n in ("USERNAME", "PASSWORD")):
            return {}
        from img.cli.credentials import given

        return given(self.creds)


def default_state() -> str:
    """The store's root: $IMG_STATE, else $XDG_DATA_HOME/img, else ~/.local/share/img."""
    if state := os.environ.get("IMG_STATE"):
        return state
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(data, "img")


def _for_caches() -> dict[str, str]:
    """What shared caches look for in the environment; no other variable leaves the command line."""
    return {
        name: value
        for name, value in os.environ.items()
        if value and (name.startswith(_CACHE_PREFIXES) or name in _CACHE_NAMES)
    }


def credential_files(authfile: str = "") -> dict[str, Any]:
    """Where credentials are looked for, as fields of the settings.

    A file that is named, by flag or REGISTRY_AUTH_FILE, stands for all others. Else it is DOCKER_AUTH_CONFIG,
    podman's two files, and docker's. Source: containers-auth.json(5); docker's "Environment variables".
    """
    if named := authfile or os.environ.get("REGISTRY_AUTH_FILE"):
        return {"auth_files": (os.path.abspath(named),)}
    home = os.path.expanduser("~")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    configs = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    docker = os.environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
    return {
        "auth_config": os.environ.get("DOCKER_AUTH_CONFIG", ""),
        "auth_files": (
            os.path.join(runtime, "containers", "auth.json")
            if runtime
            else f"/run/containers/{os.getuid()}/auth.json",
            os.path.join(configs, "containers", "auth.json"),
        ),
        "docker_config": os.path.join(docker, "config.json"),
    }


def kept_globally(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that stores a flag given after the verb in `Globals`."""

    def store(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value:
            setattr(ctx.ensure_object(Globals), name, value)
        return value

    return store


def verb(name: str, *, short: str, example: str, usage: str = "[OPTIONS]") -> Callable[[F], click.Command]:
    """Makes a function a verb: Go's flags, the global flags, and help with an example."""

    def wrap(function: F) -> click.Command:
        epilog = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.strip().splitlines())
        command = click.command(
            name,
            cls=GoCommand,
            short_help=short,
            epilog=epilog,
            options_metavar="[OPTIONS]",
            context_settings={"help_option_names": ["-h", "--help", "-help"]},
        )(function)
        command.params.extend(_global_options())
        return command

    return wrap


def group(
    name: str,
    *,
    verbs: dict[str, tuple[str, str]],
    short: str,
    example: str,
    kind: type[GoGroup] = GoGroup,
) -> GoGroup:
    """Makes a group of verbs: `img NAME VERB`. Alone it lists them; each is imported when it is called.

    Args:
        verbs: name -> (module below `img.cli`, line of help), as in `img.cli.VERBS`.
        kind: Its class, for a group that also takes words which are no verbs.
    """
    return kind(
        name,
        verbs=verbs,
        callback=_list_verbs,
        invoke_without_command=True,
        subcommand_metavar="COMMAND",
        help=short,
        short_help=short,
        epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in example.strip().splitlines()),
        params=_global_options(),
        context_settings={"help_option_names": ["-h", "--help", "-help"]},
    )


def _list_verbs() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _global_options() -> list[click.Parameter]:
    shared: dict[str, Any] = {"expose_value": False, "is_eager": True}
    return [
        click.LineOption(
            ["-d", "-debug", "--debug"], is_flag=True, help="Show debug logging.",
            callback=kept_globally("debug"), **shared,
        ),
        click.LineOption(
            ["-s", "-state", "--state"], metavar="DIR", help="Folder of the store.",
            callback=kept_globally("state"), **shared,
        ),
        click.LineOption(
            ["-b", "-backend", "--backend"], type=click.Choice(list(BACKENDS)), help=BACKEND_HELP,
            callback=kept_globally("backend"), **shared,
        ),
        click.LineOption(
            ["--single-id"], is_flag=True, hidden=True, callback=kept_globally("single_id"), **shared
        ),
    ]  # fmt: skip


def find_globals() -> Globals:
    """The global flags of the running command."""
    return click.get_current_context().ensure_object(Globals)


# ---- output ------------------------------------------------------------------------------------


def show_warnings(event: Event) -> None:
    """The progress of a verb that shows none: warnings go to standard error, the rest nowhere."""
    from img.progress import Note

    if isinstance(event, Note) and event.level == "warning":
        click.echo(f"warning: {event.text}", err=True)


def one_line(text: str, width: int | None) -> str:
    """A text in one line, cut where it is longer than `width` characters."""
    flat = " ".join(text.split())
    return flat if width is None or len(flat) <= width else flat[: width - 1] + "…"


def ago(moment: float) -> str:
    """How long ago a time (seconds since the epoch) was."""
    seconds = max(0, int(time.time() - moment))
    for unit, length in (("year", 31536000), ("month", 2592000), ("week", 604800), ("day", 86400),
                         ("hour", 3600), ("minute", 60)):  # fmt: skip
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} seconds ago" if seconds != 1 else "1 second ago"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints columns, each as wide as its widest cell."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
        click.echo("   ".join([*cells, line[-1]]).rstrip())


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def print_rows(rows: Sequence[Mapping[str, object]], template: str) -> bool:
    """Prints rows by `--format`: `json`, or a template such as `{id}`; False where none was given."""
    if not template:
        return False
    if template == "json":
        print_json([dict(row) for row in rows])
        return True
    for row in rows:
        try:
            click.echo(template.replace("\\t", "\t").format(**row))
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            fields = ", ".join(sorted(row))
            raise click.UsageError(f"--format: {error} is no field; the fields are {fields}") from error
    return True


def format_option(function: F) -> F:
    """Adds `--format` and its short form `--json`."""
    function = click.option("--json", "template", flag_value="json", help="Print JSON.")(function)
    return click.option(
        "--format", "-format", "template", default="", metavar="TEMPLATE",
        help="Print each row by a template such as '{id} {size}', or 'json'.",
    )(function)  # fmt: skip


build_args_option = click.option(
    "-build-arg", "--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]",
    help="Set a build-time variable.",
)  # fmt: skip


def words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Words of a flag that may be repeated, or hold several with commas between them."""
    return tuple(word for value in values for word in value.split(",") if word)


def spool_stdin(folder: str | Path, told: Callable[[int], None] | None = None) -> str:
    """Copies standard input to a file below `folder`; gives its path.

    Args:
        told: Called after each MiB with how many bytes were copied.
    Raises:
        click.UsageError: it is a terminal.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal: pipe an archive or a Dockerfile in.")
    path, done = os.path.join(folder, "stdin"), 0
    with open(path, "wb") as file:
        while piece := sys.stdin.buffer.read(1 << 20):
            file.write(piece)
            done += len(piece)
            if told is not None:
                told(done)
    return path


def stdin_bytes() -> int:
    """How many bytes standard input has; 0 where nobody knows, as of a pipe."""
    import stat

    if sys.stdin is None:
        return 0
    status = os.fstat(sys.stdin.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def pairs(values: Sequence[str], flag: str, *, bare: bool) -> dict[str, str]:
    """Reads `NAME=VALUE` words; `bare` takes a word without `=` from the environment, as docker does."""
    found: dict[str, str] = {}
    for word in values:
        name, equals, value = word.partition("=")
        if not name or (not equals and not bare):
            raise click.UsageError(f"{flag} takes NAME=VALUE, not {word!r}.")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found
