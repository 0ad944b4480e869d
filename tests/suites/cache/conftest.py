"""One shared cache of each kind, with a way to another look at the same storage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from img.cache import CacheBackend, CacheSpec, Reach, open_backend, parse_spec
from img.registry import Options, Registry

from tests.support.actions import Actions, token
from tests.support.azure import KEY, Azure
from tests.support.registry import Registry as RunningRegistry
from tests.support.s3 import ACCESS_KEY, S3, SECRET_KEY


@dataclass(frozen=True, kw_only=True)
class Storage:
    """One storage: where a cache is written to, and where it is read from.

    Attributes:
        to, from_: As the command line has them.
        reach: How it is reached.
    """

    to: str
    from_: str
    reach: Reach

    def writer(self) -> CacheBackend:
        """Opens it as `--cache-to`."""
        return open_backend(self.spec("to"), self.reach)

    def reader(self) -> CacheBackend:
        """Opens it as `--cache-from`, anew."""
        return open_backend(self.spec("from"), self.reach)

    def spec(self, use: str) -> CacheSpec:
        return parse_spec(self.to, "to") if use == "to" else parse_spec(self.from_, "from")


def no_registry() -> Registry:
    raise AssertionError("this kind of cache asked for a registry")


@pytest.fixture
def local_storage(tmp_path: Path) -> Storage:
    folder = tmp_path / "cache"
    return Storage(
        to=f"type=local,dest={folder}", from_=f"type=local,src={folder}", reach=Reach(registry=no_registry)
    )


@pytest.fixture
def registry_storage(registry: RunningRegistry, request: pytest.FixtureRequest) -> Iterator[Storage]:
    with contextlib.closing(Registry(keychain=None, options=Options(backoff_seconds=0.001))) as client:
        name = f"{registry.host}/suite/{abs(hash(request.node.nodeid))}"
        yield Storage(
            to=f"type=registry,ref={name}",
            from_=f"type=registry,ref={name}",
            reach=Reach(registry=lambda: client),
        )


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """moto's S3."""
    with S3() as running:
        yield running


def s3_spec(bucket: str, url: str, **attributes: str) -> str:
    """What the command line says of a cache in a bucket."""
    told = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "region": "us-east-1", **attributes}
    return ",".join(
        [f"type=s3,bucket={bucket},endpoint_url={url}", *(f"{n}={v}" for n, v in told.items() if v)]
    )


@pytest.fixture
def bucket(s3: S3, request: pytest.FixtureRequest) -> str:
    """An empty bucket."""
    return s3.make_bucket(f"b{abs(hash(request.node.nodeid))}")


@pytest.fixture
def s3_storage(s3: S3, bucket: str) -> Storage:
    spec = s3_spec(bucket, s3.url)
    return Storage(to=spec, from_=spec, reach=Reach(registry=no_registry))


@pytest.fixture
def actions() -> Iterator[Actions]:
    """An empty cache service."""
    with Actions(accepts=token(("refs/heads/main", 3))) as running:
        yield running


@pytest.fixture
def gha_storage(actions: Actions) -> Storage:
    spec = f"type=gha,url_v2={actions.url},token={actions.token}"
    return Storage(to=spec, from_=spec, reach=Reach(registry=no_registry))


@pytest.fixture
def gha1_storage(actions: Actions) -> Storage:
    variables = {"ACTIONS_CACHE_URL": actions.url, "ACTIONS_RUNTIME_TOKEN": actions.token}
    return Storage(to="type=gha", from_="type=gha", reach=Reach(registry=no_registry, variables=variables))


@pytest.fixture
def azure() -> Iterator[Azure]:
    """An empty account."""
    with Azure() as running:
        yield running


@pytest.fixture
def azblob_storage(azure: Azure) -> Storage:
    spec = f"type=azblob,account_url={azure.url},secret_access_key={KEY}"
    return Storage(to=spec, from_=spec, reach=Reach(registry=no_registry))


KINDS = ("local", "registry", "s3", "gha", "gha1", "azblob")
"""Each kind has a fixture `<kind>_storage`, which gives an empty storage."""


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest) -> Storage:
    """An empty storage of each kind."""
    found: Storage = request.getfixturevalue(f"{request.param}_storage")
    return found
