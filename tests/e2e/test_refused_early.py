"""A build that could not leave its image, or its cache, is refused while it begins, and not at its end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.between import Between
from tests.support.command import Img
from tests.support.registry import Registry

pytestmark = pytest.mark.once

ENDLESS = "RUN sleep 3600\n"
DENIED = {
    "method": "POST",
    "status": 403,
    "times": 99,
    "body": b'{"errors":[{"code":"DENIED","message":"no"}]}',
}


@pytest.fixture
def proxies(registry: Registry) -> Iterator[tuple[Between, Between]]:
    """Two registries, as far as a client can tell."""
    with ExitStack() as held:
        port = int(registry.host.rpartition(":")[2])
        yield held.enter_context(Between(port)), held.enter_context(Between(port))


@pytest.fixture
def context(make_context: Context, busybox_image: str) -> Path:
    """A build that ends only if something ends it."""
    return make_context({"Dockerfile": f"FROM {busybox_image}\nCOPY f /\n{ENDLESS}", "f": "f"})


def at(between: Between, name: str) -> str:
    return f"127.0.0.1:{between.port}/{name}"


def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_every_registry_is_asked_and_one_that_refuses_ends_the_build(
    img: Img, context: Path, proxies: tuple[Between, Between]
) -> None:
    ours, theirs = proxies
    theirs.spoil(**DENIED)
    names = [at(ours, "early/ours:1"), at(ours, "early/ours:2"), at(theirs, "early/theirs:1")]
    outcome = img.fails(3, "build", "--push", *(f"-t={name}" for name in names), context)
    assert "refuses access" in outcome.stderr and "Traceback" not in outcome.stderr
    # One question for the repository of two tags, whose upload is given back. Layers may leave; no name does.
    assert not ours.count("PUT", "/manifests/") and not theirs.count("PUT")
    deleted = [seen.path for seen in ours.seen if seen.method == "DELETE"]
    assert len(deleted) == 1 and "/v2/early/ours/blobs/uploads/" in deleted[0]
    assert not img.ok("images", "--format", "{name}").stdout.count("early/")
    assert "failed" in img.ok("history").stdout


def test_a_registry_that_is_not_there_ends_the_build(img: Img, context: Path) -> None:
    outcome = img.fails(3, "build", "-o", f"type=image,name={nowhere()}/early:1,push=true", context)
    assert "refused" in outcome.stderr and "is the server running" in outcome.stderr


def test_a_cache_that_may_not_be_written_ends_the_build_unless_its_errors_do_not_count(
    make_img: MakeImg, context: Path, make_context: Context, proxies: tuple[Between, Between]
) -> None:
    ours, theirs = proxies
    theirs.spoil(**DENIED)
    cache = f"type=registry,ref={at(theirs, 'early/cache')}"
    outcome = make_img().fails(
        3, "build", "--push", "-t", at(ours, "early/cached:1"), "--cache-to", cache, context
    )
    assert at(theirs, "early/cache") in outcome.stderr and "refuses access" in outcome.stderr
    assert "a cache is not written" not in outcome.stderr  # it is the error itself
    assert not ours.count("PUT", "/manifests/")
    quick = make_context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "f"})
    before = len(theirs.seen)
    outcome = make_img().build(quick, "--cache-to", f"{cache},ignore-error=true")
    assert "this cache is not written" in outcome.stderr
    assert theirs.seen[before].method != "POST"  # nobody asked it beforehand


def test_what_cannot_be_said_beforehand_is_said_when_it_comes(
    img: Img, make_context: Context, proxies: tuple[Between, Between]
) -> None:
    ours, theirs = proxies
    context = make_context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "f"})
    # So many requests are not allowed now, or the registry is being mended; once there is something to
    # push, or to write to a cache, all is well.
    for status in (429, 503):
        ours.spoil(method="POST", status=status, headers={"Retry-After": "3600"})
        img.ok("build", "--push", "-t", at(ours, f"early/later:{status}"), context)
        theirs.spoil(method="POST", status=status, headers={"Retry-After": "3600"})
        img.build(context, "--cache-to", f"type=registry,ref={at(theirs, 'early/later')}-{status}")
        assert theirs.count("PUT", f"early/later-{status}/manifests/")
    # An upload may be opened, and comes to nothing: the build has an image, and fails as it pushes.
    theirs.spoil(method="PUT", status=403, times=99)
    name = at(theirs, "early/never:1")
    assert "refuses access" in img.fails(3, "build", "--push", "-t", name, context).stderr
    assert img.ok("images", "--format", "{name}").stdout.count("early/never")


def test_who_only_asks_about_a_build_asks_no_registry(
    img: Img, make_context: Context, proxies: tuple[Between, Between]
) -> None:
    ours, _ = proxies
    context = make_context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "f"})
    name = at(ours, "early/asked:1")
    for call in (["--check"], ["--print-graph"], ["--call", "outline"]):
        img.ok("build", "--push", "-t", name, *call, context)
    img.ok("build", "-t", name, context)
    assert not ours.seen
