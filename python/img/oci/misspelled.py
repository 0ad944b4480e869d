"""`explain`: says what is wrong with a text that is no image's name, where, and what may have been meant.

`Reference.parse` calls it once it has refused a text; it decides nothing. Where the text looks like something
else that people have at hand (an address of the web, a file), that comes first, and the grammar after it.
"""

from __future__ import annotations

import re

from img import regex
from img.errors import InvalidReference, without_password
from img.oci.descriptor import is_digest
from img.oci.reference import (
    COMPONENT,
    DEFAULT_REGISTRY,
    LABEL,
    MOST_NAME,
    Reference,
    is_registry,
    split_registry,
    split_tag,
)

_SCHEME = regex.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HUB = regex.compile(
    r"(?:https?://)?(?:www\.)?hub\.docker\.com/(?:r/(?P<user>[^/?#]+/[^/?#]+)|_/(?P<own>[^/?#]+)"
    r"|layers/(?P<layers>[^/?#]+/[^/?#]+))[^\s]*"
)
_WINDOWS = regex.compile(r"[A-Za-z]:[\\/].*|.*\\.*", re.DOTALL)
_ARCHIVE = regex.compile(r"(.*\.(?:tar|tgz|tar\.gz|tar\.zst|tar\.xz|tar\.bz2))(?::.*)?", re.DOTALL)
_LABEL = regex.compile(LABEL)
_COMPONENT = regex.compile(COMPONENT)
_ALGORITHM = regex.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*")
_OTHERS = frozenset(
    {"docker.com", "dockerhub.com", "docker.hub", "dockerhub.io", "docker.org", "hub.docker.com"}
)
"""Hosts that people take for Docker Hub's registry."""
_WORDS = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


def explain(text: str) -> InvalidReference:
    """The error for a text that `Reference.parse` does not take."""
    return (
        _something_else(text)
        or _character(text)
        or _digest(text)
        or _registry(text)
        or _tag(text)
        or _repository(text)
        or _fault(text, "it is no name of an image")
    )


def meant_docker(host: str) -> str:
    """The hint for a host that does not exist, where Docker Hub may have been meant; else empty."""
    from difflib import get_close_matches  # only a mistake pays for this import

    near = host.lower() in _OTHERS or get_close_matches(host.lower(), [DEFAULT_REGISTRY], cutoff=0.8)
    return "did you mean docker.io? what has no registry in its name is there" if near else ""


def _fault(text: str, reason: str, at: int = -1, *, meant: str = "", hint: str = "") -> InvalidReference:
    """An error with a hint: what was meant, if that is a name."""
    if meant and Reference.read(meant) is not None:
        hint = f"did you mean {meant}?"
    return InvalidReference(text, reason, at, hint)


# ---- what is no name at all ----------------------------------------------------------------------


def _something_else(text: str) -> InvalidReference | None:
    if not text:
        return _fault(text, "it is empty")
    if re.fullmatch("[0-9a-f]{64}", text):
        reason = "64 hexadecimal digits are an image's ID, and no name"
        return _fault(text, reason, hint="a name with a digest is NAME@sha256:DIGITS")
    hub = _HUB.fullmatch(text)
    if hub:
        meant = hub["user"] or hub["own"] or hub["layers"]
        return _fault(text, "it is a page of Docker Hub, and no name", meant=meant)
    if without_password(text) != text:
        hint = "img login keeps them; --creds and --creds-stdin take them for one command"
        return _fault(text, "a name holds no user and no password", 0, hint=hint)
    return _address(text) or _file(text)


def _address(text: str) -> InvalidReference | None:
    """An address of the web, or one of another tool's prefixes."""
    match = _SCHEME.fullmatch(text)
    if not match:
        return None
    scheme, rest = match[1].lower(), match[2]
    if scheme in ("http", "https"):
        reason = f"a name has no {scheme}://; how a registry is reached is said by flags"
        return _fault(text, reason, 0, meant=rest.rstrip("/"))
    if scheme == "docker":
        return _fault(text, "docker:// is a prefix of places that are copied from or to", 0, meant=rest)
    return _fault(text, f"a name has no {match[1]}://", 0, meant=rest.strip("/"))


def _file(text: str) -> InvalidReference | None:
    """A path of this machine."""
    if _WINDOWS.fullmatch(text):
        at = text.find("\\") if "\\" in text else 1
        return _fault(text, "it is a path of Windows, and no name", at, meant=text.replace("\\", "/"))
    archive = _ARCHIVE.fullmatch(text)
    path = archive[1] if archive else text
    if not text.startswith(("/", "./", "../", "~/")):
        return None
    if archive:
        hint = f"did you mean docker-archive:{path} or oci-archive:{path}? img load -i {path} loads it"
        return _fault(text, "it is a path of a file, and no name", 0, hint=hint)
    meant = text.lstrip("./~")
    hint = f"an image layout in that folder is oci:{text}" + (
        f"; a name: {meant}" if Reference.read(meant) is not None else ""
    )
    return _fault(text, "it is a path, and no name", 0, hint=hint)


# ---- the grammar, from left to right -------------------------------------------------------------


def _character(text: str) -> InvalidReference | None:
    """A character that stands in no name."""
    for at, character in enumerate(text):
        if character.isspace():
            what = "a space" if character == " " else f"the white space {character!r}"
            return _fault(text, f"{what} stands in no name", at, meant=text.strip())
        if not character.isascii() or not (character.isalnum() or character in "._-:/@[]+"):
            return _fault(text, f"{character!r} stands in no name", at)
    return None


def _digest(text: str) -> InvalidReference | None:
    name, at, digest = text.partition("@")
    if not at or is_digest(digest):
        return None
    start = len(name) + 1
    algorithm, colon, digits = digest.partition(":")
    form = "a digest is sha256: and 64 hexadecimal digits"
    if not digest:
        return _fault(text, f"nothing follows the @; {form}", start - 1, meant=name)
    if not colon:
        meant = f"{name}@sha256:{digest}" if re.fullmatch("[0-9a-f]{64}", digest) else ""
        return _fault(text, f"the digest names no algorithm; {form}", start, meant=meant)
    if algorithm != "sha256":
        meant = f"{name}@{digest.lower()}" if algorithm.lower() == "sha256" else ""
        known = algorithm in ("sha384", "sha512")
        why = "only sha256 is verified here" if known else f"{algorithm!r} is no algorithm of digests"
        return _fault(text, why if _ALGORITHM.fullmatch(algorithm) else form, start, meant=meant)
    start += len("sha256:")
    if ":" in digits or "@" in digits:
        cut = re.split("[:@]", digits, maxsplit=1)
        tagged = f"{name}:{cut[1]}@sha256:{cut[0]}" if ":" in digits else ""
        return _fault(text, "a digest is the end of a name", start + len(cut[0]), meant=tagged)
    for place, digit in enumerate(digits):
        if digit not in "0123456789abcdef":
            meant = f"{name}@{digest.lower()}"
            return _fault(text, f"{digit!r} is no digit of a digest; {form}", start + place, meant=meant)
    return _fault(text, f"its digest has {len(digits)} digits, and not 64", start)


def _registry(text: str) -> InvalidReference | None:
    name = text.partition("@")[0]
    first, slash, rest = name.partition("/")
    registry = split_registry(name)[0]
    if not slash or (registry == DEFAULT_REGISTRY and first != DEFAULT_REGISTRY) or is_registry(registry):
        return None
    if first.startswith("["):
        return _fault(text, f"{first!r} is no IPv6 address in brackets", 0)
    if first.count(":") > 1:
        reason = f"{first!r} is no host with an optional port"
        return _fault(text, reason, first.index(":"), meant=f"[{first}]/{rest}")
    host, colon, port = first.partition(":")
    at = 0
    for label in host.split("."):
        if not _LABEL.fullmatch(label):
            wrong = next((i for i, c in enumerate(label) if not (c.isalnum() or c == "-")), 0)
            wrong = len(label) - 1 if label.endswith("-") and not wrong else wrong
            reason = f"{first!r} is not a host name with an optional port"
            from difflib import get_close_matches  # only a mistake pays for this import

            typed = get_close_matches(host, [DEFAULT_REGISTRY], cutoff=0.8)
            return _fault(text, reason, at + wrong, meant=f"{typed[0]}/{rest}" if typed else "")
        at += len(label) + 1
    if port.isdecimal():
        return _fault(text, f"no port is {port}", len(host) + 1)
    reason = "a port is a number" if port else "no port follows the colon"
    return _fault(text, reason, len(host) + (1 if port else 0), meant=f"{host}/{rest}" if colon else "")


def _tag(text: str) -> InvalidReference | None:
    name = text.partition("@")[0]
    head, tag = split_tag(name)
    if tag is None:
        return None
    start = len(head) + 1
    if not tag:
        return _fault(text, "no tag follows the colon", start - 1, meant=head + text[len(name) :])
    for place, character in enumerate(tag):
        if not (character.isalnum() or character == "_" or (place and character in ".-")):
            reason = f"{character!r} does not {'stand in' if place else 'begin'} a tag"
            return _fault(text, reason, start + place, hint=_OF_TAG)
    if len(tag) > 128:
        return _fault(text, f"its tag has {len(tag)} characters, and 128 is the most", start + 128)
    return None


_OF_TAG = "a tag is letters, digits, '_', '.' and '-', and begins with none of the last two"


def _repository(text: str) -> InvalidReference | None:
    name, at_sign, digest = text.partition("@")
    head, tag = split_tag(name)
    registry, repository = split_registry(head)
    start = len(head) - len(repository)
    tail = (f":{tag}" if tag else "") + at_sign + digest
    if not repository:
        return _fault(text, "the repository is empty", start)
    lower = head[:start] + repository.lower()
    if registry not in (DEFAULT_REGISTRY, "localhost") and not set(registry) & set(".:"):
        # Docker takes a first part with a capital for a registry's name, which is seldom what was meant.
        lower = head.lower()
    form = "a repository is lower-case letters and digits, parted by '.', '_', '-' and '/'"
    place = start
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            wrong = _wrong(component)
            reason = "nothing stands between two slashes" if not component else form
            if place and not component:
                wrong = -1
            meant = lower if lower != head else re.sub("/+", "/", head).strip("/")
            if Reference.read(meant) is None:
                meant = re.sub(r"[._]{2,}|[._-]{2,}", "-", lower)
            return _fault(text, reason, place + wrong, meant=meant + tail)
        place += len(component) + 1
    full = repository if registry != DEFAULT_REGISTRY or "/" in repository else f"library/{repository}"
    if len(registry) + 1 + len(full) > MOST_NAME:
        return _fault(text, f"registry and repository have more than {MOST_NAME} characters")
    return None


def _wrong(component: str) -> int:
    """Where a component of a repository goes wrong."""
    for at, character in enumerate(component):
        if character not in _WORDS and character not in "._-":
            return at
    match = _COMPONENT.match(component)
    return min(match.end() if match else 0, max(0, len(component) - 1))
