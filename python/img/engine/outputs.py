"""`Output`: what a build gives for one target: its image for each platform, and their names.

`building` hands the names of a request out to the targets before anything runs, and names the images once
they are there. Several platforms of one target are one name, by an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from img.builder.graph import BuildGraph
from img.dockerfile import find_stage
from img.dockerfile.instructions import Dockerfile
from img.engine.requests import BuiltImage
from img.errors import DockerfileError, UsageError
from img.oci import Image, Index, Reference
from img.store import Store, index_of, main_of
from img.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A name, and the stage whose image it is for; empty where the caller named none."""

    name: Reference
    stage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The images of one target, at least one, and their names.

    Attributes:
        target: The stage's name, or its number where it has none.
        index: What names the images together; None where there is one.
    """

    target: str
    images: tuple[Image, ...]
    tags: tuple[Reference, ...]
    index: Index | None = None

    @property
    def main(self) -> Image:
        """The image that the names mean on this machine."""
        return main_of(self.images)

    def described(self) -> list[BuiltImage]:
        """The images for the caller."""
        tags = tuple(str(tag) for tag in self.tags)
        return [
            BuiltImage(
                target=self.target,
                platform=str(image.platform),
                digest=image.digest,
                id=image.id,
                tags=tags,
            )
            for image in self.images
        ]


def read_tags(texts: Sequence[str]) -> tuple[Tag, ...]:
    """Reads `NAME` and `STAGE=NAME`.

    Raises:
        InvalidReference: one is no name. UsageError: one names a digest.
    """
    tags = []
    for text in texts:
        stage, equals, name = text.rpartition("=")
        tag = Tag(name=Reference.parse(name), stage=stage)
        if tag.name.digest:
            raise UsageError(f"{name} names a digest, which no build can promise", hint="use name:tag")
        if equals and not stage:
            raise UsageError(f"{text} names no stage before the =", hint="write -t STAGE=NAME")
        tags.append(tag)
    return tuple(tags)


def hand_out(
    dockerfile: Dockerfile, graph: BuildGraph, tags: Sequence[Tag]
) -> dict[str, tuple[Reference, ...]]:
    """Gives each target of a graph its names.

    Raises:
        UsageError: a name is for a stage that is no target, or for none of several.
    """
    given: dict[str, list[Reference]] = {target.stage: [] for target in graph.targets}
    for tag in tags:
        if not tag.stage and len(given) > 1:
            raise UsageError(
                f"-t {tag.name.familiar} does not say which of the targets {', '.join(given)} it is for",
                hint=f"write -t {next(iter(given))}={tag.name.familiar}",
            )
        given[_target(dockerfile, given, tag.stage)].append(tag.name)
    return {stage: tuple(names) for stage, names in given.items()}


def _target(dockerfile: Dockerfile, known: Mapping[str, object], name: str) -> str:
    """The target that a tag's stage names."""
    if not name:
        return next(iter(known))
    try:
        stage = find_stage(dockerfile, name)
    except DockerfileError as error:
        raise UsageError(f"-t {name}=…: {error.message}", hint=error.hint) from error
    for text in (stage.name, str(stage.index)):
        if text in known:
            return text
    raise UsageError(
        f"-t {name}=…: that stage is no target of this build",
        hint=f"add --target {name}; the targets are {', '.join(known)}",
    )


def name_outputs(
    store: Store,
    graph: BuildGraph,
    images: Sequence[Image],
    tags: Mapping[str, tuple[Reference, ...]],
    annotations: Sequence[str] = (),
) -> tuple[Output, ...]:
    """Names what was built, in the store.

    Args:
        images: One for each target of the graph, in its order.
        tags: What `hand_out` gave.
        annotations: What is added to them, as `Annotations.read` takes it.
    """
    outputs = []
    for stage, names in tags.items():
        built = tuple(
            image for image, target in zip(images, graph.targets, strict=True) if target.stage == stage
        )
        index = index_of(built) if len(built) > 1 else None
        if annotations:
            from img.engine.annotating import Annotations  # most builds have none

            built, index = Annotations.read(annotations).on(built, index)
        for name in names or (None,):
            if index is not None:
                store.names.put_index(built, name, index=index)
            else:
                store.names.put(built[0], name)
        outputs.append(Output(target=stage, images=built, tags=names, index=index))
    return tuple(outputs)
