"""Several processes that need one base at once: it comes over the wire once, and all get it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.registry import Broken

pytestmark = pytest.mark.once


def _fetched(server: Broken) -> Counter[str]:
    """How often each blob was asked for."""
    return Counter(
        request for request in server.requests if request.startswith("GET") and "/blobs/" in request
    )


def test_a_layer_that_is_being_fetched_is_waited_for(make_img: MakeImg, busybox_layout: Path) -> None:
    # The delay makes them meet; were one to come late, it would find the layers and be as right.
    with Broken(busybox_layout, delay=0.5) as server:
        img = make_img()
        img.ok("images")
        pulls = [img.start("pull", f"{server.host}/base:latest") for _ in range(4)]
        for pull in pulls:
            output, _ = pull.communicate(timeout=120)
            assert pull.returncode == 0, output.decode()
        layers = dict(_fetched(server))
    assert layers
    documents = img.image(f"{server.host}/base:latest")
    blobs = [layer["digest"] for layer in documents.manifest["layers"]]
    assert {blob: sum(n for name, n in layers.items() if blob in name) for blob in blobs} == dict.fromkeys(
        blobs, 1
    )


def test_builds_on_one_base_wait_for_each_other_and_all_succeed(
    make_img: MakeImg, make_context: Context, busybox_layout: Path
) -> None:
    with Broken(busybox_layout, delay=0.5) as server:
        img = make_img()
        img.ok("images")
        contexts = [
            make_context({"Dockerfile": f"FROM {server.host}/base:latest\nRUN echo {n} > /n\n"})
            for n in range(3)
        ]
        builds = [img.start("build", "-t", f"t{n}", context) for n, context in enumerate(contexts)]
        for build in builds:
            output, _ = build.communicate(timeout=120)
            assert build.returncode == 0, output.decode()
        fetched = _fetched(server)
    manifest = img.image("t0").manifest
    base = manifest["layers"][0]["digest"]
    assert sum(count for name, count in fetched.items() if base in name) == 1
    assert [img.image(f"t{n}").text("n") for n in range(3)] == ["0\n", "1\n", "2\n"]


def test_one_that_fails_leaves_the_layer_to_who_waits(make_img: MakeImg, busybox_layout: Path) -> None:
    with Broken(busybox_layout, delay=0.5) as server:
        img = make_img()
        img.ok("images")
        first, second = (img.start("pull", f"{server.host}/base:latest") for _ in range(2))
        first.kill()
        first.communicate()
        output, _ = second.communicate(timeout=120)
        assert second.returncode == 0, output.decode()
    assert "bin/busybox" in img.image(f"{server.host}/base:latest").tree
