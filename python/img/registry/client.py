"""`Registry`: the verbs of the distribution protocol, one a method.

Called by `transfer`, and by the floors above for names and documents. Whatever a method returns was verified
against the digest that was asked for. It keeps no blob and knows no store. Its methods may be called from
several threads. Source: OCI distribution-spec v1.1.
"""

from __future__ import annotations

import enum
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from img import regex
from img.errors import DigestMismatch, InvalidDocument, NotFound, RegistryError, SizeMismatch
from img.oci.descriptor import (
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    is_digest,
    sha256,
)
from img.oci.manifest import Index, Manifest, load_object, parse
from img.oci.platform import Platform
from img.oci.reference import Reference, is_tag
from img.progress import Meter, Progress, silent
from img.registry.auth import Credentials, Keychain
from img.registry.challenge import Scopes, scopes_for
from img.registry.download import Download, Sink
from img.registry.endpoint import origin
from img.registry.options import Options
from img.registry.search import choose
from img.registry.session import PartsRefused, Session
from img.registry.stop import Stop
from img.registry.stored import check_stored
from img.registry.upload import FileSource
from img.registry.wire import Wire

if TYPE_CHECKING:
    from img.registry.login import Login
    from img.registry.place import Place
    from img.registry.referrers import Referrers
    from img.registry.stream import Growing
    from img.registry.transport import Reply

__all__ = ["Options", "Registry", "Sink", "Upload"]

T = TypeVar("T")

_ACCEPT = ", ".join([*sorted(MANIFESTS), *sorted(INDEXES)])
_MAX_PAGES = 1000
_PAGE = 1000
_MAX_LINK = 4096
_MOST_MOUNTS = 4
_NEXT = regex.compile(r'<([^<>]*)>\s*;[^,]*\brel\s*=\s*"?next\b', re.IGNORECASE)
_NO_HEAD = (400, 405, 501)
"""What registries that know no HEAD answer to one."""
_DIGEST_HEADER = "Docker-Content-Digest"
_SUBJECT_HEADER = "OCI-Subject"


class Upload(enum.Enum):
    """How a blob came to be in a repository."""

    PRESENT = "present"
    MOUNTED = "mounted"
    SENT = "sent"


class Registry:
    """Speaks to registries. Opens no connection before it must."""

    def __init__(
        self, *, keychain: Keychain | None, options: Options | None = None, progress: Progress = silent
    ) -> None:
        """Prepares.

        Args:
            keychain: Where credentials are found; None is always anonymous.
            progress: Takes `Transfer` events, and a `Note` for each request that is tried again.
        """
        self._options = options or Options()
        self._progress = progress
        self._wire = Wire(keychain, self._options, progress)
        self._writing = threading.Lock()
        self._whole = set[str]()  # registries that take no blob in parts

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes idle connections. Calling it twice does nothing."""
        self._wire.close()

    def login(self, place: Place, credentials: Credentials) -> Login:
        """Shows credentials to a registry; see `img.registry.login`.

        Raises:
            Unauthorized: it does not take them. RegistryError: it cannot be reached.
        """
        from img.registry.login import login

        return login(place, credentials, self._options, self._progress)

    # ---- down ---------------------------------------------------------------------------------

    def manifest(self, ref: Reference, digest: str | None = None) -> Manifest | Index:
        """Reads a manifest or an index.

        Args:
            digest: Which one of the repository; by default what the reference names.
        Raises:
            NotFound: there is none.
            DigestMismatch: what came is not what was asked for.
            InvalidDocument: it is none, or longer than `MAX_DOCUMENT_BYTES`.
            Unauthorized, TooManyRequests, RegistryError: the registry did not give it.
        """
        wanted = digest or ref.digest
        target = wanted or ref.tag
        name = f"{ref.familiar_name}@{wanted}" if wanted else ref.familiar
        what = f"image {name}"

        def attempt() -> Manifest | Index:
            with self._get(ref, f"manifests/{target}", what, accept=_ACCEPT) as reply:
                raw = reply.document(MAX_DOCUMENT_BYTES, f"manifest of {name}")
                _refuse_page(reply, raw, f"manifest of {name}")
                stated = reply.headers.get(_DIGEST_HEADER, "")
                expected = wanted or (stated if is_digest(stated) else "")
                if expected and sha256(raw) != expected:
                    raise DigestMismatch(f"manifest of {name}", expected, sha256(raw))
                return parse(raw, reply.headers.get("Content-Type", ""), where=f"manifest of {name}")

        return self._believed(ref, attempt)

    def head(self, ref: Reference) -> Descriptor | None:
        """Asks what a reference stands for, without its document; None where there is nothing.

        Raises:
            RegistryError: as `manifest`.
        """
        what = f"image {ref.familiar}"
        url = f"manifests/{ref.target}"

        def attempt() -> Descriptor | None:
            ok, headers = (200, 404, *_NO_HEAD), {"Accept": _ACCEPT}
            with self._wire.exchange("HEAD", ref, url, what=what, ok=ok, headers=headers) as reply:
                if reply.status == 404:
                    return None
                digest, size = reply.headers.get(_DIGEST_HEADER, ""), reply.length
                kind = reply.headers.get("Content-Type", "").partition(";")[0].strip()
            if reply.status == 200 and is_digest(digest) and size and kind and ref.digest in ("", digest):
                return Descriptor(media_type=kind, digest=digest, size=size)
            try:
                return self.manifest(ref).descriptor  # a registry that says too little in its head
            except NotFound:
                return None

        return self._wire.run(attempt)

    def resolve(self, ref: Reference, platform: Platform) -> Manifest:
        """Reads the manifest of a reference for a platform, through an index where there is one.

        Raises:
            NotFound: no such image, or none for this platform; the hint lists those on offer.
            As `manifest` otherwise.
        """
        return choose(ref, self.manifest(ref), platform, lambda digest: self.manifest(ref, digest))

    def document(self, ref: Reference, descriptor: Descriptor) -> bytes:
        """Reads a small blob, such as an image's config, into memory.

        Raises:
            InvalidDocument: it is longer than `MAX_DOCUMENT_BYTES`; nothing was read.
            DigestMismatch, SizeMismatch: what came is not what was asked for.
            RegistryError: as `manifest`.
        """
        what = _blob(ref, descriptor.digest)
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise InvalidDocument(what, f"longer than {MAX_DOCUMENT_BYTES} bytes")

        def attempt() -> bytes:
            with self._get(ref, f"blobs/{descriptor.digest}", what) as reply:
                raw = reply.document(MAX_DOCUMENT_BYTES, what)
            if len(raw) != descriptor.size:
                raise SizeMismatch(descriptor.size, len(raw))
            if sha256(raw) != descriptor.digest:
                raise DigestMismatch("blob", descriptor.digest, sha256(raw))
            return raw

        return self._believed(ref, attempt)

    def blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        sink: Sink,
        *,
        stop: Stop | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Pours a blob into a sink, and leaves finishing or aborting it to the caller.

        A broken connection is resumed from `sink.offset`; so is a sink that has some bytes already. A layer
        that registries need not have comes from its descriptor's URLs, if the registry does not have it.

        Args:
            stop: Ends the transfer early.
            progress: Where events go; by default where all of this registry's go.
        Raises:
            SizeMismatch: the registry's blob has another size.
            RegistryError: as `manifest`.
            Stopped: `stop` was set.
            Whatever `sink.write` raises.
        """
        stop = stop or Stop()
        told = progress or self._progress
        meter = Meter(told, "pull", descriptor.digest, descriptor.size, ref.familiar)
        what, url = _blob(ref, descriptor.digest), f"blobs/{descriptor.digest}"

        def ask(headers: dict[str, str]) -> Reply:
            # Without Range, 416 and 206 would be nonsense: let the wire refuse them.
            ok = (200, 206, 416) if headers else (200,)
            return self._wire.exchange("GET", ref, url, what=what, ok=ok, headers=headers)

        try:
            Download(descriptor, sink, ask, meter, stop).run(self._wire.backoff(stop))
        except NotFound as absent:
            if not descriptor.is_foreign or not descriptor.urls:
                raise
            from img.registry.elsewhere import Elsewhere  # such layers are rare

            Elsewhere(self._wire, descriptor, what).pour(sink, meter, stop, absent)

    def ask_directly(self, ref: Reference) -> None:
        """Leaves mirrors out for the reference's repository from now on.

        Who changes what a registry has must read what it has now, and no copy of yesterday.
        """
        self._wire.ask_directly(ref)

    def doubt(self, ref: Reference) -> None:
        """Leaves the reference's mirrors out from now on: what came from one of them was wrong."""
        self._wire.doubt(ref)

    def tags(self, ref: Reference) -> list[str]:
        """Lists the tags of the reference's repository, all pages, in the registry's order.

        Raises:
            NotFound: there is no such repository.
            InvalidDocument: the list is none.
            RegistryError: as `manifest`.
        """

        def read(reply: Reply) -> list[str]:
            raw = reply.document(MAX_DOCUMENT_BYTES, f"tags of {ref.name}")
            _refuse_page(reply, raw, f"tags of {ref.name}")
            return _tag_names(raw, ref)

        def collect(path: str) -> list[str]:
            found: dict[str, None] = {}
            for names in self._pages(ref, path, f"repository {ref.familiar_name}", read):
                found.update(dict.fromkeys(names))
            return list(found)

        try:
            return collect(f"tags/list?n={_PAGE}")
        except RegistryError as error:
            if error.status != 400:
                raise
        return collect("tags/list")  # where pages of such a length are not to be had

    def referrers(self, ref: Reference, digest: str, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Lists the manifests of the reference's repository that name a manifest as their subject.

        Args:
            digest: The subject, which need not be there.
            artifact_type: What they have to be; empty for all.
        Raises:
            InvalidDocument: the list is none.
            RegistryError: as `manifest`.
        """
        return self._referrers.of(ref, digest, artifact_type)

    def forget_referrer(self, ref: Reference, subject: str, digest: str) -> None:
        """Takes a manifest that was deleted out of the list that clients keep where the registry keeps none.

        Raises:
            RegistryError: as `push_manifest`.
        """
        self._referrers.remove(ref, subject, digest)

    # ---- up -----------------------------------------------------------------------------------

    def has_blob(self, ref: Reference, descriptor: Descriptor, *, stop: Stop | None = None) -> bool:
        """Tells whether the reference's repository has a blob.

        Raises:
            RegistryError: as `manifest`.
        """
        what, url = _blob(ref, descriptor.digest), f"blobs/{descriptor.digest}"

        def attempt() -> bool:
            ok, scopes = (200, 404, *_NO_HEAD), _pushing(ref)
            with self._wire.exchange("HEAD", ref, url, what=what, ok=ok, scopes=scopes) as reply:
                return reply.status == 200

        return self._wire.run(attempt, stop)

    def mount_blob(self, ref: Reference, descriptor: Descriptor, from_repository: str) -> bool:
        """Makes a blob of another repository of the same registry one of this, without sending it.

        Returns:
            False where the registry would not; nothing has changed then.
        Raises:
            RegistryError: as `push_blob`.
        """
        session = self._session(ref, _blob(ref, descriptor.digest), Stop())
        mounted = session.mount(descriptor.digest, from_repository)
        session.cancel()
        return mounted

    def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],
        *,
        mount_from: tuple[str, ...] = (),
        stop: Stop | None = None,
        progress: Progress | None = None,
    ) -> Upload:
        """Sees to it that the reference's repository has a blob: there already, mounted, or sent.

        Args:
            open: Opens the blob at its start, seekable; called again for each part and attempt.
            mount_from: Repositories of the same registry that may have it, the likeliest first: a few
                are tried.
            stop: Ends the transfer early.
            progress: Where events go; by default where all of this registry's go.
        Raises:
            Unauthorized: the registry allows no push here.
            SizeMismatch: what `open` gives has another size than the descriptor.
            RegistryError: as `manifest`.
            Stopped: `stop` was set.
        """
        stop = stop or Stop()
        told = progress or self._progress
        meter = Meter(told, "push", descriptor.digest, descriptor.size, ref.familiar)
        if self.has_blob(ref, descriptor, stop=stop):
            meter.finished(Upload.PRESENT.value)
            return Upload.PRESENT
        session = self._session(ref, _blob(ref, descriptor.digest), stop)
        # Where nobody knows a repository that has it, the registry may: the question costs no request.
        for repository in [*dict.fromkeys(mount_from)][:_MOST_MOUNTS] or [""]:
            if session.mount(descriptor.digest, repository):
                meter.finished(Upload.MOUNTED.value)
                return Upload.MOUNTED
        source = FileSource(open, descriptor, meter, stop)
        part_bytes = descriptor.size if ref.registry in self._whole else self._options.part_bytes
        if not session.send(source, descriptor.size, part_bytes=part_bytes):
            self._whole.add(ref.registry)
        meter.finished(Upload.SENT.value)
        return Upload.SENT

    def check_push(self, ref: Reference, *, stop: Stop | None = None) -> None:
        """Asks whether the reference's repository takes a push, by an upload that is given back at once.

        Raises:
            Unauthorized: no push is allowed here. RegistryError: the registry takes none, as a read-only one.
        """
        self._session(ref, f"an upload to {ref.familiar_name}", stop or Stop()).check()

    def push_growing(
        self, ref: Reference, source: Growing, *, stop: Stop | None = None, progress: Progress | None = None
    ) -> bool:
        """Sends a blob while it is made, whose digest nobody knows yet.

        Args:
            stop: Ends the transfer early.
            progress: Where events go, which name the blob by its diff ID; by default where all go.
        Returns:
            False where the blob was too short for that, or came to nothing, or the registry is known to take
            no parts: the repository has nothing of it.
        Raises:
            RegistryError: the registry does not take it so; `push_blob` may still be right.
            Stopped: `stop` was set. Whatever `source` raises.
        """
        from img.registry.stream import MOST_BYTES, PART_BYTES, GrowingSource

        if ref.registry in self._whole or (source.wait(0, PART_BYTES) or 0) < PART_BYTES:
            return False
        stop = stop or Stop()
        growing = GrowingSource(source, progress or self._progress, stop, ref.familiar)
        session = self._session(ref, f"an upload to {ref.familiar_name}", stop)
        try:
            session.in_parts(growing, PART_BYTES, MOST_BYTES)
        except BaseException as error:
            growing.drop()
            if isinstance(error, PartsRefused):
                self._whole.add(ref.registry)
                raise error.error from error
            raise
        growing.finished()
        return True

    def push_manifest(self, ref: Reference, raw: bytes, media_type: str) -> str:
        """Stores a manifest or an index under the reference's tag, or under its digest where it has no tag.

        One that has a subject is in the list of that one's referrers afterwards, whoever keeps it.

        Returns:
            The document's digest.
        Raises:
            DigestMismatch: the reference names another digest, or the registry stored something else.
            RegistryError: as `push_blob`.
        """
        digest = sha256(raw)
        if ref.digest and ref.digest != digest:
            raise DigestMismatch(f"manifest of {ref.familiar}", ref.digest, digest)
        url = f"manifests/{ref.tag or digest}"
        headers, scopes = {"Content-Type": media_type}, _pushing(ref)
        what = f"image {ref.familiar}"

        def attempt() -> bool:
            with self._wire.exchange(
                "PUT", ref, url, what=what, ok=(200, 201, 202), scopes=scopes, headers=headers, body=raw
            ) as reply:
                check_stored(reply, ref.registry, f"manifest of {ref.familiar}", digest)
                return _SUBJECT_HEADER in reply.headers

        listed = self._wire.run(attempt)
        if not listed and b'"subject"' in raw:
            document = parse(raw, media_type, where=f"manifest of {ref.familiar}")
            if document.subject is not None:
                self._referrers.add(ref, document)
        return digest

    def delete(self, ref: Reference) -> None:
        """Deletes what the reference names: by digest, the manifest and every tag of it; else the tag alone.

        Raises:
            NotFound: there is none. NotOffered: the registry deletes nothing, or no tags.
            RegistryError: as `push_manifest`.
        """
        url, what = f"manifests/{ref.target}", f"image {ref.familiar}"
        scopes = scopes_for(ref.repository, "pull", "delete")

        def attempt() -> None:
            self._wire.exchange("DELETE", ref, url, what=what, ok=(200, 202, 204), scopes=scopes).close()

        self._wire.run(attempt)

    # ---- inside -------------------------------------------------------------------------------

    def _get(self, ref: Reference, path: str, what: str, *, accept: str = "*/*") -> Reply:
        return self._wire.exchange("GET", ref, path, what=what, headers={"Accept": accept})

    def _believed(self, ref: Reference, attempt: Callable[[], T]) -> T:
        """Runs `attempt`; wrong bytes are fetched once more, since a broken cache on the way may heal.

        So is what is no document, where a mirror may have given it: the registry itself decides then.
        """
        try:
            return self._wire.run(attempt)
        except (DigestMismatch, SizeMismatch):
            self._wire.doubt(ref)
        except InvalidDocument:
            if not self._wire.doubt(ref):
                raise
        return self._wire.run(attempt)

    def _pages(
        self, ref: Reference, path: str, what: str, read: Callable[[Reply], T], ok: tuple[int, ...] = (200,)
    ) -> Iterator[T]:
        """Asks for all pages of a list, and has `read` read each."""
        url, seen = path, set[str]()
        while url and url not in seen and len(seen) < _MAX_PAGES:
            seen.add(url)

            def attempt(page: str = url) -> tuple[T, str]:
                with self._wire.exchange("GET", ref, page, what=what, ok=ok) as reply:
                    return read(reply), self._next(reply)

            found, url = self._wire.run(attempt)
            yield found
        if url and url not in seen:
            raise InvalidDocument(what, f"its list has more than {_MAX_PAGES} pages")

    @property
    def _referrers(self) -> Referrers:
        from img.registry.referrers import Referrers  # few pushes have a subject

        return Referrers(self, self._pages, writing=self._writing)

    def _next(self, reply: Reply) -> str:
        """The next page of a list; empty at its end. Never one of another server.

        A registry behind a proxy may name itself by an address that only the proxy knows: what the next page
        is called there, it is called here.
        """
        match = _NEXT.search(reply.headers.get("Link", "")[:_MAX_LINK])
        if not match:
            return ""
        try:
            url = urljoin(reply.url, match[1])
            own = origin(url) == origin(reply.url)
        except ValueError:
            return ""
        query = urlsplit(url).query
        return url if own else f"{reply.url.partition('?')[0]}?{query}" if query else ""

    def _session(self, ref: Reference, what: str, stop: Stop) -> Session:
        return Session(self._wire, ref, what=what, stop=stop)


def _blob(ref: Reference, digest: str) -> str:
    return f"blob {digest} of {ref.familiar_name}"


def _refuse_page(reply: Reply, raw: bytes, what: str) -> None:
    """Ends where something that answers everything with a page for people stands in the registry's place.

    Raises:
        InvalidDocument: it does.
    """
    if reply.headers.get("Content-Type", "").lower().startswith("text/html") and raw.lstrip()[:1] == b"<":
        host = origin(reply.url)[1]
        raise InvalidDocument(what, f"{host} answers with a web page: a proxy's, or one to log in?")


def _pushing(ref: Reference) -> Scopes:
    return scopes_for(ref.repository, "pull", "push")


def _tag_names(raw: bytes, ref: Reference) -> list[str]:
    data = load_object(raw, f"tags of {ref.name}")
    names = data.get("tags") or []
    # Names end up in addresses and on terminals: what is no tag could be meant to be something else there.
    if not isinstance(names, list) or not all(isinstance(name, str) and is_tag(name) for name in names):
        raise InvalidDocument(f"tags of {ref.name}", "tags is not a list of names")
    return names
