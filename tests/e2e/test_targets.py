"""Several targets and platforms in one build: what they share, what they are called, where they go."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from img.oci import Platform

from tests.conftest import Context
from tests.e2e.test_library import _run
from tests.support.command import Img, Outcome
from tests.support.registry import Registry, copy
from tests.support.trees import read_image

pytestmark = pytest.mark.once

BOTH = ("--platform", "linux/amd64,linux/arm64")
PER_PLATFORM = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n"
FILES = {"amd64": "amd64\n", "arm64": "arm64\n"}


def _events(outcome: Outcome, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in outcome.stderr.splitlines() if line.startswith("{")]
    return [event for event in events if event["event"] == kind]


def _raw(reference: str, *options: str) -> Any:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", *options, f"docker://{reference}"]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)


def _pulled(folder: Path, reference: str, architecture: str) -> Any:
    """The config of an image as skopeo brings it for one architecture."""
    layout = folder / architecture
    options = ("--override-arch", architecture, "--override-os", "linux")
    copy(f"docker://{reference}", f"oci:{layout}:t", *options)
    done = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{layout}:t"], capture_output=True, check=True
    )
    return json.loads(done.stdout)


# ---- targets ---------------------------------------------------------------------------------------


def test_two_targets_are_one_build_and_what_both_need_runs_once(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM {busybox_image} AS common\n"
        "RUN --mount=type=cache,id=count,target=/m echo x >> /m/runs; cat /m/runs > /runs\n"
        "FROM common AS one\nRUN echo 1 > /n\nFROM scratch AS two\nCOPY --from=common /runs /runs\n"
        "FROM common AS never\nRUN exit 1\n"
    )
    context = make_context({"Dockerfile": dockerfile})
    targets = ("--target", "one", "--target", "two")
    built = img.ok("build", *targets, "-t", "one=first", "-t", "TWO=second:v1", "--json", context)
    result = built.json()
    assert [(each["target"], each["tags"]) for each in result["images"]] == [
        ("one", ["docker.io/library/first:latest"]),
        ("two", ["docker.io/library/second:v1"]),
    ]
    assert result["digest"] == result["images"][1]["digest"], "the last target's is the build's"
    assert (img.image("first").text("runs"), img.image("first").text("n")) == ("x\n", "1\n")
    assert img.image("second:v1").text("runs") == "x\n"


def test_an_image_that_no_name_was_given_for_stands_under_its_id(img: Img, make_context: Context) -> None:
    context = make_context(
        {"Dockerfile": "FROM scratch AS a\nCOPY f /a\nFROM scratch\nCOPY f /b\n", "f": "f"}
    )
    result = img.ok("build", "--target=1", "--target=a", "-t", "a=named", "--json", context).json()
    assert [each["target"] for each in result["images"]] == ["1", "a"]
    assert "b" in img.image(result["images"][0]["id"]).tree
    quiet = img.ok("build", "-q", "--target=1", "--target=a", context)
    assert quiet.stdout.split() == [each["id"] for each in result["images"]]


def test_a_bare_name_fits_one_target_only(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch AS one\nCOPY f /\nFROM one AS two\n", "f": "f"})
    failed = img.fails(2, "build", "--target=one", "--target=two", "-t", "app", context)
    assert "does not say which of the targets one, two" in failed.stderr
    assert "-t one=app" in failed.stderr
    failed = img.fails(2, "build", "--target=two", "-t", "one=app", context)
    assert "no target of this build" in failed.stderr
    failed = img.fails(2, "build", "-t", "tow=app", context)
    assert "did you mean two?" in failed.stderr
    assert img("images", "-q").stdout == "", "nothing was built"
    img.ok("build", "-t", "two=app", context)
    img.ok("build", "--target=one", "--target=ONE", "--target=0", "-t", "other", context)


# ---- platforms -------------------------------------------------------------------------------------


def test_several_platforms_are_one_name_by_an_index(
    img: Img, make_context: Context, registry: Registry, tmp_path: Path
) -> None:
    context = make_context({"Dockerfile": PER_PLATFORM, **FILES})
    name = f"{registry.host}/platforms/pushed:1"
    result = img.ok("build", *BOTH, "-t", name, "--push", "--json", context).json()
    assert [each["platform"] for each in result["images"]] == ["linux/amd64", "linux/arm64"]
    index = _raw(name)
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    assert _pulled(tmp_path, name, "amd64")["architecture"] == "amd64"
    assert _pulled(tmp_path, name, "arm64")["architecture"] == "arm64"
    again = img.ok("build", *BOTH, "-t", name, "--push", "--json", context).json()
    assert again["pushed"] == result["pushed"]
    assert again["cached_steps"] == again["steps"]


def test_a_name_of_several_platforms_means_this_machine_s(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": "FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\n"})
    img.build(context, "--platform", "linux/s390x,linux/amd64", "--platform", "linux/arm64")
    (row,) = json.loads(img.ok("images", "--json").stdout)
    assert row["platforms"] == "linux/s390x,linux/amd64,linux/arm64"
    here = Platform.host().architecture
    assert img.image().config["Labels"] == {"for": here}
    assert img.ok("inspect", "--format", "{architecture}", "t").stdout.strip() == here
    img.build(context, "--platform", "linux/s390x,linux/riscv64", tag="other")
    assert img.image("other").config["Labels"] == {"for": "s390x"}, "the first, where none is this machine's"


def test_another_name_and_a_later_push_keep_all_platforms(
    img: Img, make_context: Context, registry: Registry
) -> None:
    """A collection takes nothing that the index needs, either."""
    img.build(make_context({"Dockerfile": PER_PLATFORM, **FILES}), *BOTH)
    name = f"{registry.host}/platforms/tagged"
    img.ok("tag", "t", name)
    img.ok("rm", "t")
    img.ok("prune", "--all")
    img.ok("push", name)
    assert len(_raw(f"{name}:latest")["manifests"]) == 2
    img.ok("rm", name)
    img.ok("prune", "--all")
    assert json.loads(img.ok("du", "--json").stdout)["layers"] == []


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_archive_holds_all_platforms_of_a_name(
    make_img: Any, make_context: Context, tmp_path: Path, form: str
) -> None:
    img, other = make_img(), make_img()
    result = img.ok("build", *BOTH, "-t", "t", "--json", make_context({"Dockerfile": PER_PLATFORM, **FILES}))
    archive = tmp_path / "t.tar"
    img.ok("save", "--format", form, "-o", archive, "t")
    assert other.ok("load", "-i", archive).stdout == "Loaded image: docker.io/library/t:latest\n"
    (row,) = json.loads(other.ok("images", "--json").stdout)
    assert row["platforms"] == "linux/amd64,linux/arm64"
    built = [each["id"] for each in result.json()["images"]]
    for architecture, wanted in zip(("amd64", "arm64"), built, strict=True):
        layout = tmp_path / architecture
        copy(f"oci-archive:{archive}", f"oci:{layout}:t", "--override-arch", architecture)
        assert read_image(layout).manifest["config"]["digest"] == wanted
    again = tmp_path / "again.tar"
    other.ok("save", "--format", form, "-o", again, "t")
    assert again.read_bytes() == archive.read_bytes()


def test_a_base_of_several_platforms_gives_each_its_own(
    make_img: Any, make_context: Context, registry: Registry
) -> None:
    """From the store that built it, and from a registry, whose name is then kept for both as well."""
    img, other = make_img(), make_img()
    name = f"{registry.host}/platforms/base:1"
    img.ok("build", *BOTH, "-t", name, "--push", make_context({"Dockerfile": PER_PLATFORM, **FILES}))
    above = make_context({"Dockerfile": f"FROM {name}\nCOPY . /more\n", "x": "x"})
    for store, flags in ((img, ("--pull=never",)), (other, ()), (other, ("--pull=never",))):
        for platform in ("linux/amd64", "linux/arm64"):
            store.ok("build", *flags, "--platform", platform, "-t", "above", above)
            assert store.image("above").text("arch") == platform.removeprefix("linux/") + "\n"
        store.ok("build", *flags, *BOTH, "-t", "above", above)


def test_a_stage_for_the_build_platform_runs_once_for_all(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = (
        f"FROM --platform=$BUILDPLATFORM {busybox_image} AS tools\nRUN echo made > /made\n"
        f"FROM --platform=$BUILDPLATFORM {busybox_image} AS cross\nARG TARGETARCH\n"
        "RUN echo for $TARGETARCH > /out\n"
        "FROM scratch\nCOPY --from=tools /made /made\nCOPY --from=cross /out /out\n"
    )
    built = img.ok("build", *BOTH, "--progress", "json", "-t", "t", make_context({"Dockerfile": dockerfile}))
    titles = [event["title"] for event in _events(built, "StepStarted")]
    assert sum("echo made" in title for title in titles) == 1
    assert sorted(title for title in titles if "echo for" in title) == [
        "RUN [/bin/sh -c echo for $TARGETARCH > /out] (linux/amd64)",
        "RUN [/bin/sh -c echo for $TARGETARCH > /out] (linux/arm64)",
    ]
    assert sum("copy" in title and "made" in title for title in titles) == 1


def test_the_library_gives_every_image_and_the_plan(img: Img, make_context: Context) -> None:
    context = make_context({"Dockerfile": PER_PLATFORM.replace("scratch", "scratch AS app"), **FILES})
    program = """
        import sys, img
        state, context = sys.argv[1:]
        with img.Client(state=state) as client:
            platforms = ["linux/amd64", "linux/arm64"]
            graph = client.graph(context, target=["app"], platform=platforms)
            print(*(f"{t.stage} {t.platform} {t.node}" for t in graph.targets), sep=";")
            result = client.build(context, tag="app=x", target="app", platform=platforms)
            print(*(f"{i.target} {i.platform} {i.tags[0]}" for i in result.images), sep=";")
    """
    graph, images = _run(img, program, context).splitlines()
    assert graph == "app linux/amd64 2;app linux/arm64 3"
    assert images == "app linux/amd64 docker.io/library/x:latest;app linux/arm64 docker.io/library/x:latest"


# ---- the graph -------------------------------------------------------------------------------------


def test_the_graph_is_printed_and_nothing_is_built(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image} AS a\nRUN echo \\\n  hi\nFROM scratch\nCOPY --from=a /etc /etc\n"
    context = make_context({"Dockerfile": dockerfile})
    text = img.ok("build", "--print-graph", context).stdout
    assert [line.split("   ")[0] for line in text.splitlines()[1:5]] == ["0", "1", "2", "3"]
    assert "3      2 1      copy" in text
    assert text.splitlines()[-1].startswith("1 for linux/")
    data = json.loads(img.ok("build", "--print-graph=json", context).stdout)
    assert [node["inputs"] for node in data["nodes"]] == [[], [0], [], [2, 1]]
    assert data["nodes"][1]["lines"] == [2, 3]
    assert data["nodes"][0]["digest"].startswith("sha256:")
    assert data["targets"] == [{"target": "1", "platform": data["nodes"][0]["platform"], "node": 3}]
    dot = img.ok("build", "--print-graph", "dot", context).stdout
    assert dot.startswith("digraph build {")
    assert "n3 -> n1;" in dot
    assert not any((img.state / "layers").iterdir())
    assert "different things" in img.fails(2, "build", "--print-graph", "--check", context).stderr
