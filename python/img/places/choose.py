"""`choose`: which part of an index is copied, where not all of it is. Pure.

One platform is its manifest; several are an index with their entries alone, and with what is said about those
(BuildKit's attestations). Entries stay as they are, down to fields that nobody here knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from img.errors import InvalidDocument, NotFound
from img.oci import Descriptor, Index, Manifest, Platform, parse
from img.oci.manifest import ABOUT, dump, load_object
from img.places.place import Document
from img.registry.search import Search


def choose(
    root: Document, platforms: Sequence[Platform], read: Callable[[Descriptor], Document], where: str
) -> Document:
    """The part of a document that is for these platforms; all of it, where none is named.

    Args:
        read: Reads a document that the root names.
    Raises:
        NotFound: one of them is not on offer; the hint lists those that are.
    """
    if not platforms or isinstance(root, Manifest):
        return root
    if len(platforms) == 1:
        known = {entry.digest: entry for entry in root.manifests}

        def reading(digest: str) -> Document:
            return read(known.get(digest) or Descriptor(media_type="", digest=digest, size=0))

        search = Search(platforms[0], reading)
        found = search.within(root)
        if found is None:
            raise _absent(root, platforms[0], where)
        return found
    wanted = []
    for platform in platforms:
        entry = root.choose(platform)
        if entry is None:
            raise _absent(root, platform, where)
        wanted += [variant.digest for variant in root.variants(entry)]
    kept = set(wanted)
    entries = load_object(root.raw, where).get("manifests")
    listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    staying = [entry for entry in listed if _stays(entry, kept)]
    if len(staying) == len(root.manifests):
        return root
    part = {**load_object(root.raw, where), "manifests": staying}
    made = parse(dump(part), root.media_type, where=where)
    if not isinstance(made, Index):
        raise InvalidDocument(where, "a part of its index is no index")
    return made


def _stays(entry: dict[str, object], kept: set[str]) -> bool:
    notes = entry.get("annotations")
    about = notes.get(ABOUT) if isinstance(notes, dict) else None
    return entry.get("digest") in kept or about in kept


def _absent(root: Index, platform: Platform, where: str) -> NotFound:
    offered = ", ".join(sorted({str(p) for p in root.platforms})) or "nothing that names its platform"
    return NotFound(f"{where} has no image for {platform}", hint=f"on offer: {offered}")
