"""Plans the Dockerfiles of the corpus in `plans/`, over bases that are values; README.md tells the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from img.builder import BuildGraph, PlanOptions, make_plan, needed_bases
from img.builder.graph import CopyOp, RunOp, WorkdirOp
from img.dockerfile import parse
from img.errors import DockerfileError, ImgError, NotFound
from img.oci import Descriptor, Image, ImageConfig, Platform, Reference, sha256
from img.oci.descriptor import OCI_LAYER_GZIP

FOLDER = Path(__file__).parent / "plans"
USUAL_ENV = ["PATH=/bin"]
AMD64 = Platform("linux", "amd64")


def cases() -> list[Any]:
    found = []
    for file in sorted(FOLDER.glob("*.json")):
        for case in json.loads(file.read_text("utf-8")):
            found.append(pytest.param(case, id=f"{file.stem}: {case['name']}"))
    return found


def image(run: dict[str, Any]) -> Image:
    run = {"Env": USUAL_ENV, **run}
    config = ImageConfig(platform=Platform.parse(run.pop("platform", "linux/amd64")), diff_ids=(sha256(b""),))
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(b"gz"), size=2)
    return Image.make(config.with_run(**{k: v for k, v in run.items() if v is not None}), (layer,))


class Bases:
    """The images that a case names, `busybox` always among them; remembers which were asked for."""

    def __init__(self, given: dict[str, dict[str, Any]]) -> None:
        self.images = {name: image(run) for name, run in {"busybox": {}, **given}.items()}
        self.asked: list[str] = []

    def resolve(self, reference: Reference, platform: Platform) -> Image:
        self.asked.append(f"{reference.familiar.removesuffix(':latest')} {platform}")
        name = reference.repository.removeprefix("library/")
        if name not in self.images:
            raise NotFound(f"no {name}")
        return self.images[name]


def planned(case: dict[str, Any]) -> tuple[BuildGraph, Bases]:
    given = dict(case.get("given", {}))
    bases = Bases(given.pop("bases", {}))
    for name in ("platform", "build_platform"):
        given[name] = Platform.parse(given[name]) if name in given else AMD64
    text = case["dockerfile"]
    text = text if isinstance(text, str) else "\n".join(text) + "\n"
    dockerfile = parse(text.encode("utf-8", "surrogateescape"))
    options = PlanOptions(**given)
    needed_bases(dockerfile, options)  # what is refused is refused there as well, and nothing else
    return make_plan(dockerfile, options, bases.resolve), bases


def run_data(op: RunOp) -> dict[str, Any]:
    return {
        "args": list(op.args),
        "env": {name: value for name, value in op.env if (name, value) != ("PATH", "/bin")},
        "hidden": dict(op.hidden_env),
        "cwd": op.cwd,
        "user": op.user,
        "network": op.network,
        "hostname": op.hostname,
        "platform": str(op.platform),
        "script": op.script.content if op.script else "",
    }


def copy_data(op: CopyOp) -> dict[str, Any]:
    return {
        "sources": list(op.sources),
        "dest": op.dest,
        "chown": op.chown,
        "chmod": op.chmod,
        "exclude": list(op.exclude),
        "inline": [[file.name, file.content] for file in op.inline],
    }


def workdir_data(op: WorkdirOp) -> dict[str, Any]:
    return {"path": op.path, "user": op.user}


def facts(graph: BuildGraph, bases: Bases) -> dict[str, Any]:
    """Everything that a case may say of a plan."""
    config = dict(graph.targets[0].config.run)
    if config.get("Env") == USUAL_ENV:
        del config["Env"]
    ops = [node.op for node in graph.nodes]
    return {
        "config": config,
        "author": graph.targets[0].config.author,
        "platform": str(graph.targets[0].config.platform),
        "history": [line.created_by for line in graph.targets[0].history],
        "asked": bases.asked,
        "runs": [run_data(op) for op in ops if isinstance(op, RunOp)],
        "copies": [copy_data(op) for op in ops if isinstance(op, CopyOp)],
        "workdirs": [workdir_data(op) for op in ops if isinstance(op, WorkdirOp)],
    }


@pytest.mark.parametrize("case", [c for c in cases() if "plans" in c.values[0]])
def test_a_dockerfile_is_planned_as_the_case_says(case: dict[str, Any]) -> None:
    graph, bases = planned(case)
    expected = dict(case["plans"])
    warnings = expected.pop("warnings", [])
    assert len(graph.warnings) == len(warnings), graph.warnings
    for wanted, warning in zip(warnings, graph.warnings, strict=True):
        assert wanted in warning
    found = facts(graph, bases)
    for name, wanted in expected.items():
        got = found[name]
        if name in ("runs", "copies", "workdirs"):
            assert len(got) == len(wanted)
            got = [{key: one[key] for key in said} for one, said in zip(got, wanted, strict=True)]
        assert got == wanted, name


@pytest.mark.parametrize("case", [c for c in cases() if "refuses" in c.values[0]])
def test_what_cannot_be_planned_is_refused_with_its_place(case: dict[str, Any]) -> None:
    with pytest.raises(ImgError) as caught:
        planned(case)
    wanted = case["refuses"]
    error = caught.value
    assert wanted["message"] in str(error)
    assert wanted.get("hint", "") in error.hint
    if "line" in wanted:
        assert isinstance(error, DockerfileError)
        assert error.line == wanted["line"]
        assert error.column == wanted.get("column", error.column)
        assert list(error.also) == wanted.get("also", [])
        assert all(char.isprintable() for char in error.message + error.hint)


def test_every_case_says_what_it_expects() -> None:
    for case in (c.values[0] for c in cases()):
        assert ("plans" in case) != ("refuses" in case), case["name"]
