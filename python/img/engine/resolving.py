"""`Resolver`: says what the names in a build mean: by its lock file, its pull policy, and the store.

`Build` makes one and asks it for every base; `Fetcher` asks the lock file itself. What was asked for, and
what it meant, is in `bases` afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from img.builder.graph import BuildGraph, GitOp, HttpOp
from img.dockerfile import image_words, near_stage
from img.dockerfile.faults import fault, shown
from img.dockerfile.instructions import Dockerfile, Span
from img.errors import InvalidReference, LockError, NotFound, RegistryError, StoreError
from img.oci import Image, Platform, Reference
from img.progress import Note, Progress
from img.values import dataclass, replace

if TYPE_CHECKING:
    from img.builder import PlanOptions
    from img.engine.locating import Located
    from img.engine.lockfile import LockFile, Name
    from img.engine.pulling import Puller
    from img.engine.requests import BuildRequest

Place = tuple[Span, str]
"""An instruction, and the word in it that names something."""

DEFAULT_NAME = "img.lock"
IMAGE_CONTEXT = "docker-image://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A build's lock file, as it was found.

    Attributes:
        file: What it says; None where there is none.
        shown: What people call it.
        data: Its bytes.
        path: Where it is, or would be written; None where that is not on this machine.
    """

    file: LockFile | None = None
    shown: str = DEFAULT_NAME
    data: bytes = b""
    path: Path | None = None

    def entry(self, name: Name) -> LockError:
        """An error without a text, which points at an entry."""
        from img.engine.lockfile import place_of

        line, excerpt = place_of(self.data, name)
        column = len(excerpt) - len(excerpt.lstrip()) + 1
        return LockError("", path=self.shown, line=line, column=column, excerpt=excerpt.rstrip())


def read_lock(request: BuildRequest, found: Lock) -> Lock:
    """Reads the lock file that a request names, else the one that was found beside its Dockerfile.

    Raises:
        LockError: it is none; or it has to be there, and is not.
    """
    from img.oci.descriptor import MAX_DOCUMENT_BYTES

    lock = found
    if request.lock_file:
        path = Path(request.cwd) / request.lock_file
        data = path.read_bytes() if path.is_file() else b""
        lock = Lock(shown=request.lock_file, data=data, path=path)
    if len(lock.data) > MAX_DOCUMENT_BYTES:
        raise LockError(f"longer than {MAX_DOCUMENT_BYTES} bytes", path=lock.shown)
    if not lock.data:
        return lock
    from img.engine.lockfile import parse_lock

    return replace(lock, file=parse_lock(lock.data, path=lock.shown))


class Resolver:
    """The meaning of names, for one build. Safe for several threads.

    Attributes:
        bases: What was resolved: full names to digests, of an index where the name stands for one.
        lock: The build's lock file.
    """

    def __init__(self, puller: Puller, request: BuildRequest, progress: Progress) -> None:
        """Asks nobody yet."""
        self.bases: dict[str, str] = {}
        self.lock = Lock()
        self._puller = puller
        self._request = request
        self._progress = progress
        self._dockerfile: Dockerfile | None = None
        self._said: set[str] = set()

    def begin(self, dockerfile: Dockerfile, lock: Lock) -> None:
        """Takes the Dockerfile and the lock file that names are resolved for."""
        self._dockerfile = dockerfile
        self.lock = lock

    def require(self) -> None:
        """Refuses a build that is to be locked, or whose lock file was named, where there is none.

        Raises:
            LockError.
        """
        lock = self.lock
        if lock.file is None and self._request.lock_file:
            hint = f"img lock --lock-file {self._request.lock_file} PATH writes it"
            raise LockError("there is no such lock file", path=lock.shown, hint=hint)
        if lock.file is None and self._request.locked:
            hint = "img lock PATH writes it" if lock.path else "name one with --lock-file"
            raise LockError(
                "there is no lock file, and the build is to be locked", path=lock.shown, hint=hint
            )

    # ---- images --------------------------------------------------------------------------------------

    def resolve(self, reference: Reference, platform: Platform) -> Image:
        """Gives the image of a name; one that a registry gave is named in the store.

        Raises:
            LockError: the build is to be locked, and the lock file has no such name.
            RegistryError, StoreError: it cannot be had; with the instruction that asked for it.
        """
        place = self._asked_by(reference)
        try:
            wanted, located = self._locate(reference, platform, place)
        except (RegistryError, StoreError) as error:
            self._point(error, place)
            raise
        self._puller.keep(located, wanted)
        return located.image

    def resolve_context(self, reference: Reference, platform: Platform) -> Image:
        """Like `resolve`, for the image of a named context, which no instruction names."""
        wanted, located = self._locate(reference, platform, None)
        self._puller.keep(located, wanted)
        return located.image

    def locate(self, reference: Reference, platform: Platform) -> Located:
        """Finds the image of a name; the store's names stay as they are.

        Raises:
            As `resolve`, without the instruction.
        """
        return self._locate(reference, platform, self._asked_by(reference))[1]

    def at_hand(self, wanted: Sequence[tuple[Reference, Platform]]) -> bool:
        """Tells whether the store alone can say what all these names mean."""
        meant = [(self._wanted(reference), platform) for reference, platform in wanted]
        asks = self._request.pull in ("always", "newer")
        return not (asks and any(not name.digest for name, _ in meant)) and self._puller.here(meant)

    def _locate(
        self, reference: Reference, platform: Platform, place: Place | None
    ) -> tuple[Reference, Located]:
        wanted = self._wanted(reference)
        if not wanted.digest:
            self._not_pinned(reference.familiar, place)
        try:
            located = self._puller.locate(wanted, platform, policy=self._request.pull)
        except NotFound as error:
            if wanted == reference:
                raise
            raise gone(error, self.lock, reference, wanted.digest) from error
        self.bases[str(reference)] = located.digest
        return wanted, located

    def _wanted(self, reference: Reference) -> Reference:
        """A name with the digest that the lock file has for it."""
        if reference.digest or self.lock.file is None:
            return reference
        pinned = self.lock.file.image(reference)
        return reference.with_digest(pinned) if pinned else reference

    # ---- what is not pinned, and what nobody asks for ------------------------------------------------

    def check(self, dockerfile: Dockerfile, plans: Sequence[tuple[PlanOptions, BuildGraph]]) -> None:
        """Compares the lock file with what the plans of this build name: what they fetch, and what is stale.

        Raises:
            LockError: the build is to be locked, and they differ.
        """
        if self.lock.file is None:
            return
        used: set[Name] = set()
        for _, graph in plans:
            used |= self._check_fetches(graph)
        if self._request.locked:
            self._refuse_stale(dockerfile, [options for options, _ in plans], used)

    def _check_fetches(self, graph: BuildGraph) -> set[Name]:
        assert self.lock.file is not None
        used = set()
        for node in graph.nodes:
            name = fetch_name(node.op) if isinstance(node.op, (HttpOp, GitOp)) else None
            if name is not None:
                used.add(name)
                if name not in self.lock.file.pins:
                    self._not_pinned(name.text, (node.span, "") if node.span else None)
        return used

    def _refuse_stale(self, dockerfile: Dockerfile, options: Sequence[PlanOptions], used: set[Name]) -> None:
        from img.builder.plan import needs_all
        from img.engine.lockfile import stale

        assert self.lock.file is not None
        complete = all(needs_all(dockerfile, option) for option in options)
        named = {*named_images(dockerfile, options, self._request), *self.bases}
        found = [self.lock.entry(name) for name in stale(self.lock.file, used, named, complete=complete)]
        if found:
            first, *others = found
            first.message = f"nothing in {dockerfile.path} asks for this any more"
            first.hint = "img lock drops it"
            first.also = tuple(f"{e.path}:{e.line}: {e.excerpt.strip()}" for e in others)
            raise first

    def _not_pinned(self, name: str, place: Place | None) -> None:
        """Says that the lock file lacks a name; refuses the build where it is to be locked."""
        if self.lock.file is None or name in self._said:
            return
        self._said.add(name)
        text = f"{self.lock.shown} does not pin {name}"
        if self._request.locked:
            hint = "img lock adds it; img lock --update renews all that is there"
            if place is None:
                raise LockError(text, path=self.lock.shown, hint=hint)
            error = fault(place[0], text, at=place[1] or name, hint=hint)
            raise LockError(**{field: getattr(error, field) for field in error.fields})
        where = f"{place[0].where}: " if place else ""
        self._progress(Note(level="warning", text=f"{where}{text}: img lock adds it"))

    # ---- places --------------------------------------------------------------------------------------

    def _point(self, error: RegistryError | StoreError, place: Place | None) -> None:
        """Adds to an error which instruction asked for the image."""
        if place is not None and self._dockerfile is not None:
            span, name = place
            error.args = (f"{span.where}: {error}\n{shown(span, name)}",)
            error.message = f"{span.where}: {error.message}\n{shown(span, name)}"
            error.hint = near_stage(self._dockerfile, name) or error.hint

    def _asked_by(self, reference: Reference) -> Place | None:
        """The instruction that most likely asked for an image, and the word in it: that with its name."""
        if self._dockerfile is None:
            return None
        last = reference.repository.rpartition("/")[2]
        found = [(i.span, word) for i, word in image_words(self._dockerfile) if last in word]
        exact = [(span, word) for span, word in found if _means(word, reference)]
        only = self._dockerfile.stages[0].from_
        single = [(only.span, only.image)] if len(self._dockerfile.stages) == 1 else []
        return next(iter((*exact, *found, *single)), None)


def _means(word: str, reference: Reference) -> bool:
    try:
        return Reference.parse(word) == reference
    except InvalidReference:
        return False


def fetch_name(op: HttpOp | GitOp) -> Name | None:
    """The entry that pins what an ADD fetches; None where the Dockerfile itself pins it."""
    from img.engine.lockfile import Name, git_name, http_name, is_commit

    if isinstance(op, HttpOp):
        return None if op.checksum else Name(kind="http", text=http_name(op.url))
    if is_commit(op.ref) or is_commit(op.checksum):
        return None
    return Name(kind="git", text=git_name(op.remote, op.ref))


def named_images(
    dockerfile: Dockerfile, options: Sequence[PlanOptions], request: BuildRequest
) -> Iterator[str]:
    """The full names of all images that a Dockerfile, or a named context, names; whatever the target."""
    from img.builder.plan import all_bases

    for option in options:
        for variant in (option, replace(option, contexts={})):
            yield from (str(reference) for reference, _ in all_bases(dockerfile, variant))
    for value in request.contexts.values():
        if value.startswith(IMAGE_CONTEXT):
            yield str(Reference.parse(value.removeprefix(IMAGE_CONTEXT)))


def gone(error: NotFound, lock: Lock, reference: Reference, digest: str) -> NotFound:
    """The error for a pin that the registry has no longer."""
    return NotFound(
        f"{lock.shown} pins {reference.familiar} to {digest}, which its registry has no longer",
        method=error.method,
        url=error.url,
        status=error.status,
        codes=error.codes,
        hint=f"img lock --update={reference.familiar} pins it to what the name means now",
    )
