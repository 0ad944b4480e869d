"""`Referrer`: a manifest that is about another one, with what is about it in turn, as a registry lists them.

`img referrers` reads a tree of them, by way of `Engine.referrers`: level by level, each level at once. What a
registry answers is bounded here, and may go in circles: a manifest is looked into once.
Source: distribution-spec v1.1, "Listing Referrers"; oras discover, for what a tree shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from img.errors import UsageError
from img.oci import Descriptor, Platform, Reference
from img.registry import Registry, Stop, in_parallel
from img.registry.faults import absent
from img.values import dataclass

CREATED = "org.opencontainers.image.created"
"""The annotation that says when something was made."""

MAX_DEPTH = 10
"""Levels of a tree, where nothing is said: signatures of attestations of images are three."""

MOST_ASKED = 1000
"""Manifests of one tree of which a registry is asked what is about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """A manifest that names another one as its subject.

    Attributes:
        entry: As the registry lists it: type, digest, size, annotations.
        referrers: What is about it; None where nobody asked: it is deeper than was wanted, there were too
            many, or it stands elsewhere in the tree already.
    """

    entry: Descriptor
    referrers: tuple[Referrer, ...] | None = None

    @property
    def kind(self) -> str:
        """What it is."""
        return self.entry.artifact_type or self.entry.media_type

    @property
    def created(self) -> str:
        """When it was made, as it says itself; empty where it says nothing."""
        return self.entry.annotations.get(CREATED, "")

    def to_json(self) -> dict[str, object]:
        """The fields, those below nested; without `referrers` where nobody asked."""
        data: dict[str, object] = {
            "artifact_type": self.entry.artifact_type,
            "media_type": self.entry.media_type,
            "digest": self.entry.digest,
            "size": self.entry.size,
            "created": self.created,
            "annotations": dict(self.entry.annotations),
        }
        if self.referrers is not None:
            data["referrers"] = [below.to_json() for below in self.referrers]
        return data


def subject_of(registry: Registry, name: str, platform: str = "") -> Reference:
    """The manifest that a name means at its registry, by its digest.

    Args:
        platform: The image for which platform; empty for what the name stands for itself.
    Raises:
        NotFound: there is none. UsageError, RegistryError.
    """
    reference = Reference.parse(name.removeprefix("docker://"))
    if platform:
        return reference.with_digest(registry.resolve(reference, Platform.parse(platform)).digest)
    if reference.digest:
        return reference  # which need not be there itself
    found = registry.head(reference)
    if found is None:
        raise absent(reference)
    return reference.with_digest(found.digest)


def referrers_of(
    registry: Registry, subject: Reference, *, artifact_type: str = "", depth: int = 1, jobs: int = 4
) -> tuple[Referrer, ...]:
    """What is about a manifest, and what is about that, and so on.

    Args:
        subject: With its digest.
        artifact_type: What those are that are about the subject itself; what is about them may be anything.
        depth: How many levels, at least 1.
        jobs: Requests at once.
    Raises:
        UsageError: the depth is none. InvalidDocument, RegistryError.
    """
    if depth < 1:
        raise UsageError(f"a tree has a depth of 1 or more, not {depth}")
    tops = registry.referrers(subject, subject.digest, artifact_type=artifact_type)
    found: dict[str, tuple[Descriptor, ...]] = {subject.digest: tops}
    level = list(tops)
    for _ in range(depth - 1):
        fresh = dict.fromkeys(entry.digest for entry in level if entry.digest not in found)
        asked = [*fresh][: MOST_ASKED - len(found)]
        answers: dict[str, tuple[Descriptor, ...]] = {}
        in_parallel(asked, partial(_ask, registry, subject, answers), jobs, None)
        found.update((digest, answers[digest]) for digest in asked)
        level = [entry for digest in asked for entry in answers[digest]]
    return _grown(tops, found, {subject.digest})


def _ask(
    registry: Registry, ref: Reference, answers: dict[str, tuple[Descriptor, ...]], digest: str, stop: Stop
) -> None:
    stop.check()
    answers[digest] = registry.referrers(ref, digest)


def _grown(
    entries: tuple[Descriptor, ...], found: Mapping[str, tuple[Descriptor, ...]], shown: set[str]
) -> tuple[Referrer, ...]:
    """The tree of what was found; `shown` are the digests whose branch stands somewhere already."""
    grown = []
    for entry in entries:
        below = None
        if entry.digest in found and entry.digest not in shown:
            shown.add(entry.digest)
            below = _grown(found[entry.digest], found, shown)
        grown.append(Referrer(entry=entry, referrers=below))
    return tuple(grown)


def flat(
    referrers: tuple[Referrer, ...], subject: str, depth: int = 1
) -> Iterator[tuple[Referrer, str, int]]:
    """Each of a tree with the digest that it is about and its depth; parents first."""
    for each in referrers:
        yield each, subject, depth
        yield from flat(each.referrers or (), each.entry.digest, depth + 1)
