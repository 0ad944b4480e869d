"""`Reference`: the name of an image, `registry/repository[:tag][@digest]`.

Names are normalised as Docker does: `alpine` is `docker.io/library/alpine:latest`. `misspelled` says what is
wrong with a text that is no name. Whatever is taken here, other tools take as well.
Source: the grammar at the head of distribution's `reference` package; distribution-spec v1.1, "Pulling
manifests", for repository and tag, and for the limit of 255.
"""

from __future__ import annotations

from img import regex
from img.oci.descriptor import is_digest
from img.values import dataclass, replace

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MOST_NAME = 255
"""Characters of registry, slash and repository together, beyond which clients do not go."""

COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REPOSITORY = regex.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
_TAG = regex.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = regex.compile(rf"(?:\[[0-9a-fA-F:]+\]|{LABEL}(?:\.{LABEL})*)(?::([0-9]{{1,5}}))?")
_IDENTIFIER = regex.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A parsed image name. At least one of `tag` and `digest` is set."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads a name as people write it.

        Raises:
            InvalidReference: with the reason and its place, and with what may have been meant.
        """
        found = cls.read(text)
        if found is None:
            from img.oci.misspelled import explain  # only a mistake pays for this import

            raise explain(text)
        return found

    @classmethod
    def read(cls, text: str) -> Reference | None:
        """As `parse`; None where the text is no name."""
        rest, at, digest = text.partition("@")
        registry, repository = split_registry(rest)
        repository, tag = split_tag(repository)
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        if (
            (at and not is_digest(digest))
            or (tag is not None and not is_tag(tag))
            or not is_registry(registry)
            or not _REPOSITORY.fullmatch(repository)
            or len(registry) + 1 + len(repository) > MOST_NAME
            or _IDENTIFIER.fullmatch(text)
        ):
            return None
        return cls(
            registry=registry,
            repository=repository,
            tag=tag or ("" if digest else DEFAULT_TAG),
            digest=digest,
        )

    def __str__(self) -> str:
        """The full, normalised name."""
        return f"{self.name}{self.suffix}"

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def suffix(self) -> str:
        """`:tag`, `@digest` or both."""
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar_name(self) -> str:
        """The name as people write it: without `docker.io/library/` or `docker.io/`, where that is clear."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix("library/")
        if "/" in short:
            short = self.repository
        clear = split_registry(short)[0] == DEFAULT_REGISTRY and not _IDENTIFIER.fullmatch(short)
        return short if clear else self.name

    @property
    def familiar(self) -> str:
        """The short form, with tag and digest."""
        return self.familiar_name + self.suffix

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> Reference:
        """The same name pinned to a digest."""
        return replace(self, digest=digest)


def split_registry(text: str) -> tuple[str, str]:
    """Tells the registry by Docker's rule: the first part holds '.', ':' or a capital, or is `localhost`."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return DEFAULT_REGISTRY if first == "index.docker.io" else first, rest
    return DEFAULT_REGISTRY, text


def is_tag(text: str) -> bool:
    """Tells whether a text can be a tag."""
    return _TAG.fullmatch(text) is not None


def split_tag(text: str) -> tuple[str, str | None]:
    """Parts a repository and its tag; None where there is no colon."""
    head, colon, tag = text.rpartition(":")
    if colon and "/" not in tag:
        return head, tag
    return text, None


def is_registry(text: str) -> bool:
    """Tells whether a text is a host's name or address, with or without a port."""
    match = _REGISTRY.fullmatch(text)
    return match is not None and int(match[1] or 0) <= 65535
