"""`Copier`: copies one image from a source to targets, several blobs at once, and names it last.

First come all documents, which are small and say what there is. Then the blobs that a target lacks, each
poured from the source into it; then the documents, each after what it names; then the names. The first error
ends everything, and leaves no name that leads to half an image. What is there already is not sent: a copy
that was broken off and is repeated goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from img.errors import DigestMismatch, InvalidDocument, SizeMismatch
from img.oci import Descriptor, Index, Manifest, Platform
from img.places.choose import choose
from img.places.place import About, Cargo, Document, Source, Target
from img.places.remote import RemoteTarget
from img.progress import Event, Note, Progress, Transfer
from img.registry import Stop, Upload, in_parallel
from img.values import dataclass, field, replace

MAX_DEPTH = 4
"""Indexes within one another."""

MAX_DOCUMENTS = 4096

MAX_BYTES = 128 << 20
"""Of all documents together: they are in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of an image is copied.

    Attributes:
        platforms: Of an index, the images for these; all of it where none is named.
        foreign: Layers that their maker wants to be had from elsewhere come along.
        referrers: Whatever the source knows to be about the image comes along.
    """

    platforms: tuple[Platform, ...] = ()
    foreign: bool = False
    referrers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy came to.

    Attributes:
        root: What every target has under the name now.
        sent: Blobs that were sent, counted for each target; `mounted` were taken over from another repository
            of its registry, `present` were there.
        sent_bytes: Of those that were sent.
        about: How many documents about the image came along.
    """

    root: Document
    sent: int = 0
    mounted: int = 0
    present: int = 0
    sent_bytes: int = 0
    about: int = 0


@dataclass(slots=True)
class _Count:
    lock: threading.Lock = field(default_factory=threading.Lock)
    blobs: dict[Upload, int] = field(default_factory=lambda: dict.fromkeys(Upload, 0))
    sent_bytes: int = 0

    def add(self, how: Upload, size: int) -> None:
        with self.lock:
            self.blobs[how] += 1
            self.sent_bytes += size if how is Upload.SENT else 0


Change = Callable[[Cargo, Source, Stop], tuple[Cargo, Source]]
"""Makes another image of one, on its way: in other forms, compressed anew."""


class Copier:
    """Copies. `stop` it from any thread."""

    def __init__(self, progress: Progress, *, jobs: int) -> None:
        """Does nothing yet.

        Args:
            jobs: How many blobs move at once.
        """
        self._tell = progress
        self._jobs = jobs
        self._stop = Stop()

    def stop(self) -> None:
        """Ends the copy soon."""
        self._stop.set()

    def copy(
        self,
        source: Source,
        targets: Sequence[Target],
        selection: Selection,
        change: Change | None = None,
    ) -> Copied:
        """Copies an image.

        Raises:
            NotFound: the source has no such image, or none for a platform.
            DigestMismatch, SizeMismatch, InvalidDocument: the source is not what it says.
            RegistryError, StoreError, UsageError, Unsupported.
        """
        root = choose(source.root(), selection.platforms, source.document, source.where)
        if isinstance(root, Manifest) and selection.platforms:
            self._note_platform(source, selection)
        cargo = self._gather(source, root, selection)
        if change is not None:
            cargo, source = change(cargo, source, self._stop)
        remote = [target for target in targets if isinstance(target, RemoteTarget)]
        for number, target in enumerate(remote):
            target.come_after(remote[:number])
        count = _Count()
        try:
            for one in targets:
                one.begin(cargo, source)
            lacking = self._compare(cargo, targets)
            self._send_blobs(cargo, source, targets, lacking, count)
            self._send_documents(cargo, targets, lacking)
            for one in targets:
                one.finish(cargo.root)
        finally:
            for one in targets:
                one.abort()
        return Copied(
            root=cargo.root,
            sent=count.blobs[Upload.SENT],
            mounted=count.blobs[Upload.MOUNTED],
            present=count.blobs[Upload.PRESENT],
            sent_bytes=count.sent_bytes,
            about=len(cargo.about),
        )

    # ---- what there is -----------------------------------------------------------------------

    def _gather(self, source: Source, root: Document, selection: Selection) -> Cargo:
        documents = self._documents(source, root)
        about = self._about(source, documents) if selection.referrers else ()
        cargo = Cargo(documents=tuple(documents.values()), blobs=(), about=about)
        blobs = {blob.digest: blob for document in cargo.everything for blob in blobs_of(document)}
        if not selection.foreign:
            blobs = {digest: blob for digest, blob in blobs.items() if not blob.is_foreign}
        return replace(cargo, blobs=tuple(blobs.values()))

    def _documents(self, source: Source, root: Document) -> dict[str, Document]:
        """A document and all that it names, each once, after those that it names itself."""
        read: dict[str, Document] = {root.digest: root}
        below: Sequence[Document] = (root,)
        for _ in range(MAX_DEPTH + 1):
            named = (entry for index in below if isinstance(index, Index) for entry in index.manifests)
            entries = list({entry.digest: entry for entry in named if entry.digest not in read}.values())
            if not entries:
                return _in_order(root, read)
            if len(read) + len(entries) > MAX_DOCUMENTS:
                raise InvalidDocument(source.where, f"it names more than {MAX_DOCUMENTS} documents")
            below = self._read(source, entries, MAX_BYTES - sum(len(each.raw) for each in read.values()))
            read.update((document.digest, document) for document in below)
        raise InvalidDocument(source.where, f"more than {MAX_DEPTH} indexes are within one another")

    def _read(self, source: Source, entries: Sequence[Descriptor], most: int) -> Sequence[Document]:
        """Reads documents, side by side.

        Args:
            most: Bytes that all of them may have.
        """
        read: dict[str, Document] = {}

        def one(entry: Descriptor, halt: Stop) -> None:
            read[entry.digest] = source.document(entry)
            if sum(len(document.raw) for document in list(read.values())) > most:
                raise InvalidDocument(source.where, f"its documents have more than {MAX_BYTES} bytes")

        in_parallel(entries, one, self._jobs, self._stop)
        return [read[entry.digest] for entry in entries]

    def _about(self, source: Source, documents: Mapping[str, Document]) -> tuple[About, ...]:
        """What is about these documents, and what is about that in turn, each after its subject."""
        found: dict[str, About] = {}
        batch = list(documents)
        while batch:
            read: dict[str, Sequence[About]] = {}

            def one(digest: str, halt: Stop, read: dict[str, Sequence[About]] = read) -> None:
                read[digest] = source.about(digest)

            in_parallel(batch, one, self._jobs, self._stop)
            new = [about for digest in batch for about in read[digest]]
            batch = []
            if len(found) + len(new) > MAX_DOCUMENTS:
                raise InvalidDocument(source.where, f"more than {MAX_DOCUMENTS} documents are about it")
            for about in new:
                if about.document.digest in found or about.document.digest in documents:
                    continue
                for digest, document in self._documents(source, about.document).items():
                    own = about if digest == about.document.digest else About(document=document)
                    found.setdefault(digest, own)
                batch.append(about.document.digest)
        return tuple(found.values())

    def _note_platform(self, source: Source, selection: Selection) -> None:
        """A manifest that no index names for a platform is taken as it is: only its config would tell."""
        wanted = ", ".join(str(platform) for platform in selection.platforms)
        self._tell(Note(level="debug", text=f"{source.where} is one image, taken for {wanted}"))

    # ---- what moves --------------------------------------------------------------------------

    def _compare(self, cargo: Cargo, targets: Sequence[Target]) -> list[set[str]]:
        """For each target, the digests of the documents that it lacks, or may lack."""
        lacking: list[set[str]] = [set() for _ in targets]
        pairs = [(number, document) for number in range(len(targets)) for document in cargo.everything]
        wanted = {blob.digest for blob in cargo.blobs}

        def one(pair: tuple[int, Document], halt: Stop) -> None:
            number, document = pair
            blobs = [blob for blob in blobs_of(document) if blob.digest in wanted]
            if not targets[number].has(document, blobs):
                lacking[number].add(document.digest)

        in_parallel(pairs, one, self._jobs, self._stop)
        return lacking

    def _send_blobs(
        self,
        cargo: Cargo,
        source: Source,
        targets: Sequence[Target],
        lacking: Sequence[set[str]],
        count: _Count,
    ) -> None:
        wanted: dict[str, list[Target]] = {blob.digest: [] for blob in cargo.blobs}
        for target, digests in zip(targets, lacking, strict=True):
            needed = {
                blob.digest
                for document in cargo.everything
                if document.digest in digests
                for blob in blobs_of(document)
            }
            for blob in cargo.blobs:
                if blob.digest in needed:
                    wanted[blob.digest].append(target)
                else:
                    count.add(Upload.PRESENT, blob.size)

        def one(blob: Descriptor, halt: Stop) -> None:
            # One target after the other: those of one registry mount from the first of it.
            for target in wanted[blob.digest]:
                send = partial(target.blob, blob, source, stop=halt, progress=self._copying)
                try:
                    how = send()
                except (DigestMismatch, SizeMismatch):
                    halt.check()
                    how = send()  # a broken cache on the way may have healed
                count.add(how, blob.size)

        moving = [blob for blob in cargo.blobs if wanted[blob.digest]]
        if moving:
            in_parallel(moving, one, self._jobs, self._stop)

    def _send_documents(self, cargo: Cargo, targets: Sequence[Target], lacking: Sequence[set[str]]) -> None:
        """All but the root, which comes with its name: manifests side by side, then the indexes."""
        pairs = list(zip(targets, lacking, strict=True))
        leaves = [
            (target, document)
            for target, digests in pairs
            for document in cargo.documents[:-1]
            if document.digest in digests and isinstance(document, Manifest)
        ]

        def one(pair: tuple[Target, Document], halt: Stop) -> None:
            pair[0].document(pair[1])

        if leaves:
            in_parallel(leaves, one, self._jobs, self._stop)
        for target, digests in pairs:
            for document in cargo.documents[:-1]:
                if document.digest in digests and isinstance(document, Index):
                    target.document(document)
            if cargo.about:
                # What they are about comes first, so that a registry finds their subject.
                if cargo.root.digest in digests:
                    target.document(cargo.root)
                for about in cargo.about:
                    target.about(about)

    def _copying(self, event: Event) -> None:
        """Events of both sides are those of the copy."""
        self._tell(replace(event, action="copy") if isinstance(event, Transfer) else event)


def blobs_of(document: Document) -> tuple[Descriptor, ...]:
    """The blobs that a document names itself."""
    return () if isinstance(document, Index) else (document.config, *document.layers)


def _in_order(root: Document, read: Mapping[str, Document]) -> dict[str, Document]:
    """A document and all below it, each once, after those that it names itself."""
    ordered: dict[str, Document] = {}
    waiting = [root]
    while waiting:
        document = waiting[-1]
        entries = document.manifests if isinstance(document, Index) else ()
        below = [read[entry.digest] for entry in reversed(entries) if entry.digest not in ordered]
        if below:
            waiting += below
        else:
            ordered[waiting.pop().digest] = document
    return ordered
