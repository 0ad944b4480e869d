"""`Changing`: another image of one on its way: its manifests in another form, its layers compressed anew.

What is not asked for stays, as `oci/rewrite.py` has it; where nothing has to change, nothing does, and every
digest stays. A layer that is compressed anew goes through a file of the caller's scratch folder, since its
digest decides about the manifest before anything is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from img import _core
from img.errors import UsageError
from img.oci import Descriptor, Index, Manifest, Reference
from img.oci.descriptor import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
)
from img.oci.rewrite import rewrite_index, rewrite_manifest
from img.places.files import Folder, pour_file
from img.places.place import About, Cargo, Document, Source
from img.progress import Progress, Transfer
from img.registry import Sink, Stop, in_parallel
from img.values import dataclass

Packing = Literal["none", "gzip", "zstd"]

_AT_ONCE = 2
"""Layers that are compressed at once: each uses every processor."""

_FORMS: dict[str, Packing] = {
    OCI_LAYER: "none",
    DOCKER_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    DOCKER_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
}
_LAYERS: dict[Packing, str] = {"none": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for.

    Attributes:
        form: Which documents; empty leaves them.
        compression: Of plain layers; None leaves those.
        level: Of it; None for its usual one.
        force: Layers that are compressed are compressed anew as well.
    """

    form: Literal["", "oci", "docker"] = ""
    compression: Packing | None = None
    level: int | None = None
    force: bool = False


class Changing:
    """Changes one image. Call it once."""

    def __init__(self, wanted: Wanted, scratch: Callable[[], Path], progress: Progress) -> None:
        """Does nothing yet.

        Args:
            scratch: Makes an empty folder that outlives the copy.
        """
        self._wanted = wanted
        self._scratch = scratch
        self._progress = progress
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def __call__(self, cargo: Cargo, source: Source, stop: Stop) -> tuple[Cargo, Source]:
        """Gives what is sent in the place of an image.

        Raises:
            Unsupported: the form has no place for what is in there. UsageError: something is about digests
            that would change. DigestMismatch, SizeMismatch: the source has other bytes.
        """
        layers = self._packed(cargo, source, stop)
        changed: dict[str, Document] = {}
        documents = []
        for document in cargo.documents:
            made = self._written(document, layers, changed)
            if made is not document:
                changed[document.digest] = made
            documents.append(made)
        if not changed:
            return cargo, source
        if cargo.about:
            raise UsageError(
                f"{len(cargo.about)} documents are about digests that would change",
                hint="leave out --with-referrers, or what changes the image",
            )
        blobs = {
            blob.digest: blob
            for document in documents
            if isinstance(document, Manifest)
            for blob in (document.config, *document.layers)
        }
        came = {blob.digest for blob in cargo.blobs}
        kept = [b for b in blobs.values() if b.digest in came or self._has(b)]
        return Cargo(documents=tuple(documents), blobs=tuple(kept)), _Changed(source, self._folder)

    # ---- layers ------------------------------------------------------------------------------

    def _packed(self, cargo: Cargo, source: Source, stop: Stop) -> dict[str, Descriptor]:
        """Compresses the layers that want it; gives the new ones by the old ones' digests."""
        todo = {
            layer.digest: layer
            for document in cargo.documents
            if isinstance(document, Manifest) and document.is_image
            for layer in document.layers
            if self._wants(layer)
        }
        found: dict[str, Descriptor] = {}

        def one(layer: Descriptor, halt: Stop) -> None:
            made = self._pack(layer, source, halt)
            with self._lock:
                found[layer.digest] = made

        if todo:
            self._folder = self._scratch()
            in_parallel(list(todo.values()), one, _AT_ONCE, stop)
        return found

    def _wants(self, layer: Descriptor) -> bool:
        now = _FORMS.get(layer.media_type)
        form = self._wanted.compression or ("gzip" if self._wanted.force or self._wanted.level else None)
        if now is None or form is None:
            return False
        if now == "none":
            return form != "none"
        return self._wanted.force and (form != now or self._wanted.level is not None)

    def _pack(self, layer: Descriptor, source: Source, stop: Stop) -> Descriptor:
        assert self._folder is not None  # made before the first of them
        came = self._folder / f"{layer.hex}.came"
        sink = _core.BlobSink(str(came), digest=layer.digest, size=layer.size)
        try:
            source.pour(layer, sink, stop=stop, progress=self._progress)
            sink.finish()
        finally:
            sink.abort()
        form = self._wanted.compression or "gzip"
        made = self._folder / f"{layer.hex}.made"
        packed = _core.pack_blob(str(came), str(made), compression=form, level=self._wanted.level)
        came.unlink()
        made.rename(self._folder / packed.digest.partition(":")[2])
        self._progress(
            Transfer(action="compress", digest=packed.digest, done_bytes=packed.size, total_bytes=packed.size)
        )
        return Descriptor(media_type=_LAYERS[form], digest=packed.digest, size=packed.size)

    def _has(self, blob: Descriptor) -> bool:
        return self._folder is not None and (self._folder / blob.hex).is_file()

    # ---- documents ---------------------------------------------------------------------------

    def _written(
        self, document: Document, layers: dict[str, Descriptor], changed: dict[str, Document]
    ) -> Document:
        form = self._wanted.form or None
        if isinstance(document, Index):
            entries = {digest: made.descriptor for digest, made in changed.items()}
            return rewrite_index(document, form=form, entries=entries)
        blobs = [layers.get(layer.digest, layer) for layer in document.layers] if document.is_image else None
        return rewrite_manifest(document, form=form, layers=blobs)


class _Changed:
    """A source of which some blobs are files of ours."""

    verbatim = False

    def __init__(self, source: Source, folder: Path | None) -> None:
        self._source = source
        self._files = Folder(folder) if folder is not None else None
        self.where = source.where

    def homes(self, digest: str) -> Sequence[Reference]:
        return self._source.homes(digest)

    @property
    def names(self) -> tuple[Reference, ...]:
        return self._source.names

    def root(self) -> Document:
        return self._source.root()

    def document(self, descriptor: Descriptor) -> Document:
        return self._source.document(descriptor)

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        if self._files is not None and self._files.size(blob.hex) is not None:
            pour_file(self._files, blob.hex, blob, sink, stop=stop, progress=progress)
        else:
            self._source.pour(blob, sink, stop=stop, progress=progress)

    def about(self, digest: str) -> Sequence[About]:
        return ()

    def close(self) -> None:
        self._source.close()
