"""Two stores stand for two machines: what one built, the other does not run again."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from img import Client
from img.oci import Manifest, parse
from img.progress import StepDone

from tests.conftest import Context, MakeImg
from tests.suites.registry.servers import Call, FaultyRegistry
from tests.support.caches import CacheFolder, layers, records
from tests.support.command import Img, steps_run
from tests.support.registry import Registry, copy

STAMP = "head -c 16 /dev/urandom | md5sum"


@pytest.fixture
def stages(make_context: Context, busybox_image: str) -> Path:
    """Two stages that a third copies from; every RUN would give something else if it ran again."""
    return make_context(
        {
            "Dockerfile": (
                f"FROM {busybox_image} AS one\nCOPY a /a\nRUN {STAMP} > /one; echo 1 > /only\n"
                f"FROM {busybox_image} AS two\nRUN {STAMP} > /two; echo 2 > /only\nRUN {STAMP} > /unused\n"
                f"FROM {busybox_image}\nRUN {STAMP} > /own\nCOPY --from=one /one /one\n"
                f"COPY --from=two /two /two\nWORKDIR /w\nRUN true\nARG LAST=1\n"
                "RUN --mount=from=one,target=/from echo $LAST; cat /one /from/one /two > /both;"
                f" {STAMP} > /last\n"
            ),
            "a": "a",
        }
    )


@pytest.fixture
def watched() -> Iterator[FaultyRegistry]:
    """A registry that counts what it is asked for."""
    with FaultyRegistry() as running:
        yield running


def serve(server: FaultyRegistry, cache: CacheFolder) -> str:
    """Has a registry serve a cache that was written to a folder; gives its reference."""
    raw = json.dumps(cache.manifest).encode()
    document = parse(raw, "", where="cache")
    assert isinstance(document, Manifest)
    server.add(document, cache.blobs(), tag="latest")
    return f"{server.host}/cache"


def image(img: Img) -> object:
    """All that two machines must agree on: the config, layers and all, and what names it."""
    read = img.image()
    return read.document, json.loads(img.ok("inspect", "t").stdout)


@pytest.mark.once
@pytest.mark.parametrize("mode", ["min", "max"])
def test_nothing_runs_where_another_machine_ran_it(
    mode: str, stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    ref = f"{registry.host}/share/{mode}"
    a, b = make_img(), make_img()
    a.build(stages, "--cache-to", f"type=registry,ref={ref},mode={mode}")
    again = b.build(stages, "--cache-from", f"type=registry,ref={ref}")
    assert steps_run(again) == []
    assert image(b) == image(a)
    # What was lent is known here now, as far as the layers came.
    assert records(b.state) <= records(a.state)


@pytest.mark.once
def test_only_the_layers_of_the_image_are_fetched(
    stages: Path, make_img: MakeImg, watched: FaultyRegistry, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    a.build(stages, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mode=max")
    cache = CacheFolder(tmp_path / "cache")
    b.build(stages, "--cache-from", f"type=registry,ref={serve(watched, cache)}")
    own = {layer.partition("sha256:")[2] for layer in layers(b.state)}
    fetched = [call.path.rpartition("/")[2] for call in watched.calls if "/blobs/" in call.path]
    wanted = {cache.manifest["config"]["digest"]}
    wanted |= {
        record["layer"]["digest"]
        for record in cache.document["records"]
        if record.get("diff_id", "").partition(":")[2] in own
    }
    assert sorted(fetched) == sorted(wanted)
    assert len(cache.manifest["layers"]) > len(wanted) - 1
    assert {call.method for call in watched.calls} == {"GET"}


@pytest.mark.once
def test_several_targets_share_one_cache(stages: Path, make_img: MakeImg, tmp_path: Path) -> None:
    """With `mode=min` the layers of all of them are there."""
    cache = tmp_path / "cache"
    targets = ("--target", "one", "--target", "two")
    a, b = make_img(), make_img()
    a.ok("build", *targets, "--cache-to", f"type=local,dest={cache}", stages)
    again = b.ok("build", *targets, "--cache-from", f"type=local,src={cache}", stages)
    assert steps_run(again) == []
    assert layers(b.state) == layers(a.state) - layers_of_bases(a)


def layers_of_bases(a: Img) -> set[str]:
    """Layers that only the machine needed on which steps ran: no record names them."""
    named = {diff_id for _, diff_id, _ in records(a.state)}
    return layers(a.state) - named


@pytest.mark.once
def test_a_build_that_the_store_knows_asks_nobody(
    stages: Path, make_img: MakeImg, watched: FaultyRegistry
) -> None:
    img = make_img()
    img.build(stages)
    img.build(stages, "--cache-from", f"{watched.host}/cache", "--cache-from", f"{watched.host}/other")
    assert watched.calls == []


@pytest.mark.once
def test_what_changed_runs_on_the_layers_of_the_cache(
    stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    ref = f"{registry.host}/share/changed"
    a, b = make_img(), make_img()
    a.build(stages, "--cache-to", f"type=registry,ref={ref},mode=max")
    again = b.build(stages, "--cache-from", ref, "--build-arg", "LAST=2")
    assert [step for step in steps_run(again) if "LAST" in step] == steps_run(again) != []
    assert b.image().text("own") == a.image().text("own")
    assert b.image().text("both") == a.image().text("both")
    assert b.image().text("last") != a.image().text("last")


@pytest.mark.once
def test_a_layer_that_mode_min_left_out_is_built_where_it_is_needed(
    make_context: Context, busybox_image: str, make_img: MakeImg, registry: Registry
) -> None:
    """The last RUN looks into stage `one`, whose files the cache does not have."""
    context = make_context(
        {
            "Dockerfile": (
                f"FROM {busybox_image} AS one\nRUN echo 1 > /one; echo 2 > /only\n"
                f"FROM {busybox_image} AS two\nRUN {STAMP} > /two\nRUN {STAMP} > /unused\n"
                f"FROM {busybox_image}\nCOPY --from=one /one /one\nCOPY --from=two /two /two\nARG LAST=1\n"
                f"RUN --mount=from=one,target=/from echo $LAST > /last; cp /from/one /from-one\n"
            ),
        }
    )
    ref = f"{registry.host}/share/needed"
    a, b = make_img(), make_img()
    a.build(context, "--cache-to", f"type=registry,ref={ref}")
    again = b.build(context, "--cache-from", ref, "--build-arg", "LAST=2")
    assert len({step for step in steps_run(again) if "echo 1" in step or "LAST" in step}) == 2
    assert len(set(steps_run(again))) == 2
    assert b.image().text("two") == a.image().text("two")
    assert "left out" not in again.stderr


@pytest.mark.once
def test_the_store_knows_afterwards_what_was_lent(
    make_context: Context, busybox_image: str, make_img: MakeImg, tmp_path: Path
) -> None:
    context = make_context(
        {"Dockerfile": f"FROM {busybox_image}\nRUN {STAMP} > /a\nRUN true\nRUN {STAMP} > /b\n"}
    )
    cache = tmp_path / "cache"
    a, b = make_img(), make_img()
    a.build(context, "--cache-to", f"type=local,dest={cache}")
    b.build(context, "--cache-from", f"type=local,src={cache}")
    assert records(b.state) == records(a.state)
    assert steps_run(b.build(context)) == []
    assert image(b) == image(a)


@pytest.mark.once
def test_several_caches_are_asked_in_turn(
    make_context: Context, busybox_image: str, make_img: MakeImg, registry: Registry, tmp_path: Path
) -> None:
    def context(*words: str) -> Path:
        lines = "".join(f"RUN echo {word}; {STAMP} > /{word}\n" for word in words)
        return make_context({"Dockerfile": f"FROM {busybox_image}\n{lines}"})

    folder, ref = f"type=local,dest={tmp_path / 'cache'}", f"{registry.host}/share/several"
    make_img().build(context("one"), "--cache-to", folder)
    known = ("--cache-from", f"type=local,src={tmp_path / 'cache'}")
    make_img().build(context("one", "two"), *known, "--cache-to", ref)
    last = make_img().build(context("one", "two"), *known, "--cache-from", ref)
    assert steps_run(last) == []


@pytest.mark.once
def test_what_one_cache_lent_goes_to_another(
    stages: Path, make_img: MakeImg, registry: Registry, tmp_path: Path
) -> None:
    """Also the layers that nobody needed on the way."""
    cache, ref = tmp_path / "cache", f"{registry.host}/share/onward"
    a, b, c = make_img(), make_img(), make_img()
    a.build(stages, "--cache-to", f"type=local,dest={cache},mode=max")
    b.build(
        stages, "--cache-from", f"type=local,src={cache}", "--cache-to", f"type=registry,ref={ref},mode=max"
    )
    again = c.build(stages, "--cache-from", ref, "--build-arg", "LAST=2")
    assert [step for step in steps_run(again) if "LAST" not in step] == []


@pytest.mark.once
def test_a_cache_is_written_to_several_places(
    stages: Path, make_img: MakeImg, registry: Registry, tmp_path: Path
) -> None:
    a = make_img()
    places = [
        f"type=local,dest={tmp_path / 'one'}",
        f"type=registry,ref={registry.host}/share/places,mode=max",
    ]
    a.build(stages, *(word for place in places for word in ("--cache-to", place)))
    one, two = f"type=local,src={tmp_path / 'one'}", f"type=registry,ref={registry.host}/share/places"
    assert steps_run(make_img().build(stages, "--cache-from", one)) == []
    assert steps_run(make_img().build(stages, "--cache-from", two)) == []


@pytest.mark.once
def test_the_same_cache_may_be_read_and_written(stages: Path, make_img: MakeImg, registry: Registry) -> None:
    ref = f"{registry.host}/share/both:main"
    both = ("--cache-from", ref, "--cache-to", f"type=registry,ref={ref},mode=max")
    first = make_img().build(stages, *both)
    assert "there is no cache yet" in first.stderr
    again = make_img().build(stages, *both)
    assert steps_run(again) == []
    assert "the cache is as it was" in again.stderr


@pytest.mark.once
def test_a_build_that_failed_shares_what_was_done(
    make_context: Context, busybox_image: str, make_img: MakeImg, tmp_path: Path
) -> None:
    def context(end: str) -> Path:
        return make_context(
            {"Dockerfile": f"FROM {busybox_image}\nRUN {STAMP} > /a\nRUN {STAMP} > /b\n{end}"}
        )

    cache = tmp_path / "cache"
    to, source = f"type=local,dest={cache}", f"type=local,src={cache}"
    failed = make_img().fails(1, "build", "--cache-to", to, context("RUN exit 3\n"))
    assert "exit code 3" in failed.text or "3" in failed.text
    assert steps_run(make_img().build(context(""), "--cache-from", source)) == []


@pytest.mark.once
def test_a_build_that_failed_takes_nothing_out_of_the_cache(
    make_context: Context, busybox_image: str, make_img: MakeImg, registry: Registry
) -> None:
    def context(middle: str) -> Path:
        lines = f"RUN {STAMP} > /a\n{middle}RUN {STAMP} > /b\n"
        return make_context({"Dockerfile": f"FROM {busybox_image}\n{lines}"})

    ref = f"{registry.host}/share/kept"
    make_img().build(context(""), "--cache-to", ref)
    make_img().fails(1, "build", "--cache-from", ref, "--cache-to", ref, context("RUN exit 3\n"))
    assert steps_run(make_img().build(context(""), "--cache-from", ref)) == []


@pytest.mark.once
@pytest.mark.parametrize("how", ["flag", "argument"])
def test_an_image_may_carry_its_cache(how: str, stages: Path, make_img: MakeImg, registry: Registry) -> None:
    name = f"{registry.host}/share/inline:{how}"
    asks = ("--cache-to", "type=inline") if how == "flag" else ("--build-arg", "BUILDKIT_INLINE_CACHE=1")
    a, b = make_img(), make_img()
    a.ok("build", "-t", name, *asks, "--push", stages)
    a.ok("tag", name, "t")
    again = b.build(stages, "--cache-from", name)
    assert steps_run(again) == []
    assert b.image().document == a.image().document


@pytest.mark.once
def test_an_image_carries_its_cache_also_where_it_is_pushed_later(
    stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    name = f"{registry.host}/share/later"
    a, plain = make_img(), make_img()
    a.ok("build", "-t", name, "--cache-to", "type=inline", stages)
    a.ok("push", name)
    assert steps_run(make_img().build(stages, "--cache-from", f"type=registry,ref={name}")) == []
    # The image itself is what it would be without.
    plain.build(stages, "--cache-from", name)
    a.ok("tag", name, "t")
    assert plain.image().document == a.image().document


@pytest.mark.once
def test_an_image_without_a_cache_is_none(stages: Path, make_img: MakeImg, busybox_image: str) -> None:
    outcome = make_img().build(stages, "--cache-from", busybox_image)
    assert "it holds no cache that this img reads" in outcome.stderr


@pytest.mark.once
@pytest.mark.parametrize("compression", ["zstd,compression-level=19", "uncompressed", "gzip"])
def test_layers_may_be_compressed_otherwise(
    compression: str, stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    a, b = make_img(), make_img()
    a.build(stages, "--cache-to", f"type=local,dest={cache},compression={compression}")
    kinds = {layer["mediaType"].rpartition(".")[2] for layer in CacheFolder(cache).manifest["layers"]}
    assert kinds == {{"z": "tar+zstd", "u": "tar", "g": "tar+gzip"}[compression[0]]}
    assert steps_run(b.build(stages, "--cache-from", f"type=local,src={cache}")) == []
    assert image(b) == image(a)


@pytest.mark.once
def test_a_layer_is_compressed_again_where_that_is_forced(
    stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    a = make_img()
    a.build(stages, "--cache-to", f"type=local,dest={tmp_path / 'one'}")
    a.build(stages, "--cache-to", f"type=local,dest={tmp_path / 'two'},compression=zstd")
    a.build(
        stages, "--cache-to", f"type=local,dest={tmp_path / 'three'},compression=zstd,force-compression=true"
    )

    def kinds(name: str) -> set[str]:
        return {layer["mediaType"] for layer in CacheFolder(tmp_path / name).manifest["layers"]}

    assert kinds("two") == kinds("one")
    assert {kind.rpartition("+")[2] for kind in kinds("three")} == {"zstd"}


@pytest.mark.once
def test_a_folder_holds_several_tags_until_it_is_reset(
    make_context: Context, busybox_image: str, make_img: MakeImg, tmp_path: Path
) -> None:
    def context(word: str) -> Path:
        return make_context({"Dockerfile": f"FROM {busybox_image}\nRUN echo {word}; {STAMP} > /{word}\n"})

    cache = tmp_path / "cache"
    one, two = context("one"), context("two")
    make_img().build(one, "--cache-to", f"type=local,dest={cache},tag=one")
    digest = json.loads((cache / "index.json").read_text())["manifests"][0]["digest"]
    make_img().build(two, "--cache-to", f"type=local,dest={cache},tag=two")
    for place, context_ in (("tag=one", one), ("tag=two", two), (f"digest={digest}", one)):
        source = f"type=local,src={cache},{place}"
        assert steps_run(make_img().build(context_, "--cache-from", source)) == []
    make_img().build(two, "--cache-to", f"type=local,dest={cache},tag=new,reset=true")
    tags = [
        entry["annotations"]["org.opencontainers.image.ref.name"]
        for entry in json.loads((cache / "index.json").read_text())["manifests"]
    ]
    assert tags == ["new"]
    assert len(list((cache / "blobs" / "sha256").iterdir())) == 3  # manifest, document, layer


@pytest.mark.once
def test_a_folder_is_named_from_where_one_stands(stages: Path, make_img: MakeImg, tmp_path: Path) -> None:
    a, b = make_img(), make_img()
    a.ok("build", "--cache-to", "type=local,dest=here", stages, cwd=tmp_path)
    assert (tmp_path / "here" / "index.json").is_file()
    assert steps_run(b.ok("build", "--cache-from", "type=local,src=here", stages, cwd=tmp_path)) == []


@pytest.mark.once
def test_the_library_shares_as_the_command_does(stages: Path, make_img: MakeImg, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make_img().build(stages, "--cache-to", f"type=local,dest={cache}")
    done: list[StepDone] = []
    b = make_img()
    with Client(
        state=b.state, progress=lambda event: done.append(event) if isinstance(event, StepDone) else None
    ) as client:
        result = client.build(stages, tag="t", cache_from=f"type=local,src={cache}")
    assert result.cached_steps == result.steps
    assert all(event.cached for event in done)


@pytest.mark.once
def test_no_cache_reads_none_and_writes_one(stages: Path, make_img: MakeImg, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    to, source = f"type=local,dest={cache}", f"type=local,src={cache}"
    make_img().build(stages, "--cache-to", to)
    before = CacheFolder(cache).document
    again = make_img().build(stages, "--cache-from", source, "--cache-to", to, "--no-cache")
    assert len(steps_run(again)) > 5
    assert CacheFolder(cache).document != before


@pytest.mark.once
def test_a_pushed_image_takes_its_layers_from_the_cache_beside_it(
    stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    """The blobs are in the cache's repository, and are mounted from there."""
    name, ref = f"{registry.host}/share/app", f"{registry.host}/share/app-cache"
    a, b = make_img(), make_img()
    a.ok("build", "--cache-to", f"type=registry,ref={ref},mode=max", stages)
    outcome = b.ok("build", "-t", name, "--push", "--cache-from", ref, stages)
    assert steps_run(outcome) == []
    links = registry.folder / "data/docker/registry/v2/repositories/share"
    own, shared = (
        {path.parent.name for path in (links / place / "_layers/sha256").glob("*/link")}
        for place in ("app", "app-cache")
    )
    assert len(own & shared) == 5  # those of its own steps; the base comes from elsewhere


@pytest.mark.once
def test_a_cache_does_not_take_the_place_of_the_image(
    stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    name = f"{registry.host}/share/clash:latest"
    outcome = make_img().fails(2, "build", "-t", name, "--push", "--cache-to", name, stages)
    assert "type=inline" in outcome.stderr


@pytest.mark.once
def test_the_registrys_own_collection_and_other_tools_keep_a_cache_whole(
    stages: Path, make_img: MakeImg, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry") as running:
        make_img().build(stages, "--cache-to", f"type=registry,ref={running.host}/cache,mode=max")
        subprocess.run(
            ["docker-registry", "garbage-collect", str(running.folder / "config.json")],
            check=True,
            capture_output=True,
        )
        copy(f"docker://{running.host}/cache", f"oci:{tmp_path / 'copy'}:latest")
        assert steps_run(make_img().build(stages, "--cache-from", f"{running.host}/cache")) == []
    source = f"type=local,src={tmp_path / 'copy'}"
    assert steps_run(make_img().build(stages, "--cache-from", source)) == []


@pytest.mark.once
def test_ctrl_c_ends_a_build_whose_cache_does_not_take_what_it_is_sent(
    make_img: MakeImg, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN {STAMP} > /a\n"})
    with Swallowing() as server:
        img = make_img()
        process = img.start("build", "--cache-to", f"{server.host}/cache", context)
        assert server.asked.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        server.let_go.set()
    assert img.ok("build", context).code == 0


class Swallowing(FaultyRegistry):
    """A registry that never answers an upload."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def serve(self, call: Call) -> None:
        if call.method == "POST":
            self.asked.set()
            self.let_go.wait(120)
        super().serve(call)


@pytest.mark.once
def test_an_offline_build_uses_folders_alone(
    stages: Path, make_img: MakeImg, watched: FaultyRegistry, tmp_path: Path, busybox_image: str
) -> None:
    cache, img = tmp_path / "cache", make_img()
    make_img().build(stages, "--cache-to", f"type=local,dest={cache},mode=max")
    img.ok("pull", busybox_image)
    places = ("--cache-from", f"{watched.host}/cache", "--cache-from", f"type=local,src={cache}")
    outcome = img.build(stages, "--offline", *places)
    assert steps_run(outcome) == []
    assert outcome.stderr.count("since the build is offline") == 1
    assert watched.calls == []


def test_a_pruned_layer_comes_back_from_the_cache(
    make_context: Context, busybox_image: str, make_img: MakeImg, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN {STAMP} > /a\n"})
    cache = tmp_path / "cache"
    img = make_img()
    img.build(context, "--cache-to", f"type=local,dest={cache}")
    before = image(img)
    img.ok("rm", "t")
    img.ok("prune", "--all")
    assert steps_run(img.build(context, "--cache-from", f"type=local,src={cache}")) == []
    assert image(img) == before


def test_machines_may_have_other_owners_links_and_devices_in_their_layers(
    make_context: Context, busybox_image: str, make_img: MakeImg, tmp_path: Path
) -> None:
    """What a layer may hold comes through: whoever unpacks it digests the same."""
    script = (
        "mkdir -p /d/e && echo x > /d/x && ln /d/x /d/y && ln -s x /d/l && chown 7:8 /d/e && chmod 4755 /d/x"
        " && chmod 1777 /d/e && mkfifo /d/p && rm /etc/group && rm -r /home && mkdir /home && touch /home/new"
        " && touch -d '2001-02-03 04:05:06' /d/x && echo long > /d/$(printf 'n%.0s' $(seq 150))"
    )
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN {script}\nCOPY d /d\n", "d/ü": "1"})
    cache = tmp_path / "cache"
    a, b = make_img(), make_img()
    a.build(context, "--cache-to", f"type=local,dest={cache}")
    assert steps_run(b.build(context, "--cache-from", f"type=local,src={cache}")) == []
    assert image(b) == image(a)
    assert b.image().tree == a.image().tree
