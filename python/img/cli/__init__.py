"""The command line: the only place that prints, reads the environment, finds files, or exits.

Each verb is one function in a file for its family, with its help and an example; it turns flags into one
checked request and hands it to the engine, in this process.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from img.cli import clicks as click
from img.cli.common import BACKEND_HELP, BACKENDS, Globals
from img.cli.go import GoGroup
from img.interrupts import Interrupts

VERBS = {
    "artifact": ("artifact", "Keep files in a registry that are no image."),
    "build": ("build", "Build an image from a Dockerfile."),
    "cache": ("cache", "Look into the build cache."),
    "copy": ("copying", "Copy an image between registries, archives, layouts and the store."),
    "delete": ("remote_names", "Delete images from a registry."),
    "du": ("disk", "Show what the store holds on disk, in real bytes."),
    "history": ("history", "Show the builds of this store, or how an image came about."),
    "images": ("images", "List images."),
    "inspect": ("images", "Show an image's config."),
    "load": ("archives", "Load images from an archive."),
    "login": ("login", "Log in to a registry."),
    "logout": ("login", "Log out of a registry."),
    "logs": ("logs", "Show what the steps of a build wrote."),
    "lock": ("lock", "Pin what a Dockerfile names to digests, in img.lock."),
    "ls": ("disk", "List image layers and snapshots."),
    "manifest": ("manifest", "Put images of several platforms under one name."),
    "prune": ("disk", "Free what nothing needs any more."),
    "pull": ("transfer", "Pull an image from a registry."),
    "push": ("transfer", "Push an image to a registry."),
    "referrers": ("referrers", "List what a registry has about an image."),
    "rm": ("images", "Remove images."),
    "save": ("archives", "Save images to an archive."),
    "store": ("store", "Look after the store."),
    "tag": ("images", "Give an image one more name."),
    "tags": ("remote_names", "List the tags of a repository in a registry."),
    "unpack": ("archives", "Write an image's root filesystem into a folder."),
    "version": ("versions", "Show the version information."),
}


@click.group(
    cls=GoGroup,
    verbs=VERBS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help", "-help"]},
    epilog="\b\nExample:\n  img build -t me/app .\n\nExit codes: 0 done, 1 the build failed, 2 usage or "
    "Dockerfile, 3 registry or network, 4 this machine cannot run it, 5 store, 130 interrupted.",
)
@click.option("-d", "-debug", "--debug", is_flag=True, help="Show debug logging.")
@click.option("-s", "-state", "--state", metavar="DIR", default="", help="Folder of the store.")
@click.option(
    "-b",
    "-backend",
    "--backend",
    type=click.Choice(list(BACKENDS)),
    default="auto",
    help=BACKEND_HELP,
)
@click.option("--single-id", is_flag=True, hidden=True)
@click.pass_context
def main(ctx: click.Context, debug: bool, state: str, backend: str, single_id: bool) -> None:
    """Builds container images from Dockerfiles, without a daemon and without root."""
    ctx.obj = Globals(state=state, debug=debug, single_id=single_id, backend=backend)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: Sequence[str]) -> int:
    """Runs one command; gives its exit code. Errors become text here, and only here."""
    words = list(args)
    collect_seldom()
    Interrupts().listen()
    try:
        result = main.main(words, prog_name="img", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - the one edge where every error becomes text
        return _failed(error, debug="-d" in words or "--debug" in words or "-debug" in words)
    return result if isinstance(result, int) else 0


def collect_seldom() -> None:
    """Looks for cycles a hundredth as often: a command makes few, and lives for one operation."""
    gc.set_threshold(70_000, 20, 50)
    gc.enable()


def _failed(error: Exception, *, debug: bool) -> int:
    """Says what went wrong, with its hint; gives the exit code that belongs to it."""
    import errno

    from img.errors import DiskFull, ImgError, exit_code_of

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = DiskFull(str(error.filename or "the store"))
    if debug or not isinstance(error, (ImgError, OSError)):
        import traceback

        traceback.print_exception(error)
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    _say(text)
    hint = getattr(error, "hint", "")
    if hint:
        _say(hint, mark="hint")
    return exit_code_of(error)


def _say(text: str, *, mark: str = "img") -> None:
    try:
        click.echo(f"{mark}: {text}", err=True)
    except OSError:
        pass  # standard error is gone: the exit code still tells
