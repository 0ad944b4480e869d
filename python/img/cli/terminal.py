"""Questions on the terminal, wherever standard input leads: `ask` and `ask_password`.

Both speak to /dev/tty, so that a pipe may stay a pipe. They give None where there is no terminal; whoever
closes theirs in place of an answer has interrupted the command.
"""

from __future__ import annotations

import os

from img.cli import clicks as click


def ask(question: str) -> str | None:
    """Asks for a line; None where nobody can be asked."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    with os.fdopen(terminal, "r+b", buffering=0) as file:
        file.write(question.encode())
        line = b""
        while not line.endswith(b"\n") and (piece := file.read(4096)):
            line += piece
    if not line:
        raise click.Abort
    return line.decode("utf-8", "replace").rstrip("\r\n")


def ask_password(question: str) -> str | None:
    """Asks for a line that is not shown; None as `ask`."""
    import getpass

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return getpass.getpass(question)
    except OSError:
        return None
    except EOFError as end:
        raise click.Abort from end
