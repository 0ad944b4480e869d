"""From solved steps to an image: layers, history and times."""

from __future__ import annotations

from dataclasses import replace

from img.builder.assemble import assemble
from img.builder.graph import SourceOp
from img.builder.key import EMPTY, stacked
from img.builder.site import BuiltLayer, Result
from img.builder.solver import source_result
from img.oci import Descriptor, sha256
from img.oci.descriptor import DOCKER_LAYER_GZIP, OCI_LAYER, OCI_LAYER_GZIP

from .planning import base, plan

STEP = BuiltLayer(
    diff_id=sha256(b"step"),
    content="blake3:1",
    descriptor=Descriptor(media_type=OCI_LAYER, digest=sha256(b"step"), size=512),
)


def test_a_base_is_named_by_its_chain_and_nothing_of_it_need_be_here() -> None:
    image = base()
    result = source_result(SourceOp(image=image, name="busybox"))
    assert result.content == f"chain:{image.chain_id}"
    assert [layer.diff_id for layer in result.layers] == list(image.config.diff_ids)
    assert result.cached
    assert source_result(SourceOp(name="scratch")).content == EMPTY


def test_a_layer_of_a_docker_base_goes_into_an_oci_manifest_under_its_oci_type() -> None:
    image = base()
    docker = replace(image.manifest.layers[0], media_type=DOCKER_LAYER_GZIP)
    image = replace(image, manifest=replace(image.manifest, layers=(docker,)))
    (layer,) = source_result(SourceOp(image=image, name="x")).layers
    assert layer.descriptor == replace(docker, media_type=OCI_LAYER_GZIP)


def test_history_tells_which_lines_have_a_layer_and_when_each_step_ran() -> None:
    graph = plan("FROM busybox\nENV A=1\nRUN make\nLABEL b=2\n")
    source = source_result(graph.nodes[0].op)  # type: ignore[arg-type]
    env = replace(source, created="2024-01-01T00:00:00Z")
    ran = Result(
        layers=(*source.layers, STEP), content=stacked(source.content, STEP.content),
        created="2024-02-02T00:00:00Z", own_layer=True,
    )  # fmt: skip
    results = {0: source, 1: env, 2: ran, 3: replace(ran, own_layer=False)}
    image = assemble(graph, graph.targets[0], results, created=None)
    assert [line.empty_layer for line in image.config.history] == [True, False, True]
    assert [line.created[:7] for line in image.config.history] == ["2024-01", "2024-02", "2024-02"]
    assert image.config.created == "2024-02-02T00:00:00Z"
    assert [layer.diff_id for layer in image.layers] == [layer.diff_id for layer in ran.layers]
    assert image.manifest.layers[-1] == STEP.descriptor


def test_an_epoch_is_every_time_in_the_image() -> None:
    graph = plan("FROM busybox\nENV A=1\n")
    source = source_result(graph.nodes[0].op)  # type: ignore[arg-type]
    image = assemble(graph, graph.targets[0], {0: source, 1: source}, created="1970-01-02T00:00:00Z")
    assert {image.config.created, *(line.created for line in image.config.history)} == {
        "1970-01-02T00:00:00Z"
    }
