"""`Location`: where an image is or goes, by prefix: a registry, an archive, a layout, a folder, or the store.

    docker://REF, or a bare REF      a registry
    oci:PATH[:REF|:@N][@DIGEST]      an OCI image layout, as a folder
    oci-archive:PATH[:REF|:@N]       one as a tar
    docker-archive:PATH[:REF|:@N]    what `docker save` writes
    dir:PATH                         loose files, as skopeo has them
    img:REF                          img's own store

Prefixes and what follows them are those of skopeo; `img:` is our own. Pure: nothing here looks at the disk.
Source: containers-transports(5).
"""

from __future__ import annotations

from typing import Literal, get_args

from img import regex
from img.errors import InvalidReference, without_password
from img.oci.reference import Reference
from img.values import dataclass

Transport = Literal["docker", "oci", "oci-archive", "docker-archive", "dir", "img"]
"""What stands before the colon."""

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
ARCHIVES = frozenset({"oci-archive", "docker-archive"})

_PREFIX = regex.compile(r"([a-z][a-z-]*):(.*)")
_DIGEST = regex.compile(r"(.*)@(sha256:[0-9a-f]{64})")
_REF = regex.compile(r"[A-Za-z0-9]+(?:(?:--|[-._:@/+])[A-Za-z0-9]+)*")
_NUMBER = regex.compile(r"@(\d{1,9})")
_FOREIGN = {
    "docker-daemon": "docker save writes an archive, which docker-archive:FILE reads",
    "containers-storage": "podman save --format oci-archive writes one, which oci-archive:FILE reads",
    "oci-layout": "an OCI image layout is oci:PATH",
    "docker-image": "a registry's image is docker://NAME, or NAME alone",
    "ostree": "skopeo copies from there to oci:PATH",
    "sif": "skopeo copies from there to oci:PATH",
    "tarball": "img build packs files: FROM scratch, ADD FILE.tar /",
}
"""Prefixes of other tools, and what to do about each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """One place and, where that holds several images, which one.

    Attributes:
        path: File or folder, as given; empty for a registry and the store.
        reference: The image's name, where the place goes by names: a registry, the store, and docker's
            archives, which may have none.
        ref: A layout's own word for an image (`org.opencontainers.image.ref.name`), or empty.
        digest: A layout's image by digest, or empty.
        number: Which image of the place, from 0, in place of a name; or None.
        written: It came with a prefix.
    """

    transport: Transport
    path: str = ""
    reference: Reference | None = None
    ref: str = ""
    digest: str = ""
    number: int | None = None
    written: bool = True

    @classmethod
    def parse(cls, text: str) -> Location:
        """Reads what people write.

        Raises:
            InvalidReference: it is no place, with what may have been meant.
        """
        match = _PREFIX.fullmatch(text)
        prefix, rest = (match[1], match[2]) if match else ("", text)
        if prefix == "docker" and rest.startswith("//"):
            return cls(transport="docker", reference=_named(text, rest[2:], len("docker://")))
        if prefix == "img":
            return cls(transport="img", reference=_named(text, rest, len("img:")))
        if prefix in ("oci", "dir") or prefix in ARCHIVES:
            return _of_path(text, prefix, rest)  # type: ignore[arg-type]
        if match:
            _refuse(text, prefix, rest)
        return cls(transport="docker", reference=Reference.parse(text), written=False)

    def __str__(self) -> str:
        """As it is written, with its prefix, names in full."""
        if self.transport == "docker":
            return f"docker://{self.reference}"
        if self.transport == "img":
            return f"img:{self.reference}"
        name = f":{self.reference}" if self.reference else f":{self.ref}" if self.ref else ""
        number = f":@{self.number}" if self.number is not None else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.transport}:{self.path}{name}{number}{digest}"

    @property
    def familiar(self) -> str:
        """For people: a registry's image by its short name, without a prefix."""
        if self.transport == "docker" and self.reference is not None:
            return self.reference.familiar
        if self.transport == "img" and self.reference is not None:
            return f"img:{self.reference.familiar}"
        return str(self)


def has_prefix(text: str) -> bool:
    """Tells whether a text names its transport: `docker://`, `oci:` and their kin."""
    match = _PREFIX.fullmatch(text)
    return match is not None and (match[1] in TRANSPORTS[1:] or text.startswith("docker://"))


def _named(text: str, name: str, start: int) -> Reference:
    """Reads a name that follows a prefix; a mistake is shown in the whole text."""
    try:
        return Reference.parse(name)
    except InvalidReference as error:
        at = error.at + start if error.at >= 0 else -1
        raise InvalidReference(text, error.reason, at, error.hint) from error


def _of_path(text: str, prefix: Transport, rest: str) -> Location:
    """`PATH`, and what may follow its first colon."""
    digest = _DIGEST.fullmatch(rest) if prefix == "oci" else None
    path, colon, name = (digest[1] if digest else rest).partition(":")
    start = len(prefix) + 2 + len(path)
    if not path or path.startswith("//"):
        meant = path.lstrip("/")
        hint = f"did you mean {prefix}:{meant}?" if meant else f"write {prefix}:PATH"
        raise InvalidReference(text, f"no path follows {prefix}:", len(prefix) + 1, hint)
    if path == "-":
        hint = "img save writes to standard output, and img load reads standard input"
        raise InvalidReference(text, "a place is a file or a folder, and no stream", len(prefix) + 1, hint)
    if colon and prefix == "dir":
        raise InvalidReference(text, "dir: has one image, and no name for it", start - 1)
    if colon and not name:
        hint = f"did you mean {prefix}:{path}?"
        raise InvalidReference(text, "no name follows the colon", start - 1, hint)
    number = _NUMBER.fullmatch(name)
    reference = None
    if prefix == "docker-archive" and name and not number:
        reference, name = _named(text, name, start), ""
        if reference.digest:
            raise InvalidReference(text, "docker's archives know tags, and no digests", start)
    elif name and not number and not _REF.fullmatch(name):
        wrong = _REF.match(name)
        at = start + (wrong.end() if wrong else 0)
        raise InvalidReference(text, f"{name!r} is no name in a layout", at, hint="it is a tag, or a name")
    return Location(
        transport=prefix,
        path=path,
        reference=reference,
        ref="" if number else name,
        digest=digest[2] if digest else "",
        number=int(number[1]) if number else None,
    )


def _refuse(text: str, prefix: str, rest: str) -> None:
    """Refuses what is another tool's prefix, or nearly one of ours; a name with a tag passes."""
    if prefix in _FOREIGN:
        raise InvalidReference(text, f"{prefix}: is no place that img knows", 0, _FOREIGN[prefix])
    if Reference.read(text) is not None or without_password(text) != text:
        return  # localhost:5000/app:1, app:1@sha256:…, and what the name's own error says better
    pathlike = rest.startswith(("/", "./", "../", "~")) or ":" in rest
    if prefix == "docker" and pathlike:
        hint = f"did you mean docker://{rest.lstrip('/')}?"
        raise InvalidReference(text, "docker: wants two slashes", len(prefix) + 1, hint)
    if pathlike and not rest.startswith("//"):
        from difflib import get_close_matches  # only a mistake pays for this import

        near = get_close_matches(prefix, TRANSPORTS, n=1, cutoff=0.6)
        if not near and ":" in rest and "@" in rest:
            return  # app:1@sha256:… with a wrong digest
        hint = f"did you mean {near[0]}:{rest}?" if near else f"prefixes are {', '.join(TRANSPORTS)}"
        raise InvalidReference(text, f"{prefix}: is no place that img knows", 0, hint)
