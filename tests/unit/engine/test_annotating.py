"""`--annotation`: where each goes, and what is refused."""

from __future__ import annotations

import pytest
from img.engine.annotating import Annotations
from img.errors import UsageError
from img.oci import Descriptor, Image, ImageConfig, Platform, sha256
from img.oci.descriptor import DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_LAYER_GZIP, OCI_MANIFEST
from img.oci.manifest import Manifest
from img.store import index_of
from img.values import replace

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def image(platform: Platform) -> Image:
    return Image.make(ImageConfig.scratch(platform), ())


def test_each_goes_where_it_is_said_to() -> None:
    images = (image(AMD64), image(ARM64))
    said = Annotations.read(
        ["all=1", "manifest[linux/arm64],index:some=2=3", "manifest-descriptor[linux/amd64]:entry="]
    )
    changed, index = said.on(images, index_of(images))
    assert [dict(each.manifest.annotations) for each in changed] == [
        {"all": "1"},
        {"all": "1", "some": "2=3"},
    ]
    assert index is not None and index.annotations == {"some": "2=3"}
    assert [dict(entry.annotations) for entry in index.manifests] == [{"entry": ""}, {}]
    assert [entry.digest for entry in index.manifests] == [each.digest for each in changed]
    assert [entry.platform for entry in index.manifests] == [AMD64, ARM64]
    again, same = said.on(changed, index)
    assert (again, same) == (changed, index), "what is there already changes nothing"


def test_a_docker_manifest_becomes_one_that_can_hold_them() -> None:
    layer = Descriptor(media_type=DOCKER_LAYER_GZIP, digest=sha256(b"x"), size=1)
    plain = image(AMD64)
    docker = replace(
        plain, manifest=Manifest.make(plain.manifest.config, [layer], media_type=DOCKER_MANIFEST)
    )
    assert Annotations.read([]).on((docker,), None) == ((docker,), None)
    (changed,), _ = Annotations.read(["k=v"]).on((docker,), None)
    assert changed.manifest.media_type == OCI_MANIFEST
    assert [each.media_type for each in changed.manifest.layers] == [OCI_LAYER_GZIP]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("k", "NAME=VALUE"),
        ("=v", "NAME=VALUE"),
        ("index:=v", "NAME=VALUE"),
        ("config:k=v", "no place 'config'"),
        ("manifest,layer:k=v", "no place 'layer'"),
        ("index-descriptor:k=v", "nothing points at"),
        ("index[linux/amd64]:k=v", "every platform"),
        ("manifest[a/b/c/d]:k=v", "bad platform"),
    ],
)
def test_what_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Annotations.read([text])


def test_an_index_has_to_be_there() -> None:
    Annotations.read(["index:k=v"]).check(several=True)
    Annotations.read(["manifest:k=v"]).check(several=False)
    for text in ("index:k=v", "manifest-descriptor:k=v"):
        with pytest.raises(UsageError, match="one image alone"):
            Annotations.read([text]).check(several=False)
