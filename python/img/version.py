"""The version, and what `img version` prints. Imports nothing that costs."""

from __future__ import annotations

import os
import sys

__version__ = "0.1.0"


def describe() -> str:
    """The lines of `img version`."""
    machine = os.uname()
    return (
        "img:\n"
        f"  version    : {__version__}\n"
        f"  python     : {sys.version.split()[0]}\n"
        f"  platform   : linux/{machine.machine}\n"
        f"  kernel     : {machine.release}\n"
    )


def facts() -> dict[str, str]:
    """The same as data."""
    machine = os.uname()
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "platform": f"linux/{machine.machine}",
        "kernel": machine.release,
    }
