"""What leaves: blobs sent while they are made, beside a build, to several names, of blocks that are known."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Context, MakeImg
from tests.support.between import Between
from tests.support.command import Img
from tests.support.orphans import Orphans
from tests.support.registry import Registry, copy

pytestmark = pytest.mark.once

MIB = 1 << 20
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKERFILE = "FROM scratch\nCOPY . /\n"


def noise(mebibytes: int, seed: int = 1) -> bytes:
    """Bytes of which a blob is as long as they are."""
    return random.Random(seed).randbytes(mebibytes * MIB)


@pytest.fixture
def between(registry: Registry) -> Iterator[Between]:
    """A proxy before the registry that sees what goes there."""
    with Between(int(registry.host.rpartition(":")[2])) as proxy:
        yield proxy


def at(between: Between, name: str) -> str:
    """A name in the registry, through the proxy."""
    return f"127.0.0.1:{between.port}/{name}"


def behind(between: Between, name: str) -> str:
    """The same name in the registry itself, as other people's tools read it."""
    return name.replace(f":{between.port}/", f":{between.target}/")


def manifest_of(name: str) -> dict[str, Any]:
    """The manifest that a registry has, as skopeo reads it."""
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"],
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    document: dict[str, Any] = json.loads(raw)
    return {**document, "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}


def layers_of(name: str) -> list[tuple[str, str]]:
    """Media type and digest of each layer that a registry has under a name."""
    return [(layer["mediaType"], layer["digest"]) for layer in manifest_of(name)["layers"]]


def read_by_others(name: str, folder: Path) -> bytes:
    """The tar of an image's last layer, after skopeo, umoci, gzip and Python have read it."""
    copy(f"docker://{name}", f"oci:{folder / 'layout'}:x")
    bundle = folder / "bundle"
    subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{folder / 'layout'}:x", str(bundle)],
        check=True,
        capture_output=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )
    _, digest = layers_of(name)[-1]
    blob = folder / "layout" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    with blob.open("rb") as stream:
        subprocess.run(["gzip", "-t"], stdin=stream, check=True, timeout=60)
    return gzip.decompress(blob.read_bytes())


# ---- while they are made -------------------------------------------------------------------------


def test_a_layer_is_sent_in_parts_while_it_is_compressed(
    img: Img, make_context: Context, between: Between, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": DOCKERFILE, "big": noise(24), "text": "words\n" * 100_000})
    name = at(between, "pushing/parts:1")
    img.build(context, tag=name)
    digest = img.ok("push", name).stdout.strip()
    parts = [seen for seen in between.seen if seen.method == "PATCH"]
    assert parts and all(part.status == 202 for part in parts)
    sent = [part.headers["Content-Range"] for part in parts]
    assert sent[0].startswith("0-") and sum(part.body_bytes for part in parts) > 24 * MIB
    assert manifest_of(behind(between, name))["digest"] == digest
    assert b"big" in read_by_others(behind(between, name), tmp_path)
    # The store has the blob as well: to another place it goes whole, and is asked for first.
    other = at(between, "pushing/parts-again:1")
    img.ok("tag", name, other)
    before = between.count("PATCH")
    assert img.ok("push", other).stdout.strip() == digest
    assert between.count("PATCH") == before


@pytest.mark.parametrize(
    ("fault", "wholes"),
    [
        ({"method": "PATCH", "status": 404}, 1),
        ({"method": "PATCH", "status": 405}, 1),
        ({"method": "PATCH", "status": 500, "times": 9}, 1),
        ({"method": "PATCH", "hang_up": True}, 0),
        ({"method": "PATCH", "status": 202, "headers": {"Range": "0-17"}}, 0),
        ({"method": "PUT", "path": "digest=", "bodiless": True, "status": 404}, 0),
    ],
    ids=["404", "405", "500", "hangs-up", "another-range", "not-closed"],
)
def test_a_registry_that_takes_no_parts_gets_the_blob_whole_and_one_that_errs_the_part_again(
    img: Img, make_context: Context, between: Between, fault: dict[str, Any], wholes: int, tmp_path: Path
) -> None:
    content = noise(10, seed=len(str(fault)))
    name = at(between, f"pushing/whole-{len(str(fault))}:1")
    img.build(make_context({"Dockerfile": DOCKERFILE, "big": content}), tag=name)
    between.spoil(**fault)
    digest = img.ok("push", name).stdout.strip()
    assert manifest_of(behind(between, name))["digest"] == digest
    assert content in read_by_others(behind(between, name), tmp_path)
    whole = [seen for seen in between.seen if seen.method == "PUT" and seen.body_bytes > 10 * MIB]
    assert len(whole) == wholes


def test_a_push_that_was_killed_leaves_a_store_that_works(
    img: Img, make_context: Context, between: Between, tmp_path: Path
) -> None:
    name = at(between, "pushing/killed:1")
    img.build(make_context({"Dockerfile": DOCKERFILE, "big": noise(16, seed=3)}), tag=name)
    between.spoil(method="PATCH", hang=True)
    with Orphans() as orphans:
        process = img.start("push", name)
        assert between.waiting.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert orphans.left() == []
    img.ok("prune")
    assert not list((img.state / "work").iterdir())
    digest = img.ok("push", name).stdout.strip()
    assert manifest_of(behind(between, name))["digest"] == digest
    read_by_others(behind(between, name), tmp_path)


# ---- beside a build ------------------------------------------------------------------------------


@pytest.fixture
def gate() -> Iterator[Callable[[Callable[[], None]], str]]:
    """Starts a server that answers once what it is given returns; gives its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(awaited: Callable[[], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                awaited()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_layers_leave_while_later_steps_run(
    img: Img,
    make_context: Context,
    between: Between,
    busybox_image: str,
    gate: Callable[[Callable[[], None]], str],
    tmp_path: Path,
) -> None:
    def sent() -> None:
        between.wait_for("PUT", "/v2/pushing/beside/blobs/")
        assert not between.count("PUT", "/manifests/")

    url = gate(sent)
    dockerfile = (
        f"FROM {busybox_image} AS other\nCOPY other /other\n"
        f"FROM {busybox_image}\nCOPY big /\nCOPY --from=other /other /\n"
        f"RUN --network=host wget -q -O /dev/null {url}\n"
    )
    context = make_context({"Dockerfile": dockerfile, "big": noise(12, seed=4), "other": noise(9, seed=5)})
    name = at(between, "pushing/beside:1")
    result = img.ok("build", "--allow", "network.host", "--push", "--json", "-t", name, context).json()
    assert result["pushed"] == {name: manifest_of(behind(between, name))["digest"]}
    read_by_others(behind(between, name), tmp_path)
    # Of the other stage nothing left but what the target copied: two layers, the base, and the config.
    put = [seen.path for seen in between.seen if seen.method == "PUT" and "/blobs/" in seen.path]
    assert len({path.partition("digest=")[2] for path in put}) <= 5


def test_a_build_that_fails_names_nothing(
    img: Img, make_context: Context, between: Between, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nCOPY big /\nRUN false\n"
    name = at(between, "pushing/failed:1")
    context = make_context({"Dockerfile": dockerfile, "big": noise(9, seed=6)})
    outcome = img("build", "--push", "-t", name, context)
    assert outcome.code != 0 and "Traceback" not in outcome.text
    assert not between.count("PUT", "/manifests/")
    # What did not end is tried again by the next build.
    (context / "Dockerfile").write_text(dockerfile.replace("false", "true"))
    img.ok("build", "--push", "-t", name, context)
    assert len(layers_of(behind(between, name))) >= 2


def test_several_names_are_pushed_together_and_a_blob_is_sent_once(
    img: Img, make_context: Context, between: Between
) -> None:
    names = [at(between, f"pushing/{name}") for name in ("a:1", "a:2", "b:1")]
    context = make_context({"Dockerfile": DOCKERFILE, "big": noise(12, seed=7)})
    tags = [word for name in names for word in ("-t", name)]
    pushed = img.ok("build", "--push", "--json", *tags, context).json()["pushed"]
    assert list(pushed) == names and len(set(pushed.values())) == 1
    assert sum(seen.body_bytes for seen in between.seen) < 13 * MIB
    others = [at(between, f"pushing/{name}") for name in ("c:1", "c:2")]
    for other in others:
        img.ok("tag", names[0], other)
    digests = img.ok("push", *others).stdout.split()
    assert digests == [pushed[names[0]]] * 2
    assert sum(seen.body_bytes for seen in between.seen) < 13 * MIB


# ---- how they are compressed ---------------------------------------------------------------------


def test_what_is_said_of_compression_is_done(
    img: Img, make_context: Context, busybox_image: str, registry: Registry
) -> None:
    name = f"{registry.host}/pushing/forms:1"
    base = layers_of(busybox_image)
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nCOPY . /\n", "text": "some words\n" * 99_999}
    )
    img.build(context, tag=name)
    img.ok("push", name)
    usual = layers_of(name)
    assert usual[:-1] == base and usual[-1][0] == GZIP
    img.ok("push", "--compression", "zstd", name)
    zstd = layers_of(name)
    assert zstd[:-1] == base and zstd[-1][0] == ZSTD
    img.ok("push", name)
    assert layers_of(name) == zstd  # as it was before, since nothing is said
    img.ok("push", "--compression", "gzip", name)
    assert layers_of(name) == usual
    img.ok("push", "--compression-level", "9", name)
    best = layers_of(name)
    assert best[-1][0] == GZIP and best != usual
    img.ok("push", "--compression", "zstd", "--force-compression", name)
    forced = layers_of(name)
    assert [kind for kind, _ in forced] == [ZSTD] * len(forced) and forced[-1] == zstd[-1]
    other = f"{registry.host}/pushing/forms:2"
    img.ok("build", "--push", "--compression", "zstd", "--compression-level", "19", "-t", other, context)
    assert layers_of(other)[:-1] == base and layers_of(other)[-1] not in zstd


def test_a_pulled_image_keeps_its_digest(img: Img, busybox_image: str, registry: Registry) -> None:
    img.ok("pull", busybox_image)
    name = f"{registry.host}/pushing/pulled:1"
    img.ok("tag", busybox_image, name)
    digest = img.ok("push", "--compression", "zstd", "--compression-level", "7", name).stdout.strip()
    assert digest == manifest_of(busybox_image)["digest"]


def test_a_level_that_is_none_is_refused(img: Img) -> None:
    assert "levels are 1 to 9" in img.fails(2, "push", "--compression-level", "10", "x").text
    assert (
        "has no level" in img.fails(2, "push", "--compression", "none", "--compression-level", "1", "x").text
    )
    assert "--push" in img.fails(2, "build", "--compression", "zstd", ".").text


# ---- documents, names, and what is refused -------------------------------------------------------


DOCKER = "application/vnd.docker"


def test_an_image_leaves_in_dockers_documents_or_in_ocis(
    img: Img, make_context: Context, busybox_image: str, registry: Registry, tmp_path: Path
) -> None:
    repository = f"{registry.host}/pushing/documents"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nCOPY Dockerfile /\n"})
    img.build(context, tag=f"{repository}:1")
    oci = img.ok("push", f"{repository}:1").stdout.strip()
    outcome = img.ok("push", "--format", "docker", "--digest-file", tmp_path / "digest", f"{repository}:1")
    docker = outcome.stdout.strip()
    assert (tmp_path / "digest").read_text() == docker != oci
    assert f"{oci} is {docker} there" in outcome.stderr
    manifest = manifest_of(f"{repository}:1")
    assert manifest["digest"] == docker
    assert manifest["mediaType"] == f"{DOCKER}.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == f"{DOCKER}.container.image.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {f"{DOCKER}.image.rootfs.diff.tar.gzip"}
    copy(
        f"docker://{repository}:1", f"docker-archive:{tmp_path / 'a.tar'}:x:1"
    )  # skopeo reads and verifies it
    assert img.ok("push", f"{repository}:1").stdout.strip() == docker  # as it is, where nothing is said
    assert img.ok("push", "--format", "oci", f"{repository}:1").stdout.strip() == oci
    img.ok("push", "--compression", "zstd", f"{repository}:1")
    refused = img.fails(2, "push", "--format", "docker", f"{repository}:1")
    assert "--compression gzip" in refused.text


def test_an_index_leaves_in_dockers_documents(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/pushing/list:1"
    platforms = ("--platform", "linux/amd64,linux/arm64")
    img.ok("build", *platforms, "-t", name, make_context({"Dockerfile": DOCKERFILE, "f": b"f"}))
    digest = img.ok("push", "--format", "docker", name).stdout.strip()
    index = manifest_of(name)
    assert (index["digest"], index["mediaType"]) == (digest, f"{DOCKER}.distribution.manifest.list.v2+json")
    members = [entry["mediaType"] for entry in index["manifests"]]
    assert members == [f"{DOCKER}.distribution.manifest.v2+json"] * 2
    copy(f"docker://{name}", f"dir:{tmp_path / 'copy'}", "--all")
    assert img.ok("push", name).stdout.strip() == digest


def test_every_tag_of_a_repository_is_pushed_and_each_digest_written(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    repository = f"{registry.host}/pushing/tags"
    for tag in ("a", "b"):
        img.build(make_context({"Dockerfile": DOCKERFILE, "f": tag}), tag=f"{repository}:{tag}")
    img.ok("tag", f"{repository}:a", f"{repository}-other:a")
    written = tmp_path / "digests"
    outcome = img.ok("push", "-a", "-q", "--digest-file", written, repository)
    digests = {f"{repository}:{tag}": manifest_of(f"{repository}:{tag}")["digest"] for tag in ("a", "b")}
    assert written.read_text() == "".join(f"{name}@{digest}\n" for name, digest in digests.items())
    assert outcome.stdout.split() == list(digests.values()) and not outcome.stderr
    assert "leave the tag out" in img.fails(2, "push", "-a", f"{repository}:a").text
    assert f"did you mean {repository}" in img.fails(5, "push", "-a", f"{registry.host}/pushing/tag").text
    # By its digest alone: the manifest is there again once it was deleted.
    pinned = f"{repository}@{digests[f'{repository}:a']}"
    assert img.ok("push", pinned).stdout.strip() == digests[f"{repository}:a"]


def test_a_push_that_is_not_allowed_is_refused_before_anything_is_compressed(
    img: Img, make_context: Context, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": DOCKERFILE, "big": noise(9, seed=9)})
    with (
        Registry(tmp_path / "read-only", readonly=True) as registry,
        Between(int(registry.host.rpartition(":")[2])) as between,
    ):
        name = at(between, "pushing/refused:1")
        img.build(context, tag=name)
        outcome = img.fails(3, "push", "--progress", "json", name)
        assert "read-only" in outcome.text and '"compress"' not in outcome.text
        assert [seen.method for seen in between.seen] == ["POST"]
        between.spoil(method="POST", status=403, body=b'{"errors":[{"code":"DENIED","message":"no"}]}')
        assert "refuses access" in img.fails(3, "push", name).text
        assert not between.count("PATCH")
    assert not [blob for blob in (img.state / "oci/blobs/sha256").iterdir() if blob.stat().st_size > MIB]


def test_events_say_what_was_sent_mounted_and_there(
    img: Img, make_context: Context, registry: Registry
) -> None:
    first, second = (f"{registry.host}/pushing/{name}:1" for name in ("told", "told-again"))
    img.build(make_context({"Dockerfile": DOCKERFILE, "f": noise(1, seed=10)}), tag=first)
    img.ok("tag", first, second)
    kinds = []
    for name in (first, first, second):
        lines = img.ok("push", "--progress", "json", name).stderr.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        (done,) = (event for event in events if event["event"] == "Transferred")
        assert (done["action"], done["name"]) == ("push", name)
        kinds.append((done["moved"], done["mounted"], done["present"]))
        transfers = [event for event in events if event["event"] == "Transfer"]
        ends = {event["kind"] for event in transfers if event["action"] == "push" and event["kind"]}
        assert ends <= {"sent", "mounted", "present"} and ends
        assert bool(done["moved_bytes"]) == bool(done["moved"])
    assert kinds == [(1, 0, 0), (0, 0, 1), (0, 1, 0)]


# ---- blocks that are known -----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["sound", "rotten blob", "broken index", "no index", "no blob"])
def test_no_history_shows_in_a_blob(
    make_img: MakeImg, make_context: Context, registry: Registry, state: str
) -> None:
    files = {f"f{number:02}": noise(1, seed=number) for number in range(12)}
    context = make_context({"Dockerfile": DOCKERFILE, **files})
    first, second = (f"{registry.host}/pushing/history-{state.replace(' ', '-')}:{n}" for n in (1, 2))
    img = make_img()
    img.ok("build", "--push", "-t", first, context)
    (index,) = (img.state / "blocks").iterdir()
    blob = img.state / "oci" / "blobs" / "sha256" / index.name
    if state == "rotten blob":
        blob.write_bytes(bytes(byte ^ 1 for byte in blob.read_bytes()))
    elif state == "broken index":
        index.write_bytes(index.read_bytes()[:-1])
    elif state == "no index":
        index.unlink()
    elif state == "no blob":
        blob.unlink()
    (context / "f05").write_bytes(b"another file")
    img.ok("build", "--push", "-t", second, context)
    alone = make_img()
    alone.build(context, "--no-cache", tag=second)
    assert layers_of(second) == [(GZIP, digest) for digest in _packed(alone, second)]


def _packed(img: Img, name: str) -> list[str]:
    """The layers of an image as a store without history packs them."""
    archive = img.home / "alone.tar"
    img.ok("save", "--format", "oci", "-o", archive, name)
    copy(f"oci-archive:{archive}", f"oci:{img.home / 'alone'}:x")
    index = json.loads((img.home / "alone" / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((img.home / "alone" / "blobs" / "sha256" / digest).read_text())
    return [layer["digest"] for layer in manifest["layers"]]


def test_an_index_goes_with_its_blob(img: Img, make_context: Context, tmp_path: Path) -> None:
    context = make_context({"Dockerfile": DOCKERFILE, "big": noise(6, seed=8)})
    img.build(context, tag="app")
    img.ok("save", "-o", tmp_path / "app.tar", "app")
    assert len(list((img.state / "blocks").iterdir())) == 1
    img.ok("rm", "app")
    img.ok("prune", "--all")
    assert not list((img.state / "blocks").iterdir())
    assert not list((img.state / "oci" / "blobs" / "sha256").iterdir())
