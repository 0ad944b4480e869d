"""Fixtures that every end-to-end test may ask for: a registry, base images in it, and `img` itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import hosts
from tests.support.command import Img
from tests.support.debian import debian_layout
from tests.support.layout import write_busybox
from tests.support.registry import Registry

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C; the suite, and what it starts, must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is no property. On CI the examples are the same each time.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
settings.load_profile("suite")

Context = Callable[[Mapping[str, str | bytes]], Path]
MakeImg = Callable[..., Img]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's docker-registry on a free loopback port."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def busybox_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout of the busybox base image."""
    folder = tmp_path_factory.mktemp("busybox")
    write_busybox(folder)
    return folder


@pytest.fixture(scope="session")
def busybox_image(registry: Registry, busybox_layout: Path) -> str:
    """Reference of a small base image: a static busybox, users root and worker."""
    return registry.push_layout(busybox_layout, "busybox")


@pytest.fixture(scope="session")
def debian_image(registry: Registry) -> str:
    """Reference of a Debian base image whose apt reaches the mirror that the host's reaches."""
    return registry.push_layout(debian_layout(), "debian")


@pytest.fixture
def make_img(tmp_path: Path) -> Iterator[MakeImg]:
    """Makes `img` commands, each with a store and a home of its own, removed at the end."""
    made: list[Img] = []

    def make(*options: str, state: Path | None = None) -> Img:
        number = len(made)
        home = tmp_path / f"home{number}"
        home.mkdir()
        made.append(Img(state or tmp_path / f"state{number}", home, *options))
        return made[-1]

    yield make
    for img in made:
        hosts.remove_tree(img.state)


@pytest.fixture
def img(make_img: MakeImg) -> Img:
    """The installed console script with an empty store."""
    return make_img()


@pytest.fixture
def make_context(tmp_path: Path) -> Context:
    """Writes a build context: names to contents. A name that ends in `/` is an empty folder."""
    count = iter(range(1000))

    def make(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / f"context{next(count)}"
        root.mkdir()
        for name, content in files.items():
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            os.chmod(path, 0o644)
        return root

    return make
