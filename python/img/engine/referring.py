"""`Referrer`: a manifest that is about another one, with what is about it in turn, as a registry lists them.

`img referrers` reads a tree of them, by way of `Engine.referrers`: level by level, each level at once. What a
registry answers is bounded here, and may go in circles: a manifest is looked into once.
Source: distribution-spec v1.1, "Listing Referrers"; oras discover, for what a tree shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from img.errors import InvalidDocument, UsageError
from img.oci import Descriptor, Platform, Reference
from img.registry import Registry, Stop, in_parallel
from img.registry.faults import absent
from img.values import dataclass

CREATED = "org.opencontainers.image.created"
"""The annotation that says when something was made."""

MAX_DEPTH = 10
"""Levels of a tree, where nothing is said: signatures of attestations of images are three."""

MOST_DEPTH = 100
"""Levels that a tree may be asked to have."""

MOST_ASKED = 1000
"""Manifests of one tree of which a registry is asked what is about them."""

MOST_LISTED = 50_000
"""Manifests that one tree may name."""


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
        depth: How many levels, from 1 to `MOST_DEPTH`.
        jobs: Requests at once.
    Raises:
        UsageError: the depth is none. InvalidDocument, RegistryError.
    """
    if not 1 <= depth <= MOST_DEPTH:
        raise UsageError(f"a tree has a depth from 1 to {MOST_DEPTH}, not {depth}")
    tops = registry.referrers(subject, subject.digest, artifact_type=artifact_type)
    found: dict[str, tuple[Descriptor, ...]] = {subject.digest: tops}
    homes: dict[str, str] = {}
    level = [subject.digest]
    for _ in range(depth - 1):
        fresh: dict[str, str] = {}  # what is to be asked about, and what it is about itself
        for about in level:
            for entry in found[about]:
                if entry.digest not in found:
                    fresh.setdefault(entry.digest, about)
        level = [*fresh][: MOST_ASKED - len(found)]
        in_parallel(level, partial(_ask, registry, subject, found), jobs, None)
        homes.update((digest, fresh[digest]) for digest in level)
    return _grown(subject.digest, found, homes)


def _ask(
    registry: Registry, ref: Reference, found: dict[str, tuple[Descriptor, ...]], digest: str, stop: Stop
) -> None:
    """Thread: adds what is about one manifest.

    Raises:
        InvalidDocument: there are more in all than anybody can mean.
    """
    stop.check()
    found[digest] = registry.referrers(ref, digest)
    if sum(map(len, [*found.values()])) > MOST_LISTED:
        raise InvalidDocument(f"referrers of {ref.familiar}", f"more than {MOST_LISTED} manifests")


def _grown(
    about: str, found: Mapping[str, tuple[Descriptor, ...]], homes: dict[str, str]
) -> tuple[Referrer, ...]:
    """What is about a manifest, as a tree, no deeper than the levels in which it was asked for.

    Args:
        homes: Below what each manifest that was asked about is shown whole, once; taken out when it is.
    """
    grown = []
    for entry in found[about]:
        below = None
        if homes.get(entry.digest) == about:
            del homes[entry.digest]
            below = _grown(entry.digest, found, homes)
        grown.append(Referrer(entry=entry, referrers=below))
    return tuple(grown)


def flat(
    referrers: tuple[Referrer, ...], subject: str, depth: int = 1
) -> Iterator[tuple[Referrer, str, int]]:
    """Each of a tree with the digest that it is about and its depth; parents first."""
    for each in referrers:
        yield each, subject, depth
        yield from flat(each.referrers or (), each.entry.digest, depth + 1)
