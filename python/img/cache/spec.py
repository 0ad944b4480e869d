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
        kind: `registry`, `local`, `inline`, `s3` or `gha`.
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
    def mounts(self) -> tuple[str, ...]:
        """Ids of the cache mounts that travel with it; `all` for each."""
        return tuple(word for word in self.attributes.get("mounts", "").split(";") if word)

    def __str__(self) -> str:
        names = ("ref", "dest", "src", "bucket", "scope", "name", "tag")
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
    if found.get("mode", "min") not in ("min", "max"):
        raise UsageError(f"{flag}: mode is min or max, not {found['mode']!r}")
    return CacheSpec(kind=kind, use=use, attributes=found)
