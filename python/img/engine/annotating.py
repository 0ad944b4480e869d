"""`Annotations`: what a caller adds to the manifests and the index of an image (`--annotation`).

Values in, values out: `engine` reads them once, a build has them put on before its images are named, and a
push when the layers are what they leave as.
Source: docker buildx build, "--annotation"; OCI image-spec v1.1, annotations.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from img import regex
from img.errors import UsageError
from img.oci import Image, Index, Platform
from img.oci.rewrite import rewrite_index, rewrite_manifest
from img.values import dataclass, replace

_PLACES = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_PREFIX = regex.compile(r"((?:[a-z-]+(?:\[[^\]=]*\])?)(?:,(?:[a-z-]+(?:\[[^\]=]*\])?))*):(.*)")
_PLACE = regex.compile(r"([a-z-]+)(?:\[([^\]]*)\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One annotation.

    Attributes:
        place: What it is put on: `manifest`, `index`, or `manifest-descriptor`: the index's entry.
        platform: The image that is meant; None for all of them.
    """

    place: str
    platform: Platform | None
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """All that one call adds."""

    all: tuple[Annotation, ...] = ()

    @classmethod
    def read(cls, texts: Iterable[str]) -> Annotations:
        """Reads `[PLACE[PLATFORM],…:]NAME=VALUE`; without a place, it is the manifest's.

        Raises:
            UsageError: one is none of these.
        """
        found: list[Annotation] = []
        for text in texts:
            name, equals, value = text.partition("=")
            prefix = _PREFIX.fullmatch(name)
            places = prefix[1].split(",") if prefix else ["manifest"]
            key = prefix[2] if prefix else name
            if not equals or not key:
                raise UsageError(
                    f"--annotation takes NAME=VALUE, not {text!r}", hint="or index:NAME=VALUE, for the index"
                )
            found += [_placed(place, key, value, text) for place in places]
        return cls(all=tuple(found))

    def check(self, *, several: bool) -> None:
        """Refuses what there will be nothing to put on.

        Args:
            several: The images have an index.
        Raises:
            UsageError.
        """
        wanting = next((each for each in self.all if each.place != "manifest"), None)
        if wanting is not None and not several:
            raise UsageError(
                f"the annotation {wanting.name} is for an index, and there is one image alone",
                hint="build for several platforms, or annotate the manifest",
            )

    def on(self, images: Sequence[Image], index: Index | None) -> tuple[tuple[Image, ...], Index | None]:
        """The images and their index with all that is added; what that touches is an OCI document then."""
        changed = tuple(self._manifest(image) for image in images)
        if index is None:
            return changed, None
        entries = {}
        for old, new in zip(images, changed, strict=True):
            if index.find(old.digest) is not None:
                notes = self._of("manifest-descriptor", new.platform)
                entries[old.digest] = replace(new.manifest.descriptor, annotations=notes)
        index = rewrite_index(index, form="oci", entries=entries)
        own = self._of("index", None)
        return changed, index.with_annotations(own) if own else index

    def _manifest(self, image: Image) -> Image:
        notes = self._of("manifest", image.platform)
        if not notes:
            return image
        return replace(image, manifest=rewrite_manifest(image.manifest, form="oci", annotations=notes))

    def _of(self, place: str, platform: Platform | None) -> Mapping[str, str]:
        return {
            each.name: each.value
            for each in self.all
            if each.place == place
            and (each.platform is None or (platform is not None and each.platform.accepts(platform)))
        }


def _placed(text: str, name: str, value: str, whole: str) -> Annotation:
    match = _PLACE.fullmatch(text)
    place, platform = (match[1], match[2]) if match else ("", None)
    if place not in _PLACES:
        raise UsageError(
            f"--annotation {whole}: there is no place {text!r}", hint=f"places are {', '.join(_PLACES[:3])}"
        )
    if place == "index-descriptor":
        raise UsageError(
            f"--annotation {whole}: nothing points at an index that is in the store or a registry",
            hint="index:NAME=VALUE annotates the index",
        )
    if platform is not None and place == "index":
        raise UsageError(f"--annotation {whole}: an index is for every platform")
    meant = Platform.parse(platform) if platform else None
    return Annotation(place=place, platform=meant, name=name, value=value)
