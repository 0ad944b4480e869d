"""`img manifest`: the group of verbs about lists of images, and the documents of registries."""

from __future__ import annotations

from img.cli.common import group

VERBS: dict[str, tuple[str, str]] = {
    "add": ("manifest_lists", "Add an image to a list."),
    "annotate": ("manifest_lists", "Change what a list says of an image, or of itself."),
    "create": ("manifest_lists", "Make a list of images."),
    "inspect": ("manifest_inspect", "Show a list, or the manifest or index that a registry has."),
    "ls": ("manifest_inspect", "List the lists of the store."),
    "push": ("manifest_lists", "Push a list, and the images in it."),
    "remove": ("manifest_lists", "Take images out of a list."),
    "rm": ("manifest_lists", "Remove lists."),
}
"""As `img.cli.VERBS`: name -> (module below `img.cli`, line of help)."""

manifest_command = group(
    "manifest",
    verbs=VERBS,
    short="Put images of several platforms under one name.",
    example="img manifest create HOST/app:1 HOST/app:1-amd64 HOST/app:1-arm64\nimg manifest push HOST/app:1",
)
