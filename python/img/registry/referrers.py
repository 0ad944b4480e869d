"""`Referrers`: which manifests of a repository name a subject, as the registry lists them or a tag does.

`Registry.referrers` and `Registry.push_manifest` call it. A registry that knows of subjects lists referrers
itself. For one that does not, clients keep the list: an index under a tag made of the subject's digest, which
is read, changed and written by whoever pushes. The protocol has no way to write only what nobody changed
meanwhile, so what was written is read again after a while, and written again where another's writing took it
away. A writer that had read before gets that while to write: as long as reading and writing just took here.
Two writers find each other out, unless one of them is much slower than the other between its own two.
Source: distribution-spec v1.1, "Listing Referrers", "Referrers Tag Schema", "Pushing Manifests with Subject".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from img.errors import InvalidDocument, NotFound, RegistryError
from img.oci.descriptor import MAX_DOCUMENT_BYTES, OCI_INDEX, Descriptor
from img.oci.manifest import Index, Manifest, parse
from img.oci.reference import Reference
from img.values import replace

if TYPE_CHECKING:
    from img.registry.client import Registry
    from img.registry.transport import Reply

NO_SUCH_LIST = (400, 404, 405, 406, 501)
"""What registries answer where they know no such path; those before the specification vary."""

_MOST = 20_000
"""Referrers of one manifest, over all pages."""

_ATTEMPTS = 5
"""How often a list is written before it is given up that others write it, too."""

_LONGEST_SECONDS = 2.0
"""How long other writers are waited for, at most."""

Read = Callable[["Reply"], "Index | None"]
Pages = Callable[[Reference, str, str, Read, "tuple[int, ...]"], Iterator["Index | None"]]
"""Asks for all pages of a list: path below the repository, what is asked for, what reads a page, and the
statuses that are an answer."""


def tag_of(digest: str) -> str:
    """The tag under which clients keep the list of a manifest's referrers."""
    return digest.replace(":", "-", 1)


def entry_of(document: Manifest | Index) -> Descriptor:
    """How a list of referrers names a manifest: with what it is, and its annotations."""
    kind = document.kind if isinstance(document, Manifest) else document.artifact_type
    return replace(document.descriptor, artifact_type=kind, annotations=dict(document.annotations))


class Referrers:
    """The referrers in the repositories of one client's registries."""

    def __init__(
        self,
        registry: Registry,
        pages: Pages,
        *,
        writing: threading.Lock,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Asks nothing yet.

        Args:
            writing: Held while a list is written: threads of one client take turns.
            wait: Lets seconds pass before what was written is read again.
        """
        self._registry = registry
        self._pages = pages
        self._writing = writing
        self._wait = wait

    def of(self, ref: Reference, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """See `Registry.referrers`."""
        listed = self._listed(ref, digest, artifact_type)
        found = self._kept(ref, digest).manifests if listed is None else listed
        once = {entry.digest: entry for entry in found}
        return tuple(e for e in once.values() if artifact_type in ("", e.artifact_type))

    def add(self, ref: Reference, document: Manifest | Index) -> None:
        """Writes a manifest into the list of its subject's referrers that clients keep.

        Raises:
            RegistryError: the list cannot be written, or others took it away each time.
            InvalidDocument: the tag is of something else.
        """
        assert document.subject is not None
        entry = entry_of(document)
        self._change(ref, document.subject.digest, lambda kept: kept.with_manifest(entry))

    def remove(self, ref: Reference, subject: str, digest: str) -> None:
        """Takes a manifest out of the list that clients keep of its subject's referrers.

        Raises:
            As `add`.
        """
        self._change(ref, subject, lambda kept: kept.without(digest))

    # ---- the registry's own list -------------------------------------------------------------

    def _listed(self, ref: Reference, digest: str, artifact_type: str) -> list[Descriptor] | None:
        """What the registry lists; None where it does not know how."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        what = f"referrers of {ref.familiar_name}@{digest}"

        def read(reply: Reply) -> Index | None:
            kind = reply.headers.get("Content-Type", "").partition(";")[0].strip()
            if reply.status != 200 or kind != OCI_INDEX:
                return None
            document = parse(reply.document(MAX_DOCUMENT_BYTES, what), kind, where=what)
            return document if isinstance(document, Index) else None

        found: list[Descriptor] = []
        for page in self._pages(ref, f"referrers/{digest}{query}", what, read, (200, *NO_SUCH_LIST)):
            if page is None:
                return None
            found += page.manifests
            if len(found) > _MOST:
                raise InvalidDocument(what, f"there are more than {_MOST}")
        return found

    # ---- the list under a tag ----------------------------------------------------------------

    def _kept(self, ref: Reference, digest: str) -> Index:
        """The list that clients keep; an empty one where there is none."""
        at = replace(ref, tag=tag_of(digest), digest="")
        try:
            document = self._registry.manifest(at)
        except NotFound:
            return Index.make(())
        if not isinstance(document, Index):
            raise InvalidDocument(
                at.familiar, "it should be the list of what refers to a manifest, and is none"
            )
        # What else it says is dropped: a subject of its own would have it listed somewhere else again.
        return Index.make(document.manifests, annotations=document.annotations)

    def _change(self, ref: Reference, subject: str, change: Callable[[Index], Index]) -> None:
        self._registry.ask_directly(ref)
        with self._writing:
            self._change_alone(ref, subject, change)

    def _change_alone(self, ref: Reference, subject: str, change: Callable[[Index], Index]) -> None:
        at = replace(ref, tag=tag_of(subject), digest="")
        for _ in range(_ATTEMPTS):
            began = time.monotonic()
            kept = self._kept(ref, subject)
            changed = change(kept)
            if changed == kept:
                return
            if len(changed.raw) > MAX_DOCUMENT_BYTES:
                raise InvalidDocument(
                    at.familiar, f"longer than {MAX_DOCUMENT_BYTES} bytes with one more entry"
                )
            self._registry.push_manifest(at, changed.raw, changed.media_type)
            self._wait(min(time.monotonic() - began, _LONGEST_SECONDS))
        kept = self._kept(ref, subject)
        if change(kept) != kept:
            raise RegistryError(
                f"{at.familiar} is changed by others each time that it is written",
                method="PUT",
                url="",
                hint="push the same again once they are done: nothing else is missing",
            )
