"""`img cache`: the group of verbs about the build cache, each in a file of its own beside this one."""

from __future__ import annotations

from img.cli.common import group

VERBS: dict[str, tuple[str, str]] = {
    "explain": ("cache_explain", "Say why steps of a build ran."),
    "mounts": ("cache_mounts", "List, export, import and remove cache mounts."),
}
"""As `img.cli.VERBS`: name -> (module below `img.cli`, line of help)."""

cache_command = group(
    "cache",
    verbs=VERBS,
    short="Look into the build cache.",
    example="img cache explain Dockerfile:3",
)
