"""`-o`: what its attributes say, and what is refused."""

from __future__ import annotations

from typing import Any

import click
import pytest
from img.cli.outputs import outputs


def read(*texts: str, **flags: Any) -> dict[str, Any]:
    """The fields of a request that `-o` and some flags give."""
    usual = {"tags": (), "push": False, "compression": None, "level": None, "force": False}
    return outputs({**usual, "annotations": (), **flags, "outputs": texts})


def test_docker_s_words_are_understood() -> None:
    text = 'type=image,"name=a.test/x:1,a.test/y:2",push=true,compression=zstd,compression-level=7'
    assert read(text, tags=("a.test/x:1", "z")) == {
        "tags": ("a.test/x:1", "z", "a.test/y:2"),
        "push": True,
        "compression": "zstd",
        "compression_level": 7,
        "force_compression": False,
        "annotations": (),
    }


def test_annotations_keep_the_case_of_their_names_and_their_places() -> None:
    text = 'type=image,annotation.Who=me,"annotation-index.a.b=c,d",annotation-manifest[linux/arm64].k=v'
    assert read(text, annotations=("x=y",))["annotations"] == (
        "x=y",
        "manifest:Who=me",
        "index:a.b=c,d",
        "manifest[linux/arm64]:k=v",
    )


@pytest.mark.parametrize(
    ("text", "push"),
    [("type=registry", True), ("type=image", False), ("type=image,push=1", True),
     ("type=registry,push=false", False)],
)  # fmt: skip
def test_a_registry_is_pushed_to_and_an_image_where_it_says_so(text: str, push: bool) -> None:
    assert read(text)["push"] is push


def test_uncompressed_is_none_and_force_is_force() -> None:
    found = read("type=registry,compression=uncompressed,force-compression=true")
    assert (found["compression"], found["force_compression"]) == ("none", True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "type is image or registry"),
        ("type=local,dest=out", "img save and unpack"),
        ("type=image,push", "no NAME=VALUE"),
        ("type=image,push=maybe", "push is true or false"),
        ("type=image,unpack=true", "no attribute"),
        ("type=image,compression=xz", "compression is"),
        ("type=image,compression-level=best", "is a number"),
        ("type=image,oci-mediatypes=false", "OCI images"),
        ("type=image,compression=gzip", "gzip here and zstd elsewhere"),
    ],
)
def test_what_cannot_be_done_is_refused(text: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        read(text, compression="zstd")
