"""`python -m img` and the `img` command. The version is answered before anything is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    if sys.argv[1:] in (["version"], ["--version"], ["-v"]):
        from img.version import describe

        sys.stdout.write(describe())
        return
    from img.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
