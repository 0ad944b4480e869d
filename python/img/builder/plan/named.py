"""`NamedContext`: what the caller puts in the place of a stage or image, and how names are compared.

The engine makes them of `--build-context`; `plan.Planner` looks each name up.
Source: Docker docs, `docker buildx build --build-context`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from img.errors import InvalidReference
from img.oci import Image, Platform, Reference
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedContext:
    """What `--build-context NAME=…` puts in the place of a stage or image of that name.

    Attributes:
        kind: An image; a tree of files, found in `Site.trees` under the name; or a stage of the
            Dockerfile.
        image: Gives the image for a platform, where it is one.
        stage: The stage's name or number, where it is one.
    """

    kind: Literal["image", "tree", "stage"]
    image: Callable[[Platform], Image] | None = None
    stage: str = ""


def context_name(name: str) -> str:
    """The name under which a named context is known: `alpine` for `docker.io/library/alpine:latest`.

    What is no image's name (a stage with capitals, say) is only written in small letters.
    """
    try:
        return Reference.parse(name).familiar.removesuffix(":latest")
    except InvalidReference:
        return name.lower()
