"""What the grammars of several instructions share: missing arguments, exec form and shell form.

Called by the modules that make instructions; nothing here knows one of them.
Source: Dockerfile reference, "Shell and exec form".
"""

from __future__ import annotations

from img.dockerfile.faults import fault
from img.dockerfile.flags import Known
from img.dockerfile.source import Line
from img.dockerfile.words import NotStrings, blank_words, json_words

NO_FLAGS: Known = {}
"""For an instruction that takes no flags."""


def need(line: Line, text: str, what: str, example: str) -> None:
    """Refuses an instruction without arguments.

    Raises:
        DockerfileError: `text` is empty; `what` says what should be there, `example` shows it.
    """
    if not text:
        raise fault(line.span, f"{line.keyword} needs {what}", hint=f"e.g. {line.keyword} {example}")


def exec_form_of(line: Line, text: str) -> tuple[str, ...] | None:
    """The words of the exec form, or None for the shell form.

    Raises:
        DockerfileError: the text is a JSON list, but not of strings alone.
    """
    try:
        return json_words(text)
    except NotStrings as error:
        raise fault(line.span, str(error), at="[", hint="put every word in double quotes") from error


def command(line: Line, text: str) -> tuple[tuple[str, ...], bool]:
    """The words of a command, and whether they are in exec form."""
    words = exec_form_of(line, text)
    return ((text,), False) if words is None else (words, True)


def word_list(line: Line, text: str) -> tuple[str, ...]:
    """The words of a list in JSON form, or parted by blanks."""
    words = exec_form_of(line, text)
    return blank_words(text) if words is None else words
