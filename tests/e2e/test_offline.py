"""`img build --offline`: no socket of the network is opened, and all that is here is used."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img, Outcome, steps_run
from tests.support.gits import GitWeb, Repository
from tests.support.layout import digest_of
from tests.support.registry import Registry

pytestmark = pytest.mark.once

_SOCKET = re.compile(r"\b(?:socket\((?!AF_UNIX)|connect\(\d+, \{sa_family=(?!AF_UNIX)).*")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[GitWeb]:
    """A web server, with git."""
    with GitWeb(tmp_path / "git") as running:
        yield running


class World:
    """A registry, a web server and a git server that are there until `end`."""

    def __init__(self, folder: Path, busybox: Path) -> None:
        self._registry = Registry(folder / "registry").__enter__()
        self._web = GitWeb(folder / "git").__enter__()
        self.there = True
        self.base = self._registry.push_layout(busybox, "busybox")
        self.repository = Repository(folder / "git", "app")
        self.commit = self.repository.commit({"a": "one", "Dockerfile": "FROM scratch\nCOPY a /\n"})
        self.remote = self._web.repository("app")
        self.url = self._web.put("/file", "one")

    def end(self) -> None:
        """Ends all of it; safe to call twice."""
        if self.there:
            self.there = False
            self._web.__exit__(None, None, None)
            self._registry.__exit__(None, None, None)


@pytest.fixture
def world(tmp_path: Path, busybox_layout: Path) -> Iterator[World]:
    made = World(tmp_path, busybox_layout)
    yield made
    made.end()


def traced(img: Img, log: Path, *args: str | Path) -> tuple[Outcome, list[str]]:
    """Runs a command under strace; gives every call of it, and of its children, that makes or uses a socket
    of another kind than UNIX's. Those in the container of a RUN count, too.
    """
    words = [str(word) for word in args]
    strace = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=socket,connect"]
    done = subprocess.run(
        [*strace, *img.command(*words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=img.home, env=img.environment(),
        timeout=300, check=False,
    )  # fmt: skip
    outcome = Outcome(args=tuple(words), code=done.returncode, stdout=done.stdout, stderr=done.stderr)
    return outcome, _SOCKET.findall(log.read_text())


def test_an_offline_build_opens_no_socket(
    make_img: MakeImg, make_context: Context, world: World, tmp_path: Path
) -> None:
    # The kernel takes the privilege from newuidmap where an ordinary user traces it: one id has to do.
    img = make_img() if os.getuid() == 0 else make_img("--single-id")
    text = (
        f"FROM {world.base}\nARG WHAT=one\nRUN echo $WHAT > /what\n"
        f"ADD {world.url} /file\nADD {world.remote}#main /app\n"
        f"RUN --mount=type=bind,from={world.base},target=/b cp /b/etc/passwd /p\n"
    )
    context = make_context({"Dockerfile": text})
    online, sockets = traced(img, tmp_path / "online", "build", "-t", "t", context)
    assert online.code == 0, str(online)
    assert any("AF_INET" in call for call in sockets), "the test would not see a socket"
    first = img.image().digest
    world.end()

    outcome, sockets = traced(img, tmp_path / "offline", "build", "--offline", "-t", "t", context)
    assert outcome.code == 0, str(outcome)
    assert sockets == []
    assert steps_run(outcome) == []
    assert img.image().digest == first
    assert f"{world.url} is used as it was when it was last fetched" in outcome.stderr
    assert f"main of {world.remote}, the commit {world.commit[:12]}, is used as it was" in outcome.stderr

    changed = ("build", "--offline", "--build-arg", "WHAT=two", "-t", "t", context)
    outcome, sockets = traced(img, tmp_path / "changed", *changed)
    assert outcome.code == 0, str(outcome)
    assert sockets == []
    assert len(steps_run(outcome)) > 1
    assert img.image().text("what") == "two\n"


def test_contexts_of_the_web_are_what_was_kept(img: Img, make_context: Context, world: World) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nCOPY --from=web file /\nCOPY --from=git a /\n"})
    named = (f"--build-context=web={world.url}", f"--build-context=git={world.remote}")
    img.build(context, *named)
    img.ok("build", "-t", "remote", world.remote)
    world.end()
    img.ok("build", "--offline", "--no-cache", "-t", "t", *named, context)
    assert (img.image().text("file"), img.image().text("a")) == ("one", "one")
    img.ok("build", "--offline", "--no-cache", "-t", "remote", world.remote)
    refused = img.fails(3, "build", "--offline", world.remote + "#other")
    assert "other of it was never fetched, and the build is offline" in refused.stderr


def test_submodules_are_what_was_kept(img: Img, make_context: Context, world: World, tmp_path: Path) -> None:
    outer = Repository(tmp_path / "git", "outer")
    outer.submodule("sub", world.remote, world.commit)
    remote = world.remote.replace("app.git", "outer.git")
    context = make_context({"Dockerfile": f"FROM scratch\nADD {remote}#main /\n"})
    img.build(context)
    unfetched = outer.submodule("other", world.remote.replace("app.git", "gone.git"), world.commit)
    world.end()
    img.build(context, "--offline", "--no-cache")
    assert img.image().text("sub/a") == "one"
    refused = img.fails(
        3, "build", "--offline", make_context({"Dockerfile": f"FROM scratch\nADD {remote}#{unfetched} /\n"})
    )
    assert "never fetched, and the build is offline" in refused.stderr


def test_what_has_a_checksum_is_no_old_copy(img: Img, make_context: Context, world: World) -> None:
    context = make_context(
        {
            "Dockerfile": f"FROM scratch\nADD --checksum={digest_of(b'one')} {world.url} /file\n"
            f"ADD --checksum={world.commit} {world.remote}#main /app\n"
            f"ADD {world.remote}#{world.commit} /same\n"
        }
    )
    img.build(context)
    world.end()
    outcome = img.build(context, "--offline", "--no-cache")
    assert "last fetched" not in outcome.stderr
    other = make_context(
        {"Dockerfile": f"FROM scratch\nADD --checksum={digest_of(b'x')} {world.url} /file\n"}
    )
    refused = img.fails(3, "build", "--offline", other)
    assert f"what is kept of it has the digest {digest_of(b'one')}" in refused.stderr


def test_a_locked_build_needs_no_network_once_it_was_made(
    img: Img, make_context: Context, world: World
) -> None:
    text = f"FROM {world.base}\nADD {world.url} /file\nADD {world.remote}#main /app\n"
    context = make_context({"Dockerfile": text})
    img.ok("lock", context)
    unmade = img.fails(5, "build", "--offline", "--locked", context)
    assert f"hint: img pull {world.base}@sha256:" in unmade.stderr
    img.build(context, "--locked")
    world.repository.commit({"a": "two"})
    world.end()
    outcome = img.build(context, "--locked", "--offline", "--no-cache")
    assert "last fetched" not in outcome.stderr
    assert img.image().text("app/a") == "one"
    assert "up to date" in img.ok("lock", "--offline", context).stdout
    img.ok("lock", "--offline", "--check", context)


def test_what_is_missing_is_named_with_how_to_get_it(
    img: Img, make_context: Context, world: World, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": f"FROM {world.base}\nRUN true\n"})
    refused = img.fails(5, "build", "--offline", context)
    assert f"Dockerfile:1: {world.base} is not in the store, and the build is offline" in refused.stderr
    assert f"hint: img pull {world.base} fetches it, while there is a network" in refused.stderr
    config_only = make_context({"Dockerfile": f"FROM {world.base}\nENV A=b\n"})
    img.build(config_only)
    img.build(config_only, "--offline")
    refused = img.fails(5, "build", "--offline", context)
    assert "the store lacks a layer of" in refused.stderr
    assert f"hint: img pull {world.base} fetches it" in refused.stderr
    img.ok("pull", world.base)
    world.end()
    img.build(context, "--offline")

    refused = img.fails(
        3, "build", "--offline", make_context({"Dockerfile": f"FROM scratch\nADD {world.url} /\n"})
    )
    assert f"Dockerfile:2: {world.url}: it was never fetched, and the build is offline" in refused.stderr
    git = make_context({"Dockerfile": f"FROM scratch\nADD {world.remote}#main /\n"})
    refused = img.fails(3, "build", "--offline", git)
    assert "Dockerfile:2" in refused.stderr
    assert "main of it was never fetched" in refused.stderr


def test_run_has_no_network_and_hits_what_an_online_build_made(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    seen = "RUN ls /sys/class/net > /seen\n"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo first\n{seen}"})
    img.ok("pull", busybox_image)
    img.build(context, "--offline")
    assert img.image().text("seen").split() == ["lo"]
    assert steps_run(img.build(context)) == []

    failing = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN wget -T 5 http://127.0.0.1:1/\n"})
    refused = img.fails(1, "build", "--offline", failing)
    assert "hint: --offline gives RUN no network" in refused.stderr


def test_a_step_that_asks_for_the_network_by_name_hits_or_is_refused(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --network=host echo a > /a\n"})
    img.ok("pull", busybox_image)
    allowed = ("--allow", "network.host")
    refused = img.fails(2, "build", "--offline", *allowed, context)
    assert (
        "Dockerfile:2: this step asks for the network of the host, and --offline gives it none"
        in refused.stderr
    )
    img.build(context, *allowed)
    assert steps_run(img.build(context, "--offline", *allowed)) == []


@pytest.mark.parametrize(
    "flags", [("--push", "-t", "127.0.0.1:1/t"), ("--pull",), ("--network=host", "--allow=network.host")]
)
def test_flags_that_need_the_network_contradict_it(
    img: Img, make_context: Context, flags: tuple[str, ...]
) -> None:
    refused = img.fails(2, "build", "--offline", *flags, make_context({"Dockerfile": "FROM scratch\n"}))
    assert "needs the network, and --offline leaves it alone" in refused.stderr
