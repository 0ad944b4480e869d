"""`Reference`: the name of an image, `registry/repository[:tag][@digest]`.

Names are normalised as Docker does: `alpine` is `docker.io/library/alpine:latest`.
Source: distribution-spec v1.1, "Pulling manifests", for the grammar of repository and tag.
"""

from __future__ import annotations

from img import regex
from img.errors import InvalidReference
from img.oci.descriptor import is_digest
from img.values import dataclass, replace

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = regex.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = regex.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = regex.compile(
    r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*)(?::[0-9]{1,5})?"
)


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
            InvalidReference: with the reason, and with what would be valid where that is plain.
        """
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise InvalidReference(text, "what follows @ is not sha256:<64 hexadecimal digits>")
        registry, repository = _split_registry(rest)
        repository, tag = _split_tag(repository)
        if not repository:
            raise InvalidReference(text, "the repository is empty")
        if tag is not None and not _TAG.fullmatch(tag):
            raise InvalidReference(
                text, f"the tag {tag!r} may hold letters, digits, '_', '.' and '-', up to 128"
            )
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        if not _REGISTRY.fullmatch(registry):
            raise InvalidReference(text, f"{registry!r} is not a host name with an optional port")
        if not _REPOSITORY.fullmatch(repository):
            reason = "a repository is lower-case letters and digits, parted by '.', '_', '-' and '/'"
            if _REPOSITORY.fullmatch(repository.lower()):
                reason += f"; did you mean {repository.lower()!r}?"
            raise InvalidReference(text, reason)
        if len(repository) > 255:
            raise InvalidReference(text, "the repository is longer than 255 characters")
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
        return short if _split_registry(short)[0] == DEFAULT_REGISTRY else self.name

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


def _split_registry(text: str) -> tuple[str, str]:
    """Tells the registry by Docker's rule: the first part holds '.' or ':' or is `localhost`."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        registry = DEFAULT_REGISTRY if first in ("index.docker.io", "registry-1.docker.io") else first
        return registry, rest
    return DEFAULT_REGISTRY, text


def _split_tag(text: str) -> tuple[str, str | None]:
    head, colon, tag = text.rpartition(":")
    if colon and "/" not in tag:
        return head, tag
    return text, None
