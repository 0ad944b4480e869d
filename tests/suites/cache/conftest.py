"""One shared cache of each kind, with a way to another look at the same storage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from img.cache import CacheBackend, CacheSpec, Reach, open_backend, parse_spec
from img.registry import Options, Registry

from tests.support.registry import Registry as RunningRegistry


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


KINDS = ("local", "registry")
"""Each kind has a fixture `<kind>_storage`, which gives an empty storage."""


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest) -> Storage:
    """An empty storage of each kind."""
    found: Storage = request.getfixturevalue(f"{request.param}_storage")
    return found
