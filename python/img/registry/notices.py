"""`Notices`: what registries say in Warning headers, passed on to people once.

Called by the wire with each answer of a registry. Only what the specification calls a warning is heard: code
299, no agent, no date. Safe from several threads. Source: distribution-spec v1.1, "Warnings".
"""

from __future__ import annotations

import threading

from img import regex
from img.progress import Note, Progress
from img.registry.faults import clean, secrets_of

_WARNING = regex.compile(r'(?:^|,)\s*299 - "((?:[^"\\]|\\.)*)"(?=\s*(?:,|$))')
_ESCAPE = regex.compile(r"\\(.)")
_MOST_HEADER = 4096
"""Characters of an answer's warnings that are read: a registry may send no more."""

_MOST = 32
"""Warnings that are passed on for one client: a registry must not fill a log."""


class Notices:
    """The warnings that one client has heard."""

    def __init__(self, progress: Progress) -> None:
        """Has heard none."""
        self._progress = progress
        self._lock = threading.Lock()
        self._heard: set[tuple[str, str]] = set()

    def hear(self, host: str, header: str, authorization: str) -> None:
        """Passes on what a registry's header says that it has not said before.

        Args:
            host: The registry as people name it.
            header: All its Warning headers, with commas between them.
            authorization: What it was shown: a text that repeats it is not passed on.
        """
        secrets = secrets_of(authorization)
        for text in read_warnings(header):
            if any(secret in text for secret in secrets):
                continue
            with self._lock:
                new = (host, text) not in self._heard and len(self._heard) < _MOST
                self._heard |= {(host, text)} if new else set()
            if new:
                self._progress(Note(level="warning", text=f"{host} says: {text}"))


def read_warnings(header: str) -> list[str]:
    """Reads the texts of Warning headers; what is none of the specification's is left out."""
    found = (_WARNING.finditer(header[:_MOST_HEADER])) if header else ()
    texts = (clean(_ESCAPE.sub(r"\1", match[1])) for match in found)
    return list(dict.fromkeys(filter(None, texts)))
