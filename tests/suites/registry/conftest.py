"""Registries and folders for these tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from img.registry import Credentials, Keychain, Options, Registry

from tests.suites.registry.images import Folder
from tests.suites.registry.servers import DockerRegistry, FaultyRegistry

Connect = Callable[..., Registry]


class Known:
    """A keychain that knows one user of every registry."""

    source = "the test's keychain"

    def __init__(self, username: str, password: str) -> None:
        self._credentials = Credentials(username=username, password=password)

    def get(self, registry: str, repository: str) -> Credentials | None:
        return self._credentials


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients that lose little time between attempts, and closes them."""
    made: list[Registry] = []

    def make(keychain: Keychain | None = None, *, progress: object = None, **options: object) -> Registry:
        chosen = Options(**{"backoff_seconds": 0.001, "read_seconds": 30, **options})  # type: ignore[arg-type]
        events = {"progress": progress} if progress else {}
        made.append(Registry(keychain=keychain, options=chosen, **events))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for registry in made:
        registry.close()


@pytest.fixture(scope="session")
def needs_docker_registry() -> None:
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, needs_docker_registry: None) -> Iterator[DockerRegistry]:
    """A docker-registry that lets anybody do anything."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def faulty() -> Iterator[FaultyRegistry]:
    """A registry that errs as told."""
    with FaultyRegistry() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for blobs."""
    (tmp_path / "blobs").mkdir()
    return Folder(tmp_path / "blobs")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "t/" + str(request.node.name).lower().replace("_", "-").replace("[", "-").replace("]", "")
