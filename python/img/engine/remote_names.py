"""`names_at`, `delete_names`: what a registry's repository has for names, and how they go.

To delete a manifest by its digest takes every tag of it away: that is done only where no other tag stands for
it, or where the caller says so. Source: OCI distribution-spec v1.1, "Listing Tags", "Deleting tags",
"Deleting Manifests".
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from img.errors import NotFound, NotOffered, RegistryError, UsageError
from img.oci import Reference
from img.oci.location import Location
from img.progress import Progress
from img.registry import Stop, in_parallel
from img.registry.faults import absent
from img.values import dataclass, replace

if TYPE_CHECKING:
    from img.engine import Engine
    from img.registry import Registry

_NO_TAG = frozenset({400, 404, 405, 415, 501})
"""What registries answer that delete by digest alone: to them a tag is a digest that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """One name that was deleted.

    Attributes:
        name: As it was given, in full.
        digest: What it stood for.
        tags: The tags that went with it, its own among them.
        manifest: The manifest went, and not the tag alone.
    """

    name: str
    digest: str
    tags: tuple[str, ...]
    manifest: bool


def names_at(engine: Engine, text: str, progress: Progress) -> list[str]:
    """The tags of a repository, in the registry's order; the names that another place has.

    Raises:
        UsageError: one image is named, and no repository; or the place has no names.
    """
    location = Location.parse(text)
    if location.transport in ("docker", "img"):
        reference = location.reference
        assert reference is not None  # as `Location` says
        _refuse_tag(text, reference)
        if location.transport == "docker":
            return engine.registry().tags(reference)
        named = (Reference.parse(row.name) for row in engine.store.names.all() if row.named)
        return [name.tag for name in named if name.name == reference.name and name.tag]
    if location.transport == "dir":
        raise UsageError(f"{text} has one image, which has no name")
    return _names_in(engine, location, progress)


def _refuse_tag(text: str, reference: Reference) -> None:
    last = text.rpartition("/")[2]
    given = reference.digest or (reference.tag if ":" in last.removeprefix("img:") else "")
    if given:
        hint = f"write {reference.familiar_name}"
        raise UsageError(f"tags are listed of a repository, and {text} is one image", hint=hint)


def _names_in(engine: Engine, location: Location, progress: Progress) -> list[str]:
    """The names in a layout or an archive."""
    from contextlib import ExitStack

    from img.engine.copying import Places
    from img.places.docker_archive import read_list
    from img.places.layout import entries_of
    from img.places.place import FULL_NAME, REF_NAME

    with ExitStack() as held:
        files = Places(engine, progress, held, cwd=".", jobs=1).files(location)
        if location.transport == "docker-archive":
            return [tag.familiar for image in read_list(files) for tag in image.tags]
        notes = [entry.annotations for entry in entries_of(files)]
        words = (note.get(REF_NAME) or note.get(FULL_NAME, "") for note in notes)
        return [word for word in words if word]


def digests_of(
    registry: Registry, reference: Reference, tags: Sequence[str], *, jobs: int, stop: Stop | None = None
) -> dict[str, str]:
    """What tags of a repository stand for; one that went meanwhile is left out."""
    found: dict[str, str] = {}
    lock = threading.Lock()

    def one(tag: str, halt: Stop) -> None:
        described = registry.head(replace(reference, tag=tag, digest=""))
        if described is not None:
            with lock:
                found[tag] = described.digest

    if tags:
        in_parallel(list(tags), one, jobs, stop)
    return {tag: found[tag] for tag in tags if tag in found}


def delete_names(
    registry: Registry, names: Sequence[str], *, force: bool, tag_only: bool, jobs: int
) -> list[Deleted]:
    """Deletes names from registries; see `Engine.delete_remote`."""
    references = [_registrys(name) for name in names]
    for reference in references:
        registry.ask_directly(reference)
    done = []
    for repository in dict.fromkeys(reference.name for reference in references):
        named = [reference for reference in references if reference.name == repository]
        if tag_only:
            done += [_untag(registry, reference) for reference in dict.fromkeys(named)]
        else:
            done += _delete(registry, named, force=force, jobs=jobs)
    return done


def _registrys(text: str) -> Reference:
    location = Location.parse(text)
    if location.transport != "docker" or location.reference is None:
        near = text.removeprefix("img:")
        hint = f"img rm {near} removes it from the store" if near != text else ""
        raise UsageError(f"{text} is in no registry", hint=hint)
    return location.reference


def _delete(registry: Registry, named: Sequence[Reference], *, force: bool, jobs: int) -> list[Deleted]:
    """Deletes what names of one repository stand for."""
    digests: dict[str, list[Reference]] = {}
    for reference in named:
        described = registry.head(reference)
        if described is None:
            raise absent(reference)
        digests.setdefault(described.digest, []).append(reference)
    all_tags = _all_tags(registry, named[0])
    known = digests_of(registry, named[0], all_tags, jobs=jobs)
    done = []
    for digest, references in digests.items():
        own = [reference.tag for reference in references if reference.tag]
        tags = [tag for tag, of in known.items() if of == digest]
        others = [tag for tag in tags if tag not in own]
        if others and not force:
            done += _keep_others(registry, references, digest, others)
            continue
        _delete_manifest(registry, replace(references[0], tag="", digest=digest))
        everything = tuple(dict.fromkeys([*own, *tags]))
        done += [
            Deleted(name=str(reference), digest=digest, tags=everything, manifest=True)
            for reference in references
        ]
    return done


def _delete_manifest(registry: Registry, reference: Reference) -> None:
    """Deletes a manifest; where clients keep the list of its subject's referrers, it is taken out of that."""
    subject = registry.manifest(reference).subject
    try:
        registry.delete(reference)
    except NotOffered as error:
        error.hint = (
            "the registry's owner has turned deletion off, or never on: docker-registry wants "
            "REGISTRY_STORAGE_DELETE_ENABLED=true"
        )
        raise
    if subject is not None:
        registry.forget_referrer(reference, subject.digest, reference.digest)


def _all_tags(registry: Registry, reference: Reference) -> list[str]:
    try:
        return registry.tags(reference)
    except NotFound:
        return []  # a repository of which every manifest is untagged


def _keep_others(
    registry: Registry, references: Sequence[Reference], digest: str, others: Sequence[str]
) -> list[Deleted]:
    """Deletes tags alone, where the registry can: others stand for the same manifest."""
    name = references[0].familiar_name
    listed = ", ".join(f"{name}:{tag}" for tag in others[:5]) + (", …" if len(others) > 5 else "")
    they = "those names" if others[1:] else "that name"
    shared = f"{digest} is {listed} as well, and to delete it takes {they}"
    hint = "--force deletes them all"
    if any(not reference.tag or reference.digest for reference in references):
        raise UsageError(shared, hint=hint)
    try:
        return [_untag(registry, reference) for reference in references]
    except NotOffered as error:
        raise UsageError(f"{shared}; {references[0].registry} deletes no tag alone", hint=hint) from error


def _untag(registry: Registry, reference: Reference) -> Deleted:
    """Deletes one tag, and leaves what it stands for.

    Raises:
        NotOffered: the registry deletes by digest alone.
    """
    if not reference.tag or reference.digest:
        raise UsageError(f"{reference.familiar} names a digest, and no tag")
    described = registry.head(reference)
    if described is None:
        raise absent(reference)
    try:
        registry.delete(reference)
    except RegistryError as error:
        if error.status not in _NO_TAG:
            raise
        raise NotOffered(
            f"{reference.registry} deletes no tag alone",
            method=error.method,
            url=error.url,
            status=error.status,
            codes=error.codes,
            hint="without --tag-only, the manifest goes with it",
        ) from error
    return Deleted(name=str(reference), digest=described.digest, tags=(reference.tag,), manifest=False)
