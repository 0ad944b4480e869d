"""RUN --mount, planned: variables in place, defaults filled in, and what `from` names among the inputs."""

from __future__ import annotations

from typing import Any

import pytest
from img.builder import PlanOptions, needed_bases
from img.builder.graph import RunMount
from img.dockerfile import parse
from img.errors import DockerfileError

from .planning import AMD64, Bases, base, node_of, plan, runs, sources


def mounts(flags: str, before: str = "", **options: Any) -> tuple[RunMount, ...]:
    """The mounts of the one RUN with these flags."""
    (run,) = runs(plan(f"FROM busybox\n{before}RUN {flags} x\n", **options))
    return run.mounts


def test_a_mount_has_its_types_defaults() -> None:
    bind, cache, tmpfs, secret, ssh = mounts(
        "--mount=target=/b --mount=type=cache,target=/c --mount=type=tmpfs,target=/t"
        " --mount=type=secret,id=dir/k --mount=type=ssh"
    )
    assert bind == RunMount(kind="bind", target="/b", readonly=True)
    assert cache == RunMount(kind="cache", target="/c", id="/c")
    assert tmpfs == RunMount(kind="tmpfs", target="/t")
    assert secret == RunMount(kind="secret", target="/run/secrets/k", id="dir/k")
    assert ssh == RunMount(kind="ssh", target="/run/buildkit/ssh_agent.0", id="default")


def test_each_agent_has_a_socket_of_its_own() -> None:
    found = mounts(
        "--mount=type=ssh --mount=type=secret,id=k --mount=type=ssh,id=b --mount=type=ssh,target=/s"
    )
    targets = [m.target for m in found if m.kind == "ssh"]
    assert targets == ["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1", "/s"]


@pytest.mark.parametrize(
    ("options", "readonly"),
    [
        ("target=/x,rw", False),
        ("target=/x,readwrite=false", True),
        ("target=/x,ro=false", False),
        ("target=/x,ro,rw", False),
        ("target=/x,rw,ro", True),
        ("type=cache,target=/x,ro", True),
        ("type=tmpfs,target=/x,ro", True),
    ],
)
def test_the_last_word_on_writing_counts(options: str, readonly: bool) -> None:
    assert [m.readonly for m in mounts(f"--mount={options}")] == [readonly]


@pytest.mark.parametrize(
    ("written", "absolute"),
    [("x", "/w/x"), (".", "/w"), ("../x", "/x"), ("/x/", "/x"), ("$D/y", "/d/y"), ("", "/w")],
)
def test_a_target_is_made_absolute_from_the_working_folder(written: str, absolute: str) -> None:
    target = f"target={written}" if written else "source=/"
    assert [m.target for m in mounts(f"--mount={target}", "WORKDIR /w\nENV D=/d\n")] == [absolute]


def test_a_cache_is_called_by_its_target_as_written_and_by_the_callers_namespace() -> None:
    before = "WORKDIR /w\nARG P=p\n"
    flags = "--mount=type=cache,target=$P/q/ --mount=type=cache,id=$P,target=/c"
    assert [m.id for m in mounts(flags, before)] == ["p/q", "p"]
    named = mounts(flags, before, build_args={"BUILDKIT_CACHE_MOUNT_NS": "me"})
    assert [m.id for m in named] == ["me/p/q", "me/p"]


def test_a_secret_is_called_by_its_id_its_source_or_its_target() -> None:
    found = mounts(
        "--mount=type=secret,source=a --mount=type=secret,target=/x/b --mount=type=secret,id=c,env=C"
        " --mount=type=secret,id=d,env=D,target=d"
    )
    assert [(m.id, m.target, m.env) for m in found] == [
        ("a", "/run/secrets/a", ""), ("b", "/x/b", ""), ("c", "", "C"), ("d", "/d", "D"),
    ]  # fmt: skip


@pytest.mark.parametrize("flag", ["id=$NO", "id=", "source=", "target=/"])
def test_a_secret_without_a_name_is_refused(flag: str) -> None:
    with pytest.raises(DockerfileError, match="is of no secret") as raised:
        mounts(f"--mount=type=secret,{flag}")
    assert "id=NAME" in raised.value.hint


def test_values_are_expanded_and_read_as_what_they_are() -> None:
    before = "ARG S=10m M=0750 U=7 R=true T=secret\n"
    tmpfs, cache, secret = mounts(
        "--mount=type=tmpfs,target=/t,size=$S"
        " --mount=type=cache,target=/c,mode=$M,uid=$U,gid=${G:-8},sharing=${X-locked}"
        " --mount=type=$T,id=k,required=$R",
        before,
    )
    assert tmpfs.size == 10 << 20
    assert (cache.mode, cache.uid, cache.gid, cache.sharing) == (0o750, 7, 8, "locked")
    assert (secret.kind, secret.required) == ("secret", True)


def test_from_names_a_stage_by_name_or_number_an_image_or_a_variable_of_the_head() -> None:
    bases = Bases({"busybox": base(), "tool": base()})
    graph = plan(
        "ARG OUTER=tool\nARG WHICH=two\nFROM busybox AS one\nRUN one\nFROM busybox AS two\nRUN two\n"
        "FROM busybox\n"
        "RUN --mount=from=one,target=/a --mount=from=1,target=/b --mount=from=tool,target=/c"
        " --mount=from=$WHICH,target=/d --mount=from=$OUTER,target=/e --mount=target=/f x\n",
        bases,
    )
    (run,) = [op for op in runs(graph) if op.mounts]
    node = node_of(graph, "RUN [/bin/sh -c x]")
    titles = [graph.nodes[number].title for number in node.inputs]
    assert titles[1:] == ["RUN [/bin/sh -c one]", "RUN [/bin/sh -c two]", "FROM tool:latest"]
    assert [m.input for m in run.mounts] == [1, 2, 3, 2, 3, 0]
    assert [w.partition(" holds")[0] for w in graph.warnings] == [
        "Dockerfile:8: from=$WHICH", "Dockerfile:8: from=$OUTER",
    ]  # fmt: skip


def test_a_stage_that_only_a_mount_names_is_planned_and_one_that_nothing_names_is_not() -> None:
    graph = plan(
        "FROM busybox AS used\nRUN u\nFROM unknown AS unused\nRUN n\n"
        "FROM busybox\nRUN --mount=from=used,target=/u x\n"
    )
    assert [run.args[-1] for run in runs(graph)] == ["u", "x"]
    assert sources(graph) == ["docker.io/library/busybox:latest"]


def test_the_images_that_mounts_name_are_asked_for_beforehand() -> None:
    text = (
        "ARG X=late\nFROM busybox AS self\n"
        "RUN --mount=from=tool,target=/t --mount=type=cache,from=seed,target=/c"
        " --mount=from=$X,target=/x --mount=from=scratch,target=/n x\n"
    )
    wanted = needed_bases(parse(text.encode()), PlanOptions(platform=AMD64, build_platform=AMD64))
    assert [reference.familiar for reference, _ in wanted] == [
        "busybox:latest", "tool:latest", "seed:latest", "late:latest",
    ]  # fmt: skip


def test_what_has_no_effect_is_said() -> None:
    graph = plan("FROM busybox\nRUN --mount=type=tmpfs,target=/t,from=tool,id=k --mount=id=k,target=/b x\n")
    assert graph.warnings == (
        "Dockerfile:2: from has no effect on a tmpfs mount",
        "Dockerfile:2: id has no effect on a tmpfs mount",
        "Dockerfile:2: id has no effect on a bind mount",
    )


@pytest.mark.parametrize(
    ("flags", "message", "column"),
    [
        ("--mount=target=/", "cannot be on /", 13),
        ("--mount=source=x", "cannot be on /", 5),
        ("--mount=type=tmpfs,target=/t,size=$S", "'lots' is not a size", 34),
        ("--mount=type=$T,target=/t", "no mount type 'tmp'", 13),
        ("--mount=type=$C,target=/t,size=1", "a cache mount has no option 'size'", 31),
        ("--mount=from=$NO,target=/t", "from=\\$NO is empty", 18),
        ("--mount=type=cache,source=/s,target=/t", "no from", 24),
        ("--mount=from=2,target=/t", "there is no stage 2", 18),
    ],
)
def test_a_mistake_is_told_at_its_place(flags: str, message: str, column: int) -> None:
    with pytest.raises(DockerfileError, match=message) as caught:
        mounts(flags, "ARG S=lots T=tmp C=cache\n")
    assert (caught.value.line, caught.value.column) == (3, column)


def test_bytes_that_are_not_utf_8_are_refused_in_a_mount() -> None:
    with pytest.raises(DockerfileError, match="not UTF-8"):
        mounts("--mount=target=/x\udcff")
