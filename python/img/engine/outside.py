"""`needs_outside`: whether a build may have to run a program of the host, such as git.

`Engine` asks before it enters the namespace, since the process outside can only be forked before
(DESIGN D1). An ordinary build pays a look at its Dockerfile's text, and nothing more.
"""

from __future__ import annotations

from pathlib import Path

from img import regex
from img.context import DEFAULT_NAMES
from img.engine.requests import BuildRequest
from img.oci.descriptor import MAX_DOCUMENT_BYTES

_REMOTE = regex.compile(r"(?i)https?://|git://|ssh://|[\w-]+@[\w.-]+:|github\.com/")
_ADD = regex.compile(rb"(?im)^[ \t]*(?:onbuild[ \t]+)?add\b(?:.*[\\`][ \t]*\r?\n)*.*$")


def needs_outside(request: BuildRequest) -> bool:
    """Tells it from the words of the request and the text of the Dockerfile, where that is at hand.

    A trigger of a base image (ONBUILD ADD) cannot be known of here: its git runs in the namespace.
    """
    if request.context_normalize:
        return True
    words = (request.context, request.dockerfile, *request.contexts.values())
    if any(_REMOTE.match(word) for word in words):
        return True
    if request.context == "-":
        return True  # an archive, perhaps: its Dockerfile is not read yet
    text = _text(request)
    return any(b"://" in line or b"@" in line or b"$" in line for line in _ADD.findall(text))


def _text(request: BuildRequest) -> bytes:
    """The Dockerfile's text; empty where it cannot be read, which is complained of later."""
    cwd = Path(request.cwd)
    root = cwd / request.context
    names = [cwd / request.dockerfile, root / request.dockerfile] if request.dockerfile else []
    if request.dockerfile == "-":
        names = [Path(request.stdin)]
    for path in names or [root / name for name in DEFAULT_NAMES]:
        try:
            with path.open("rb") as file:
                return file.read(MAX_DOCUMENT_BYTES)
        except OSError:
            continue
    return b""
