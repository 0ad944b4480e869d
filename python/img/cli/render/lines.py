"""`JsonRenderer`: one event a line, as `progress.to_json` gives it."""

from __future__ import annotations

import json
import threading
from typing import TextIO

from img.progress import Event, to_json


class JsonRenderer:
    """Writes events as JSON lines."""

    def __init__(self, out: TextIO) -> None:
        """Writes to `out`."""
        self._out = out
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Writes one event."""
        with self._lock:
            self._out.write(json.dumps(to_json(event)) + "\n")
            self._out.flush()
