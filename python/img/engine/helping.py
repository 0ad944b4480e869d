"""`names_helper`: whether credentials may have to be asked of a helper, a program of the host.

`Engine` asks before it enters the namespace: a helper speaks to the real user's session, and the process
outside, which runs it there, can only be forked before (DESIGN D1). It costs a look at a few small files.
"""

from __future__ import annotations

from img.engine.requests import Settings

_WORDS = (b'"credsStore"', b'"credHelpers"')
_MOST_BYTES = 4 << 20


def names_helper(settings: Settings) -> bool:
    """Tells it from the words of the config files; what is wrong with them is complained of later."""
    if any(word in settings.auth_config.encode() for word in _WORDS):
        return True
    return any(_has_word(path) for path in (*settings.auth_files, settings.docker_config) if path)


def _has_word(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES)
    except OSError:
        return False
    return any(word in text for word in _WORDS)
