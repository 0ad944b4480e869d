"""`python -m img` and the `img` command. The version is answered before anything is imported."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Runs the command line and ends the process with its code."""
    if sys.argv[1:] in (["version"], ["--version"], ["-v"]):
        from img.version import describe

        sys.stdout.write(describe())
        return
    gc.disable()  # imports make no garbage; `run` turns it on again
    try:
        from img.cli import run
    except KeyboardInterrupt:  # `run` is what listens
        sys.stderr.write("\nimg: interrupted\n" if sys.stderr.isatty() else "img: interrupted\n")
        leave(130)
        return
    leave(run(sys.argv[1:]))


def leave(code: int) -> None:
    """Ends the process at once: taking the interpreter apart would take longer than many a command.

    Nothing is left to be done by then: what the command opened is closed, and its threads have come home.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it was closed before we began
                stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
