"""The client against Debian's docker-registry: what goes up comes down, and only what must travel does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import pytest
from img.errors import DigestMismatch, NotFound, RegistryError, SizeMismatch, Unauthorized
from img.oci import Descriptor, Index, Manifest, Platform, Reference, sha256
from img.progress import Event, Transfer
from img.registry import Upload, fetch, push

from tests.suites.registry.conftest import Connect, Known
from tests.suites.registry.images import AMD64, ARM64, Folder, make_image
from tests.suites.registry.servers import HTPASSWD, PASSWORD, USER, DockerRegistry
from tests.support.tokens import TokenServer


@pytest.fixture
def ref(docker: DockerRegistry, name: str) -> Reference:
    return Reference.parse(f"{docker.host}/{name}:v1")


@pytest.mark.parametrize("docker_types", [False, True], ids=["oci", "docker-schema2"])
def test_an_image_comes_back_by_tag_and_by_digest(
    connect: Connect, ref: Reference, folder: Folder, docker_types: bool
) -> None:
    bits = make_image(3_000_000, 5, 1, docker=docker_types)
    registry = connect()
    digest = push(registry, ref, bits.manifest, bits.open)
    assert digest == bits.manifest.digest

    by_tag = registry.resolve(ref, AMD64)
    by_digest = registry.manifest(Reference.parse(f"{ref.name}@{digest}"))
    assert by_tag == by_digest == bits.manifest
    fetch(registry, ref, by_tag.layers, folder.open)
    assert folder.holds(bits)
    assert registry.document(ref, by_tag.config) == bits.blobs[by_tag.config.digest]


def test_the_head_tells_kind_digest_and_size(connect: Connect, ref: Reference) -> None:
    bits = make_image()
    registry = connect()
    assert registry.head(ref) is None
    push(registry, ref, bits.manifest, bits.open)
    assert registry.head(ref) == bits.manifest.descriptor


def push_index(connect: Connect, ref: Reference, *platforms: Platform) -> dict[Platform, Manifest]:
    registry = connect()
    found, entries = {}, []
    for platform in platforms:
        bits = make_image(platform=platform)
        by_digest = Reference(registry=ref.registry, repository=ref.repository, digest=bits.manifest.digest)
        push(registry, by_digest, bits.manifest, bits.open)
        pointer = bits.manifest.descriptor
        entries.append(
            Descriptor(
                media_type=pointer.media_type, digest=pointer.digest, size=pointer.size, platform=platform
            )
        )
        found[platform] = bits.manifest
    index = Index.make(entries)
    registry.push_manifest(ref, index.raw, index.media_type)
    return found


def test_an_index_gives_the_image_of_the_platform(connect: Connect, ref: Reference) -> None:
    images = push_index(connect, ref, AMD64, ARM64)
    registry = connect()
    assert registry.resolve(ref, AMD64) == images[AMD64]
    assert registry.resolve(ref, ARM64) == images[ARM64]
    assert isinstance(registry.manifest(ref), Index)


def test_a_platform_that_is_not_there_is_told_with_those_that_are(connect: Connect, ref: Reference) -> None:
    push_index(connect, ref, AMD64, ARM64)
    with pytest.raises(NotFound, match="no image for linux/s390x") as caught:
        connect().resolve(ref, Platform("linux", "s390x"))
    assert "linux/amd64, linux/arm64" in caught.value.hint


def test_an_index_within_an_index_is_searched(connect: Connect, ref: Reference) -> None:
    images = push_index(connect, ref, ARM64)
    registry = connect()
    inner = registry.manifest(ref)
    outer = Index.make([inner.descriptor])
    registry.push_manifest(ref, outer.raw, outer.media_type)
    assert registry.resolve(ref, ARM64) == images[ARM64]


def test_an_unknown_tag_names_image_and_registry(connect: Connect, ref: Reference) -> None:
    with pytest.raises(NotFound) as caught:
        connect().manifest(ref)
    error = caught.value
    assert error.status == 404 and error.codes and "MANIFEST_UNKNOWN" in error.codes
    assert ref.familiar in str(error) and ref.registry in str(error) and error.hint


def test_an_unknown_blob_is_not_found(connect: Connect, ref: Reference, folder: Folder) -> None:
    bits = make_image()
    with pytest.raises(NotFound):
        fetch(connect(), ref, bits.layers, folder.open)
    assert folder.empty and folder.sinks[0].ended == "aborted"


def test_a_second_push_sends_no_blob_again(connect: Connect, ref: Reference) -> None:
    bits = make_image(10, 20)

    def closed(descriptor: Descriptor) -> BinaryIO:
        raise AssertionError(f"{descriptor.digest} was opened")

    registry = connect()
    push(registry, ref, bits.manifest, bits.open)
    assert push(registry, ref, bits.manifest, closed) == bits.manifest.digest


def test_a_blob_of_another_repository_is_mounted(
    connect: Connect, ref: Reference, docker: DockerRegistry
) -> None:
    bits = make_image(50_000)
    registry = connect()
    push(registry, ref, bits.manifest, bits.open)
    other = Reference.parse(f"{docker.host}/elsewhere/{ref.repository}")
    layer = bits.layers[0]

    assert not registry.has_blob(other, layer)
    assert not registry.mount_blob(other, layer, "no/such/repository")
    assert not registry.has_blob(other, layer)
    how = registry.push_blob(
        other, layer, lambda: bits.open(layer), mount_from=("no/such/repository", ref.repository)
    )
    assert how is Upload.MOUNTED
    assert registry.has_blob(other, layer)


def test_a_blob_that_cannot_be_mounted_is_sent(connect: Connect, ref: Reference) -> None:
    bits = make_image(50_000)
    layer = bits.layers[0]
    how = connect().push_blob(
        ref, layer, lambda: bits.open(layer), mount_from=("no/such/repository", "nor/this")
    )
    assert how is Upload.SENT
    assert connect().has_blob(ref, layer)


def test_an_empty_blob_goes_up_and_comes_down(connect: Connect, ref: Reference, folder: Folder) -> None:
    bits = make_image(0)
    registry = connect()
    push(registry, ref, bits.manifest, bits.open)
    fetch(registry, ref, bits.layers, folder.open)
    assert folder.holds(bits)


def test_tags_are_listed(connect: Connect, ref: Reference) -> None:
    bits = make_image()
    registry = connect()
    tags = [f"v{n}" for n in range(7)]
    for tag in tags:
        push(registry, Reference.parse(f"{ref.name}:{tag}"), bits.manifest, bits.open)
    assert sorted(registry.tags(ref)) == tags


def test_tags_of_no_repository_are_not_found(connect: Connect, ref: Reference) -> None:
    with pytest.raises(NotFound):
        connect().tags(ref)


def test_progress_ends_with_every_blob_whole(connect: Connect, ref: Reference, folder: Folder) -> None:
    events: list[Event] = []
    bits = make_image(5_000_000, 7)
    registry = connect(progress=events.append)
    push(registry, ref, bits.manifest, bits.open)
    fetch(registry, ref, bits.layers, folder.open)
    last = {(e.action, e.digest): e for e in events if isinstance(e, Transfer)}
    wanted = {("push", d.digest) for d in (*bits.layers, bits.manifest.config)}
    assert set(last) == wanted | {("pull", d.digest) for d in bits.layers}
    assert all(e.done_bytes == e.total_bytes for e in last.values())


def test_a_file_shorter_than_its_descriptor_is_not_pushed(connect: Connect, ref: Reference) -> None:
    layer = make_image(50_000).layers[0]
    with pytest.raises(SizeMismatch):
        connect().push_blob(ref, layer, lambda: io.BytesIO(b"short"))
    assert not connect().has_blob(ref, layer)


def test_a_file_of_other_bytes_is_refused_by_the_registry(connect: Connect, ref: Reference) -> None:
    layer = make_image(50_000).layers[0]
    with pytest.raises(RegistryError) as caught:
        connect().push_blob(ref, layer, lambda: io.BytesIO(bytes(50_000)))
    assert "DIGEST_INVALID" in caught.value.codes


def test_a_manifest_is_not_pushed_under_another_digest(connect: Connect, ref: Reference) -> None:
    raw = make_image().manifest.raw
    with pytest.raises(DigestMismatch):
        connect().push_manifest(ref.with_digest(sha256(b"other")), raw, "any")


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory, needs_docker_registry: None) -> Iterator[DockerRegistry]:
    """A docker-registry for `USER` alone."""
    folder = tmp_path_factory.mktemp("basic")
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "a test", "path": str(folder / "htpasswd")}}
    with DockerRegistry(folder, auth) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with TokenServer(tmp_path_factory.mktemp("tokens"), users={USER: PASSWORD}) as running:
        yield running


@pytest.fixture(scope="module")
def bearer(
    tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer, needs_docker_registry: None
) -> Iterator[DockerRegistry]:
    """A docker-registry for those who bring a token."""
    with DockerRegistry(tmp_path_factory.mktemp("bearer"), tokens.auth) as running:
        yield running


class TestBasic:
    def test_a_known_user_pushes_and_pulls(self, connect: Connect, basic: DockerRegistry) -> None:
        ref, bits = Reference.parse(f"{basic.host}/basic:1"), make_image(100_000)
        registry = connect(Known(USER, PASSWORD))
        push(registry, ref, bits.manifest, bits.open)
        assert connect(Known(USER, PASSWORD)).manifest(ref) == bits.manifest

    def test_nobody_is_told_to_log_in(self, connect: Connect, basic: DockerRegistry) -> None:
        with pytest.raises(Unauthorized) as caught:
            connect().manifest(Reference.parse(f"{basic.host}/basic:1"))
        assert "no credentials" in caught.value.hint and "log in" in caught.value.hint

    def test_a_wrong_password_is_not_quoted(self, connect: Connect, basic: DockerRegistry) -> None:
        with pytest.raises(Unauthorized) as caught:
            connect(Known(USER, "guessed-it")).manifest(Reference.parse(f"{basic.host}/basic:1"))
        assert "guessed-it" not in f"{caught.value}{caught.value.hint}{caught.value.args}"
        assert "the test's keychain" in caught.value.hint


class TestBearer:
    def test_a_known_user_pushes_and_anybody_pulls(
        self, connect: Connect, bearer: DockerRegistry, folder: Folder
    ) -> None:
        ref, bits = Reference.parse(f"{bearer.host}/bearer/one:1"), make_image(100_000, 5, 6)
        push(connect(Known(USER, PASSWORD)), ref, bits.manifest, bits.open)
        anybody = connect()
        assert anybody.resolve(ref, AMD64) == bits.manifest
        fetch(anybody, ref, bits.layers, folder.open)
        assert folder.holds(bits)

    def test_one_token_serves_all_requests_of_a_scope(
        self, connect: Connect, bearer: DockerRegistry, tokens: TokenServer
    ) -> None:
        ref, bits = Reference.parse(f"{bearer.host}/bearer/two:1"), make_image(1, 2, 3, 4, 5)
        before = len(tokens.requests)
        push(connect(Known(USER, PASSWORD)), ref, bits.manifest, bits.open)
        assert len(tokens.requests) - before == 1

    def test_a_mount_asks_for_both_repositories(
        self, connect: Connect, bearer: DockerRegistry, tokens: TokenServer
    ) -> None:
        one, two = (Reference.parse(f"{bearer.host}/bearer/{name}:1") for name in ("from", "to"))
        bits = make_image(2000, seed=3)
        registry = connect(Known(USER, PASSWORD))
        push(registry, one, bits.manifest, bits.open)
        assert registry.mount_blob(two, bits.layers[0], one.repository)
        wanted = {"repository:bearer/from:pull", "repository:bearer/to:pull,push"}
        assert set(tokens.requests[-1].scopes) == wanted

    def test_an_anonymous_push_is_refused(self, connect: Connect, bearer: DockerRegistry) -> None:
        ref, bits = Reference.parse(f"{bearer.host}/bearer/three:1"), make_image()
        with pytest.raises(Unauthorized, match="refuses access"):
            push(connect(), ref, bits.manifest, bits.open)

    def test_a_wrong_password_is_told_with_its_source(self, connect: Connect, bearer: DockerRegistry) -> None:
        ref = Reference.parse(f"{bearer.host}/bearer/one:1")
        with pytest.raises(Unauthorized) as caught:
            connect(Known(USER, "guessed-it")).manifest(ref)
        assert "the test's keychain" in caught.value.hint
        assert "guessed-it" not in f"{caught.value}{caught.value.hint}"
