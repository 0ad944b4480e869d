"""`Held`: a remote's bare repository in the store's `RemoteArea`, for as long as one of us works in it.

`git.Git` takes it for each thing that it does; nobody else looks inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from img import _core
from img.remote.program import GitProgram
from img.remote.tokens import without_user
from img.store import RemoteArea

_MEANINGS = "meanings.json"


class Held:
    """A remote's bare repositories, ours while the block runs: one for each kind of hash it has had."""

    def __init__(
        self, area: RemoteArea, program: GitProgram, address: str, check: Callable[[], None]
    ) -> None:
        self._entry = area.entry("git", address, check)
        self._program = program
        self._folder = Path()

    def __enter__(self) -> Held:
        self._folder = self._entry.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._entry.__exit__(*details)  # type: ignore[arg-type]  # passed on as they came

    def of(self, commit: str) -> Path:
        """The repository that can hold a commit, made where it is not there."""
        kind = object_format(commit)
        here = self._folder / ("repository" if kind == "sha1" else f"repository-{kind}")
        if here.is_dir():
            # What a git that was killed left behind: nobody else is at it now.
            for stale in (
                *here.glob("*.lock"),
                *here.glob("refs/**/*.lock"),
                *here.glob("objects/pack/tmp_*"),
            ):
                stale.unlink(missing_ok=True)
            return here
        made = self._folder / "new"
        _core.remove_tree(str(made))
        made.mkdir()
        words = ("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(made))
        self._program.local(*words, at=self._folder)
        made.rename(here)
        return here

    def meanings(self) -> dict[str, tuple[str, str]]:
        """What names meant when the remote was last asked: the whole ref and the commit of each."""
        try:
            listed = json.loads((self._folder / _MEANINGS).read_bytes())
            return {str(name): (str(ref), str(commit)) for name, (ref, commit) in listed.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # nobody asked yet, or a writer was killed

    def remember(self, name: str, ref: str, commit: str) -> None:
        """Writes down what a name means now, for a time without a network."""
        known = self.meanings()
        if known.get(name) != (ref, commit):
            known[name] = (ref, commit)
            partial = self._folder / f"{_MEANINGS}.new"
            partial.write_text(json.dumps(known))
            partial.replace(self._folder / _MEANINGS)


def object_format(commit: str) -> str:
    """The kind of hash that a commit has, as git names it."""
    return "sha256" if len(commit) == 64 else "sha1"


def address_of(remote: str) -> str:
    """A remote as git's argument: no password is in it."""
    return without_user(remote) if remote.startswith(("http://", "https://")) else remote
