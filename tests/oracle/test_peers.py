"""Results checked by other people's tools: skopeo, umoci, podman with runc, buildah."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context
from tests.support import hosts, trees
from tests.support.command import Img, steps_run
from tests.support.layout import Item, folder, tar_of
from tests.support.peers import Peers
from tests.support.registry import Registry, copy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# Mount points, which buildah leaves in a layer and img does not, and the day of a password's change.
VOLATILE = (
    "run", "dev", "proc", "sys", "etc/resolv.conf", "etc/hosts", "etc/hostname", "etc/shadow", "etc/shadow-",
)  # fmt: skip
CONFIG_FIELDS = (
    "Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "OnBuild", "Shell", "StopSignal", "User", "Volumes",
    "WorkingDir",
)  # fmt: skip


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """podman and buildah with storage of their own."""
    made = Peers(tmp_path_factory.mktemp("peers") / "p")
    yield made
    made.close()


def same_config(one: trees.ReadImage, two: trees.ReadImage) -> None:
    """Both configurations say the same in every field that a container can see."""

    def shown(image: trees.ReadImage) -> dict[str, Any]:
        config = {name: image.config.get(name) or None for name in CONFIG_FIELDS}
        config["Labels"] = {
            k: v for k, v in (config["Labels"] or {}).items() if not k.startswith("io.buildah.")
        } or None
        config["Env"] = sorted(config["Env"] or [])
        config["WorkingDir"] = config["WorkingDir"] or "/"
        return config

    assert shown(one) == shown(two)


def same_files(one: trees.ReadImage, two: trees.ReadImage) -> None:
    """Both images hold the same files, types, modes, owners, link targets, contents."""
    lines = trees.difference(one.tree, two.tree, ignore=VOLATILE)
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:40])


def _small(base: str) -> dict[str, str | bytes]:
    archive = gzip.compress(tar_of([folder("in", 0o700, 3, 4), Item(path="in/a", data=b"a", uid=5, gid=6)]))
    return {
        "Dockerfile": f"""\
FROM {base} AS one
RUN mkdir -p /a/b && touch /a/b/c /a/gone && ln /a/b/c /a/hard && ln -s b /a/soft && chmod 2755 /a/b
RUN rm /a/gone && mkfifo /a/pipe && chown -R 12:34 /a/b
FROM {base}
ARG V=1
ENV A=$V B="x y"
WORKDIR /w/x
COPY --from=one /a /a
COPY --chown=worker:staff d ./d/
COPY --chmod=0604 d/e /mode
ADD in.tar.gz /add/
COPY d/e /bin/../top
RUN rm -rf /home && mkdir /home && echo $A > /home/v && chown worker /home/v && chmod 4711 /home/v
LABEL l=$V
EXPOSE 53/udp 80
VOLUME /v
USER worker
STOPSIGNAL SIGUSR1
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /home/v"]
""",
        "d/e": "e\n",
        "d/f/g": "g\n",
        "in.tar.gz": archive,
    }


@pytest.fixture
def small(img: Img, make_context: Context, busybox_image: str, registry: Registry) -> tuple[Path, str]:
    """A Dockerfile with a bit of everything, built and pushed: its context and its reference."""
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    context = make_context(_small(busybox_image))
    name = f"{registry.host}/small:1"
    img.build(context, tag=name)
    img.ok("push", name)
    return context, name


def test_buildah_builds_the_same(img: Img, small: tuple[Path, str], peers: Peers) -> None:
    context, name = small
    theirs, ours = peers.bud(context, "small"), img.image(name)
    same_files(ours, theirs)
    same_config(ours, theirs)


def test_buildah_copies_the_same(
    img: Img, make_context: Context, busybox_image: str, peers: Peers, tmp_path: Path
) -> None:
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    archive = tar_of([folder("in", 0o700, 3, 4), Item(path="in/a", data=b"a", uid=5, gid=6)])
    dockerfile = f"""\
FROM {busybox_image}
WORKDIR /w
COPY *.txt [w-y]? sub/ ./all/
COPY --chown=3:4 --chmod=640 a.txt f
ADD one.tgz b.txt /at/
COPY link ../w/link
COPY . /ctx/
COPY sub /w/all/deep
"""
    files: dict[str, str | bytes] = {
        "Dockerfile": dockerfile, "a.txt": "a", "b.txt": "b", "x1": "x", "sub/s": "s", "sub/skip/t": "t",
        "d/x": "x", "d/y": "y", "d/z/y": "z", "no.md": "", "keep.md": "k", "one.tgz": gzip.compress(archive),
        ".dockerignore": "*.md\n!keep.md\n**/skip\nd/*\n!d/y\n# none\n/nothing\n",
    }  # fmt: skip
    context = make_context(files)
    (context / "link").symlink_to("a.txt")
    img.build(context)
    same_files(img.image(), peers.bud(context, "copies"))


def test_skopeo_inspects_what_was_pushed(small: tuple[Path, str], peers: Peers) -> None:
    text = peers.run("skopeo", "--insecure-policy", "inspect", "--tls-verify=false", f"docker://{small[1]}")
    shown = json.loads(text)
    assert shown["Labels"] == {"l": "1"}
    assert shown["Os"] == "linux"
    assert len(shown["Layers"]) >= 6


def test_umoci_unpacks_what_was_pushed(
    img: Img, small: tuple[Path, str], peers: Peers, tmp_path: Path
) -> None:
    copy(f"docker://{small[1]}", f"oci:{tmp_path / 'layout'}:x")
    peers.run(
        *hosts.inside("umoci", "unpack", "--image", f"{tmp_path / 'layout'}:x", str(tmp_path / "bundle"))
    )
    lines = peers.run(
        *hosts.inside("find", str(tmp_path / "bundle/rootfs"), "-mindepth", "1", "-printf", "%P %m %U:%G\n")
    )
    tree = img.image(small[1]).tree
    expected = {f"{path} {e.bits} {e.owner}" for path, e in tree.items()}
    assert set(lines.splitlines()) == expected
    hosts.remove_tree(tmp_path / "bundle")


def test_podman_loads_and_runs_it(img: Img, small: tuple[Path, str], peers: Peers, tmp_path: Path) -> None:
    for name in ("docker", "oci"):
        archive = tmp_path / f"{name}.tar"
        img.ok("save", "--format", name, "-o", archive, small[1])
        peers.podman("load", "-i", str(archive))
        loaded = peers.podman("images", "-q").split()[0]
        assert peers.podman_run(loaded) == "1\n"
        assert peers.podman_run(loaded, "id -u; stat -c %U:%G:%a /w/x/d/e").split() == [
            "1000",
            "worker:staff:644",
        ]
        peers.podman("rmi", "--all", "--force")


def test_buildah_pulls_it_from_the_registry(small: tuple[Path, str], peers: Peers) -> None:
    identity = peers.buildah("pull", "--quiet", "--tls-verify=false", small[1]).split()[-1]
    config = json.loads(peers.buildah("inspect", "--type", "image", identity))["OCIv1"]["config"]
    assert config["User"] == "worker"
    assert config["Cmd"] == ["cat /home/v"]


@pytest.fixture(scope="session")
def debian_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/debian with the archive that its Dockerfile adds."""
    context = tmp_path_factory.mktemp("debian") / "context"
    shutil.copytree(EXAMPLES / "debian", context)
    data = tar_of([folder("table"), Item(path="table/one", data=b"1\n", mode=0o640, uid=7, gid=8)])
    (context / "data.tar.gz").write_bytes(gzip.compress(data))
    return context


def test_a_real_debian_build_works_everywhere_and_is_the_same_as_buildahs(
    img: Img, debian_image: str, debian_context: Path, registry: Registry, peers: Peers, tmp_path: Path
) -> None:
    """The issue's own example: compiler, sources, second stage, users, set-user-id, entrypoint."""
    if not hosts.many_ids():
        pytest.skip("needs more than one user id: a range in /etc/subuid and uidmap")
    name = f"{registry.host}/greet:1"
    argument = f"BASE={debian_image}"
    img.ok("pull", debian_image)
    img.ok("build", "-t", name, "--build-arg", argument, debian_context, timeout=900)
    ours = img.image(name)
    assert ours.tree["usr/local/bin/greet"].owner == "1234:1234"
    assert ours.tree["opt/out/bin/greet"].owner == "123:45"
    assert ours.tree["opt/out/bin/greet"].bits == "4750"
    assert ours.tree["srv/data/table/one"].owner == "7:8"
    assert ours.tree["etc/greeters"].bits == "640"
    assert ours.text("home/greeter/who") == "greeter\n"
    img.ok("push", name)
    copy(f"docker://{name}", f"oci:{tmp_path / 'layout'}:x")
    peers.run(
        *hosts.inside("umoci", "unpack", "--image", f"{tmp_path / 'layout'}:x", str(tmp_path / "bundle"))
    )
    hosts.remove_tree(tmp_path / "bundle")
    peers.podman("pull", "--quiet", "--tls-verify=false", name)
    assert peers.podman_run(name) == "hello everybody: built as anybody\n"
    theirs = peers.bud(debian_context, "greet", "--build-arg", argument)
    same_config(ours, theirs)
    same_files(ours, theirs)
    again = img.ok("build", "-t", name, "--build-arg", argument, debian_context)
    assert steps_run(again) == []
