"""Renderers: what progress looks like. `renderer` chooses one; each is a `Progress` to call."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from img.progress import Progress, silent


@contextmanager
def renderer(mode: str, *, debug: bool = False) -> Iterator[Progress]:
    """Gives the renderer for `--progress`, and ends it.

    Args:
        mode: `auto` (a terminal that is not a dumb one gets `tty`), `plain`, `tty`, `json`, `warnings`
            alone, or `quiet`.
    """
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if mode == "quiet":
        yield silent
        return
    if mode == "warnings":
        from img.cli.common import show_warnings

        yield show_warnings
        return
    if mode == "json":
        from img.cli.render.lines import JsonRenderer

        yield JsonRenderer(sys.stderr)
        return
    if mode == "tty":
        from img.cli.render.tty import TerminalRenderer

        colour = not os.environ.get("NO_COLOR")
        with TerminalRenderer(sys.stderr, debug=debug, colour=colour) as show:
            yield show
        return
    from img.cli.render.plain import PlainRenderer

    yield PlainRenderer(sys.stderr, debug=debug)
