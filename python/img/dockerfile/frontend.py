"""`check_frontend`: tells whether a file is in the language that is built in, by its syntax directive.

`stages.parse` calls it for `# syntax=`, and for what BUILDKIT_SYNTAX puts in its place. docker would
run the image that is named there as the build's frontend; img has one language, and runs nothing.
Source: Dockerfile reference, "syntax", "Custom Dockerfile syntax".
"""

from __future__ import annotations

import re

from img import regex
from img.dockerfile.faults import fault
from img.dockerfile.instructions import Span
from img.errors import UsageError

# Any registry may hold a copy; what stands before the first slash is one if it has a dot or a port.
_KNOWN = regex.compile(
    r"""(?: (?: [\w-]+ (?: \.[\w.-]+ | :\d+ ) (?: :\d+ )? | localhost ) / (?: [\w.-]+/ )* )?
    docker/dockerfile (?: -upstream )?
    (?: : [\w][\w.-]{0,127} )?
    (?: @ sha256: [0-9a-f]{64} )?""",
    re.VERBOSE | re.ASCII,
)
_HINT = "img speaks docker/dockerfile alone, every version and labs; build this file with what it is made for"


def is_known(syntax: str) -> bool:
    """Tells whether a syntax directive's value names docker/dockerfile, of any version."""
    words = syntax.split()
    return bool(words) and _KNOWN.fullmatch(words[0]) is not None


def check_frontend(syntax: str, span: Span) -> None:
    """Refuses the syntax directive of another language.

    Raises:
        DockerfileError: at the directive.
    """
    if not is_known(syntax):
        message = f"this file is written for another frontend, {syntax!r}"
        raise fault(span, message, at=syntax, hint=_HINT)


def check_asked_frontend(syntax: str) -> None:
    """Refuses a BUILDKIT_SYNTAX that names another language.

    Raises:
        UsageError: it does.
    """
    if not is_known(syntax):
        raise UsageError(f"BUILDKIT_SYNTAX asks for another frontend, {syntax!r}", hint=_HINT)
