"""`Locker`: what `img lock` does: finds what a Dockerfile's names mean now, and writes it down.

The engine makes one for each call. It plans the build, as far as its bases' documents go, and so names
exactly what a build would ask for, what ONBUILD triggers add included. No layer is fetched, no image is
named in the store, nothing runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from img.builder import PlanOptions
from img.builder.checking import check_plan
from img.builder.graph import GitOp, HttpOp
from img.builder.plan import needs_all
from img.dockerfile.instructions import Dockerfile
from img.dockerfile.near import did_you_mean
from img.engine.building import Build
from img.engine.fetching import Fetcher, git_url
from img.engine.locating import Located
from img.engine.lockfile import LockFile, Name, matching, stale
from img.engine.pulling import Puller
from img.engine.requests import BuildRequest, LockEntry, LockMode, LockResult
from img.engine.resolving import fetch_name, gone, named_images
from img.errors import NotFound, Unauthorized, UsageError
from img.oci import Image, Platform, Reference
from img.progress import Note, Progress
from img.store import Store
from img.store.blobs import write_atomic


class Locker:
    """One lock file, brought up to date or compared."""

    def __init__(
        self,
        store: Store,
        puller: Puller,
        build: Build,
        request: BuildRequest,
        progress: Progress,
        *,
        mode: LockMode = "add",
        names: Sequence[str] = (),
    ) -> None:
        """Asks nobody yet.

        Args:
            names: What `update` is for; none for all.
        """
        self._store = store
        self._puller = puller
        self._build = build
        self._request = request
        self._progress = progress
        self._mode = mode
        self._names = names
        self._old = LockFile()
        self._renewed: set[Name] = set()
        self._now: dict[Name, str] = {}

    def run(self) -> LockResult:
        """Finds what every name means, and writes the file where it changed and the mode wants that.

        Raises:
            LockError: the file is there, and is no lock file. UsageError: there is no place to write it.
            DockerfileError, RegistryError, FetchError, StoreError.
        """
        with self._store.work.begin() as work:
            _, dockerfile = self._build.read(work, resolve=self._resolve)
            lock = self._build.resolver.lock
            if lock.path is None:
                raise UsageError(
                    "there is no folder beside this Dockerfile for its lock file",
                    hint="name the file with --lock-file FILE",
                )
            self._old = lock.file or LockFile()
            self._renewed = self._chosen()
            used, complete = self._plan_all(dockerfile)
        entries = self._entries(used, complete=complete)
        new = LockFile(pins={n: e.pin for n, e in entries.items() if e.state != "stale"})
        changed = lock.file is None or new != self._old
        if self._mode != "check" and changed:
            write_atomic(Path(os.path.realpath(lock.path)), new.text().encode())
        return LockResult(
            path=lock.shown,
            entries=tuple(entries.values()),
            written=self._mode != "check" and changed,
        )

    def _chosen(self) -> set[Name]:
        """The entries whose meaning is asked for anew."""
        if self._mode == "check" and self._request.offline:
            return set()  # nobody can be asked whether a name has moved
        if self._mode == "check" or (self._mode == "update" and not self._names):
            return set(self._old.pins)
        found: set[Name] = set()
        for word in self._names:
            fitting = matching(self._old.pins, word)
            if not fitting:
                known = [name.text for name in self._old.pins]
                raise UsageError(
                    f"{self._build.resolver.lock.shown} has no entry {word}",
                    hint=did_you_mean(word, known) or "img lock adds what is missing",
                )
            found.update(fitting)
        return found

    # ---- what a build would ask for --------------------------------------------------------------

    def _plan_all(self, dockerfile: Dockerfile) -> tuple[set[str], bool]:
        """Plans for every target and platform; gives the images that are named, and whether that is all."""
        plans = self._build.options(dockerfile)
        for options in plans:
            self._plan(dockerfile, options)
        named = set(named_images(dockerfile, plans, self._request))
        for name in [name for name in self._now if name.kind == "images" and name.text not in named]:
            self._now[Name(kind="triggers", text=name.text)] = self._now.pop(name)
        complete = any(not options.target or needs_all(dockerfile, options) for options in plans)
        return named, complete

    def _plan(self, dockerfile: Dockerfile, options: PlanOptions) -> None:
        plan = check_plan(dockerfile, options, self._resolve)
        if plan.error is not None:
            raise plan.error
        fetcher = self._build.fetcher
        for node in plan.nodes:
            name = fetch_name(node.op) if isinstance(node.op, (HttpOp, GitOp)) else None
            if name is None or name in self._now:
                continue
            old = "" if name in self._renewed else self._old.pins.get(name, "")
            assert isinstance(node.op, (HttpOp, GitOp))
            self._now[name] = old or _fetched(fetcher, node.op)

    def _resolve(self, reference: Reference, platform: Platform) -> Image:
        """Gives a base as its pin has it, or as it is now."""
        if reference.digest:
            return self._puller.locate(reference, platform).image
        name = Name(kind="images", text=str(reference))
        pin = self._now.get(name) or ("" if self._is_renewed(name) else self._old.image(reference))
        if pin:
            try:
                located = self._puller.locate(reference.with_digest(pin), platform)
            except NotFound as error:
                raise gone(error, self._build.resolver.lock, reference, pin) from error
        else:
            located = self._meaning(reference, platform)
        self._now[name] = pin or located.digest
        return located.image

    def _is_renewed(self, name: Name) -> bool:
        return bool({name, Name(kind="triggers", text=name.text)} & self._renewed)

    def _meaning(self, reference: Reference, platform: Platform) -> Located:
        """What a name means now; of an image that is in no registry, what is here."""
        try:
            return self._puller.locate(reference, platform, policy="always")
        except (NotFound, Unauthorized) as error:
            if not self._puller.here([(reference, platform)]):
                raise
            text = f"{reference.familiar} is pinned to what is here, since no registry gives it: {error}"
            self._progress(Note(level="warning", text=text))
            return self._puller.locate(reference, platform, policy="never")

    # ---- the difference ----------------------------------------------------------------------------

    def _entries(self, named: set[str], *, complete: bool) -> dict[Name, LockEntry]:
        """Every name of the file and of the Dockerfile, in the file's order, and how it stands."""
        gone_names = set(stale(self._old, self._now.keys(), named, complete=complete))
        kept = {name: pin for name, pin in self._old.pins.items() if name not in gone_names}
        now = {**kept, **self._now}
        return {
            name: _entry(name, now.get(name, ""), self._old.pins.get(name, ""))
            for name in sorted({*now, *gone_names})
        }


def _entry(name: Name, pin: str, was: str) -> LockEntry:
    if not pin:
        return LockEntry(kind=name.kind, name=name.text, state="stale", was=was)
    state = LockEntry.state_of(pin, was)
    return LockEntry(kind=name.kind, name=name.text, state=state, pin=pin, was=was)


def _fetched(fetcher: Fetcher, op: HttpOp | GitOp) -> str:
    """Fetches what an ADD names; gives its digest or commit. A build takes it from where it is kept."""
    if isinstance(op, HttpOp):
        return fetcher.file(op.url, name=op.name).digest
    return fetcher.commit(git_url(op)).commit
