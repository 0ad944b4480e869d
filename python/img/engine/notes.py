"""`Notes`: the annotations of an artifact that a file holds: of its manifest, its config, and its files.

`artifacts.push` reads one where `--annotation-file` names it.
Source: ORAS, "How-to: annotate artifacts", for the form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from img.engine.folders import CONTENT_DIGEST, UNPACK
from img.errors import UsageError
from img.oci import Descriptor
from img.values import dataclass, field, replace

MANIFEST_NOTES = "$manifest"
CONFIG_NOTES = "$config"
"""What the file calls the manifest and the config; a file of the artifact is called by its name there."""

TITLE = "org.opencontainers.image.title"
"""The annotation that holds a file's name."""

_OURS = frozenset({TITLE, CONTENT_DIGEST, UNPACK})
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """Annotations by what they are put on."""

    all: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    where: str = ""

    @classmethod
    def read(cls, path: Path) -> Notes:
        """Reads a file.

        Raises:
            UsageError: it cannot be read, or does not say what it should.
        """
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(_MAX_BYTES))
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not JSON: {error}") from error
        groups = data.values() if isinstance(data, dict) else [None]
        if not all(isinstance(g, dict) and all(isinstance(v, str) for v in g.values()) for g in groups):
            raise UsageError(
                f"{path} is no file of annotations",
                hint=f'it is like {{"{MANIFEST_NOTES}": {{"NAME": "VALUE"}}, "FILE": {{"NAME": "VALUE"}}}}',
            )
        return cls(all=data, where=str(path))

    def check(self, titles: Iterable[str]) -> None:
        """Refuses what there is nothing to put on, and what would say something else than is so.

        Raises:
            UsageError.
        """
        known = [MANIFEST_NOTES, CONFIG_NOTES, *titles]
        for name, notes in self.all.items():
            if name not in known:
                raise UsageError(
                    f"{self.where}: there is no file {name}", hint=f"there is {', '.join(known)}"
                )
            if name in known[2:] and (ours := _OURS & set(notes)):
                raise UsageError(f"{self.where}: {min(ours)} of {name} is what img says itself")

    def of(self, name: str) -> dict[str, str]:
        """What is said of the manifest, the config, or a file."""
        return dict(self.all.get(name, {}))

    def on(self, descriptor: Descriptor, name: str) -> Descriptor:
        """What points at the config or a file, with what is said of it."""
        said = self.of(name)
        return replace(descriptor, annotations={**said, **descriptor.annotations}) if said else descriptor
