"""`CacheSpec`: one `--cache-to` or `--cache-from`, checked. Pure.

Source: BuildKit's documentation, "Export cache", whose names of attributes these are.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Literal

from img.dockerfile.near import did_you_mean
from img.errors import UsageError
from img.values import dataclass, field

Use = Literal["from", "to"]
Compression = Literal["gzip", "zstd", "none"]

_COMPRESSIONS: Mapping[str, Compression] = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}
_LEVELS: Mapping[Compression, range] = {"gzip": range(1, 10), "zstd": range(1, 23), "none": range(0)}
_YES_OR_NO = (
    "ignore-error",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "reset",
    "use_path_style",
    "disable_accept_encoding",
)
_WORDS = {"true": "true", "1": "true", "false": "false", "0": "false"}

_BOTH = ("ignore-error", "mounts")
_PACKED = (
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
)
_S3 = (
    "bucket",
    "region",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "name",
    "endpoint_url",
    "use_path_style",
    "disable_accept_encoding",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "touch_refresh",
    "upload_parallelism",
    "retry_mode",
    "retry_max_attempts",
)
_GHA = ("scope", "timeout", "url", "url_v2", "token", "ghtoken", "repository", "version")
_AZBLOB = (
    "account_url",
    "account_name",
    "container",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "name",
    "secret_access_key",
)

ATTRIBUTES: Mapping[tuple[str, Use], tuple[str, ...]] = {
    ("registry", "to"): ("ref", *_PACKED, *_BOTH),
    ("registry", "from"): ("ref", *_BOTH),
    ("local", "to"): ("dest", "tag", "reset", *_PACKED, *_BOTH),
    ("local", "from"): ("src", "tag", "digest", *_BOTH),
    ("inline", "to"): ("mode", *_BOTH),
    ("s3", "to"): (*_S3, "mode", "compression", "compression-level", *_BOTH),
    ("s3", "from"): (*_S3, *_BOTH),
    ("gha", "to"): (*_GHA, "mode", "compression", "compression-level", *_BOTH),
    ("gha", "from"): (*_GHA, *_BOTH),
    ("azblob", "to"): (*_AZBLOB, "mode", "compression", "compression-level", *_BOTH),
    ("azblob", "from"): (*_AZBLOB, *_BOTH),
}
"""What each kind takes, by how it is used."""

_NEEDED = {
    ("registry", "to"): "ref",
    ("registry", "from"): "ref",
    ("local", "to"): "dest",
    ("local", "from"): "src",
    ("s3", "to"): "bucket",
    ("s3", "from"): "bucket",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """One shared cache.

    Attributes:
        kind: `registry`, `local`, `inline`, `s3`, `gha` or `azblob`.
        use: `from` or `to`.
        attributes: By name; those of `ATTRIBUTES`. May hold credentials: never shown.
    """

    kind: str
    use: Use
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def max_mode(self) -> bool:
        """Every step is written, not only those of the image."""
        return self.attributes.get("mode") == "max"

    @property
    def ignore_error(self) -> bool:
        """An error of this cache is a warning. Default: yes for reading, no for writing."""
        text = self.attributes.get("ignore-error", "true" if self.use == "from" else "false")
        return text == "true"

    @property
    def compression(self) -> Compression:
        """How layers are compressed."""
        return _COMPRESSIONS[self.attributes.get("compression", "gzip")]

    @property
    def level(self) -> int | None:
        """Of the compression; None for its usual one."""
        text = self.attributes.get("compression-level", "")
        return int(text) if text else None

    @property
    def force_compression(self) -> bool:
        """A layer that has a blob in another form already is compressed again."""
        return self.attributes.get("force-compression") == "true"

    @property
    def reset(self) -> bool:
        """What was there before is removed (`local`)."""
        return self.attributes.get("reset") == "true"

    @property
    def ages(self) -> bool:
        """Its storage may drop what is old, though it is read: it is written even where nothing changed."""
        return self.kind in ("s3", "azblob")

    @property
    def mounts(self) -> tuple[str, ...]:
        """Ids of the cache mounts that travel with it; `all` for each."""
        return tuple(word for word in self.attributes.get("mounts", "").split(";") if word)

    def __str__(self) -> str:
        names = ("ref", "dest", "src", "bucket", "account_name", "container", "scope", "name", "tag")
        shown = ",".join(f"{name}={self.attributes[name]}" for name in names if name in self.attributes)
        return f"type={self.kind}{',' if shown else ''}{shown}"


def parse_spec(text: str, use: Use) -> CacheSpec:
    """Reads `type=registry,ref=…`; a bare word is the reference of a registry.

    Raises:
        UsageError: it is malformed, names no kind that there is, or lacks what the kind needs.
    """
    flag = f"--cache-{use}"
    rows = list(csv.reader([text]))
    fields = rows[0] if rows else []
    if len(fields) == 1 and "=" not in fields[0]:
        fields = ["type=registry", f"ref={fields[0]}"]
    found: dict[str, str] = {}
    for word in fields:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{flag}: {word!r} is no NAME=VALUE", hint=f"{flag} type=registry,ref=NAME")
        found[name.strip().lower()] = value
    kind = found.pop("type", "")
    known = ATTRIBUTES.get((kind, use))
    if known is None:
        kinds = ", ".join(k for k, u in ATTRIBUTES if u == use)
        raise UsageError(f"{flag}: there is no type {kind!r}", hint=f"the types are {kinds}")
    for name in found:
        if name not in known:
            hint = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            raise UsageError(f"{flag} type={kind} does not know {name!r}", hint=hint)
    needed = _NEEDED.get((kind, use))
    if needed and not found.get(needed):
        raise UsageError(f"{flag} type={kind} needs {needed}", hint=f"{flag} type={kind},{needed}=…")
    _check(f"{flag} type={kind}", kind, found)
    return CacheSpec(kind=kind, use=use, attributes=found)


def _check(where: str, kind: str, found: dict[str, str]) -> None:
    """Checks the values that are the same for every kind; yes and no are `true` and `false` afterwards."""
    for name in _YES_OR_NO:
        if name in found:
            word = _WORDS.get(found[name].lower())
            if word is None:
                raise UsageError(f"{where}: {name} is true or false, not {found[name]!r}")
            found[name] = word
    if found.get("mode", "min") not in ("min", "max"):
        raise UsageError(f"{where}: mode is min or max, not {found['mode']!r}")
    if kind == "inline" and found.get("mode") == "max":
        hint = "mode=max needs a cache of its own: type=registry, local, s3, gha or azblob"
        raise UsageError(f"{where} holds no other layers than the image's", hint=hint)
    _check_form(where, found)
    _check_compression(where, found)


def _check_form(where: str, found: Mapping[str, str]) -> None:
    """A cache is one OCI manifest, whatever form BuildKit offers beside it."""
    if found.get("image-manifest") == "false":
        hint = "leave it out: a registry may drop blobs that no manifest names"
        raise UsageError(f"{where}: a cache is an image manifest, not an index", hint=hint)
    if found.get("oci-mediatypes") == "false":
        raise UsageError(f"{where}: a cache has OCI media types, not Docker's", hint="leave it out")


def _check_compression(where: str, found: Mapping[str, str]) -> None:
    name, level = found.get("compression", "gzip"), found.get("compression-level", "")
    if name not in _COMPRESSIONS:
        hint = "estargz is written by nobody here: use gzip or zstd" if name == "estargz" else ""
        hint = hint or did_you_mean(name, _COMPRESSIONS) or f"there are {', '.join(_COMPRESSIONS)}"
        raise UsageError(f"{where}: there is no compression {name!r}", hint=hint)
    levels = _LEVELS[_COMPRESSIONS[name]]
    if level and not (level.isdecimal() and len(level) < 4 and int(level) in levels):
        allowed = f"from {levels[0]} to {levels[-1]}" if levels else "nothing that has levels"
        raise UsageError(f"{where}: compression-level of {name} is {allowed}, not {level!r}")
