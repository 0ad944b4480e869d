"""Archives: what is written reads back, and what others wrote is checked before it is believed."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from img.errors import DigestMismatch, InvalidDocument, SizeMismatch
from img.exporter import Form, Named, read_archive, write_archive
from img.oci import Descriptor, Image, ImageConfig, Index, Manifest, Platform, Reference, sha256
from img.oci.descriptor import (
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from img.store import Store

Read = Callable[[bytes], list[Named]]
ZSTD = b"\x28\xb5\x2f\xfd and the rest"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store that writes."""
    with Store(tmp_path / "one") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """The store that reads."""
    with Store(tmp_path / "other") as opened:
        yield opened


@pytest.fixture
def read(other: Store, tmp_path: Path) -> Read:
    """Reads an archive's bytes into the other store."""

    def take(data: bytes) -> list[Named]:
        path = tmp_path / "archive"
        path.write_bytes(data)
        with other.work.begin() as work:
            return read_archive(other, path, work.folder("archive"))

    return take


def image_of(store: Store, *blobs: bytes, media_type: str = OCI_LAYER_GZIP) -> Image:
    layers = tuple(Descriptor(media_type=media_type, digest=store.blobs.put(b), size=len(b)) for b in blobs)
    config = ImageConfig(platform=Platform.host(), diff_ids=tuple(sha256(b"tar" + b) for b in blobs))
    image = Image.make(config, layers)
    store.blobs.put(image.manifest.raw)
    store.blobs.put(image.config_raw)
    return image


def named(image: Image, *names: str) -> Named:
    return Named(image=image, names=tuple(Reference.parse(name) for name in names))


def written(store: Store, form: Form, *images: Named) -> bytes:
    out = io.BytesIO()
    write_archive(store, images, out, form)
    return out.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened if m.isreg()}  # type: ignore[union-attr]


FORMS: list[Form] = ["docker-archive", "oci-archive"]


@pytest.mark.parametrize("form", FORMS)
def test_what_was_written_reads_back_with_its_names_its_id_and_its_layers(
    form: Form, store: Store, other: Store, read: Read
) -> None:
    image = image_of(store, gzip.compress(b"one"), gzip.compress(b"two"))
    archive = written(store, form, named(image, "app:1", "registry.example.org/app:2"))
    (found,) = read(archive)
    assert {str(name) for name in found.names} == {"docker.io/library/app:1", "registry.example.org/app:2"}
    assert found.image.id == image.id
    assert [layer.digest for layer in found.image.layers] == [layer.digest for layer in image.layers]
    assert all(other.blobs.has(layer.digest) for layer in image.layers)
    assert other.blobs.read(found.image.digest) == found.image.manifest.raw


def test_an_oci_archive_keeps_the_manifest_byte_for_byte(store: Store, read: Read) -> None:
    image = image_of(store, gzip.compress(b"one"))
    (found,) = read(written(store, "oci-archive", named(image, "app")))
    assert found.image == image


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_give_the_same_bytes_with_nothing_of_this_machine(form: Form, store: Store) -> None:
    image = image_of(store, gzip.compress(b"one", mtime=0))
    archive = written(store, form, named(image, "app"))
    assert archive == written(store, form, named(image, "app"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in opened} == {(0, 0, 0, "", "")}


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_that_two_images_share_is_written_once(form: Form, store: Store, read: Read) -> None:
    shared = gzip.compress(b"shared")
    images = [named(image_of(store, shared), "a"), named(image_of(store, shared, gzip.compress(b"x")), "b")]
    archive = written(store, form, *images)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        names = opened.getnames()
    assert len(names) == len(set(names))
    assert [str(found.names[0].familiar) for found in read(archive)] == ["a:latest", "b:latest"]


def test_an_image_without_a_name_is_taken_without_one(store: Store, read: Read) -> None:
    for form in FORMS:
        (found,) = read(written(store, form, named(image_of(store, gzip.compress(b"x")))))
        assert found.names == ()


def test_docker_is_given_tags_alone(store: Store) -> None:
    image = image_of(store, gzip.compress(b"x"))
    by_digest = f"app@{image.digest}"
    archive = written(store, "docker-archive", named(image, by_digest, f"app:1@{image.digest}"))
    assert json.loads(files_of(archive)["manifest.json"])[0]["RepoTags"] == ["app:1"]


def docker_files(layer: bytes, **changes: Any) -> dict[str, bytes]:
    """An archive as docker wrote it before it knew of OCI."""
    diff_id = sha256(b"tar")
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [diff_id]}}).encode()
    entry = {"Config": "c.json", "RepoTags": ["me/app:1"], "Layers": ["l/layer.tar"], **changes}
    return {"c.json": config, "l/layer.tar": layer, "manifest.json": json.dumps([entry]).encode()}


def test_dockers_old_form_is_read(read: Read) -> None:
    (found,) = read(gzip.compress(tar_of(docker_files(gzip.compress(b"tar")))))
    assert [name.familiar for name in found.names] == ["me/app:1"]
    assert found.image.manifest.media_type == DOCKER_MANIFEST
    assert found.image.layers[0].descriptor.media_type == DOCKER_LAYER_GZIP
    (unnamed,) = read(tar_of(docker_files(b"plain", RepoTags=None)))
    assert unnamed.names == ()


def test_a_zstd_layer_in_dockers_form_is_called_what_it_is(store: Store, read: Read) -> None:
    image = image_of(store, ZSTD, media_type=OCI_LAYER_ZSTD)
    (found,) = read(written(store, "docker-archive", named(image, "app")))
    assert found.image.layers[0].descriptor.media_type == OCI_LAYER_ZSTD
    assert found.image.manifest.media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    "files",
    [
        {"unrelated": b""},
        {"manifest.json": b"{}}"},
        {"manifest.json": b'{"Config": 1}'},
        {"manifest.json": b'[{"Config": "c.json"}]'},
        {"manifest.json": b"[1]"},
        {"index.json": b"[]"},
        {"index.json": b'{"manifests": [{"digest": "x"}]}'},
        docker_files(b"", Config="missing.json"),
        docker_files(b"", Config="../../../../etc/passwd"),
        docker_files(b"", Layers=["/etc/passwd"]),
        docker_files(b"", Layers=[]),
    ],
)
def test_an_archive_that_is_no_image_is_refused(files: dict[str, bytes], read: Read) -> None:
    with pytest.raises(InvalidDocument):
        read(tar_of(files))


def test_what_is_no_archive_is_refused(read: Read) -> None:
    with pytest.raises(InvalidDocument, match="no tar archive"):
        read(b"just a text")


def test_a_link_that_leads_out_of_the_archive_is_not_followed(read: Read, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    out = io.BytesIO(tar_of({k: v for k, v in docker_files(b"x").items() if k != "c.json"}))
    with tarfile.open(fileobj=out, mode="a") as archive:
        link = tarfile.TarInfo("c.json")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(link)
    with pytest.raises(InvalidDocument):
        read(out.getvalue())


def test_an_archive_that_breaks_off_is_a_bad_archive_and_no_bad_layer(read: Read) -> None:
    whole = tar_of(docker_files(b"x" * 5000))
    with pytest.raises(InvalidDocument, match=r"bad [^ ]+: byte \d+: truncated"):
        read(whole[:4000])


@pytest.mark.parametrize("victim", ["layer", "config", "manifest"])
def test_a_blob_that_is_not_what_its_name_says_is_refused(
    victim: str, store: Store, other: Store, read: Read
) -> None:
    image = image_of(store, gzip.compress(b"one"))
    digest = {"layer": image.layers[0].digest, "config": image.id, "manifest": image.digest}[victim]
    files = files_of(written(store, "oci-archive", named(image, "app")))
    name = "blobs/sha256/" + digest.removeprefix("sha256:")
    data = bytearray(files[name])
    data[-1] ^= 1
    with pytest.raises(DigestMismatch):
        read(tar_of({**files, name: bytes(data)}))
    assert not other.blobs.has(digest)
    with pytest.raises(SizeMismatch):
        read(tar_of({**files, name: bytes(data) + b"more"}))


def test_of_an_index_of_platforms_this_machines_image_is_taken(store: Store, read: Read) -> None:
    image = image_of(store, gzip.compress(b"one"))
    files = files_of(written(store, "oci-archive", named(image)))
    wanted = json.loads(files["index.json"])["manifests"][0]
    foreign = {**wanted, "digest": sha256(b"foreign"), "platform": {"os": "linux", "architecture": "none"}}
    host = Platform.host().to_json()
    index = json.dumps({"schemaVersion": 2, "manifests": [foreign, {**wanted, "platform": host}]}).encode()
    nested = Descriptor(media_type=OCI_INDEX, digest=sha256(index), size=len(index))
    (found,) = read(
        tar_of({**files, f"blobs/sha256/{nested.hex}": index, "index.json": Index.make([nested]).raw})
    )
    assert found.image == image


def test_a_manifest_whose_config_tells_of_other_layers_is_refused(store: Store, read: Read) -> None:
    image = image_of(store, gzip.compress(b"one"))
    manifest = Manifest.make(image.manifest.config, [])
    store.blobs.put(manifest.raw)
    broken = Image(manifest=manifest, config=image.config.with_layers([]), config_raw=image.config_raw)
    with pytest.raises(InvalidDocument, match="0 layers, but 1 diff IDs"):
        read(written(store, "oci-archive", named(broken)))
