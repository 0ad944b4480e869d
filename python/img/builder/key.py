"""`CacheKey`: everything that may change a step's result, as data that can be printed and compared.

A key names what it stands on by content, not by how that was made (DESIGN D6), so a step that ran
again and gave the same bytes lets all that follows hit. Its text is canonical JSON; its digest is
what records are filed under.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from img.oci.hashing import sha256
from img.values import dataclass

VERSION = 2
"""Goes into every key: raised when a step of the same inputs may come out otherwise."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """One key. `inputs` is plain data, JSON values only."""

    inputs: Mapping[str, object]

    @classmethod
    def make(cls, op: str, **inputs: object) -> CacheKey:
        """Puts a key together; a field that is None or empty is left out."""
        kept = {name: value for name, value in inputs.items() if value not in (None, "", (), [], {})}
        return cls({"v": VERSION, "op": op, **kept})

    @property
    def text(self) -> str:
        """Canonical JSON: keys sorted, no blanks."""
        return json.dumps(self.inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def digest(self) -> str:
        """sha256 of `text`, in hexadecimal."""
        return sha256(self.text.encode()).hexdigest()


def stacked(below: str, layer: str) -> str:
    """The content digest of a stack of layers with one more on top."""
    if not layer:
        return below
    return "stack:" + sha256(f"{below}\n{layer}".encode()).hexdigest()


EMPTY = "stack:empty"
"""The content of FROM scratch."""
