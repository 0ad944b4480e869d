"""`names_helper`: whether credentials may have to be asked of a helper, a program of the host.

`Engine` asks before it enters the namespace: a helper speaks to the real user's session, and the process
outside, which runs it there, can only be forked before (DESIGN D1). It costs a look at a few small files.
"""

from __future__ import annotations

import os

from img.engine.requests import Settings

_WORDS = (b'"credsStore"', b'"credHelpers"')
_LIST = b"credential-helpers"
_MOST_BYTES = 4 << 20


def names_helper(settings: Settings) -> bool:
    """Tells it from the words of the config files; what is wrong with them is complained of later."""
    if any(word in settings.auth_config.encode() for word in _WORDS):
        return True
    paths = filter(None, (*settings.auth_files, settings.docker_config))
    if any(word in text for text in map(_text, paths) for word in _WORDS):
        return True
    return any(map(_has_list, settings.registries_conf))


def _has_list(place: str) -> bool:
    """Tells whether a `registries.conf`, or one of a folder of them, has a list of helpers."""
    try:
        paths = [os.path.join(place, name) for name in os.listdir(place)]
    except OSError:
        paths = [place]  # a file; or nothing that can be read, of which whoever needs it complains
    lines = (
        line.lstrip(b" \t\"'") for text in map(_text, paths) if _LIST in text for line in text.split(b"\n")
    )
    return any(line.startswith(_LIST) for line in lines)


def _text(path: str) -> bytes:
    """The text of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return b""
