"""ARG, ENV and what is automatic: who sees which value. Source: Dockerfile reference, "ARG" and "ENV"."""

from __future__ import annotations

from typing import Any

import pytest
from img.errors import DockerfileError, UsageError
from img.oci import Platform

from .planning import AMD64, ARM64, Bases, base, plan, runs

PROXY = "http://user:secret@proxy:3128"


def env_of(text: str, number: int = -1, **options: Any) -> dict[str, str]:
    """What the last RUN's process sees."""
    return dict(runs(plan(text, **options))[number].env)


def label(text: str, **options: Any) -> str:
    """The label `v` of the image."""
    return plan(text, **options).targets[0].config.labels["v"]


def test_an_arg_has_its_default_until_the_caller_gives_a_value() -> None:
    text = "FROM busybox\nARG A=default\nRUN x\n"
    assert env_of(text)["A"] == "default"
    assert env_of(text, build_args={"A": "given"})["A"] == "given"
    assert env_of(text, build_args={"A": ""})["A"] == ""


def test_an_arg_without_a_value_is_not_set_at_all() -> None:
    assert "A" not in env_of("FROM busybox\nARG A\nRUN x\n")
    assert label("FROM busybox\nARG A\nLABEL v=${A-unset}\n") == "unset"


def test_an_argument_is_not_seen_before_its_arg_nor_in_another_stage() -> None:
    text = "FROM busybox\nLABEL v=[$A]\nARG A=1\n"
    assert label(text, build_args={"A": "2"}) == "[]"
    text = "FROM busybox AS a\nARG A=1\nFROM busybox\nCOPY --from=a /x /x\nLABEL v=[$A]\n"
    assert label(text, build_args={"A": "2"}) == "[]"


def test_an_arg_before_from_is_for_from_alone_until_a_stage_declares_it() -> None:
    head = "ARG V=1.0\nARG W=$V-w\nFROM busybox:$V\n"
    assert label(head + "LABEL v=[$V]\n") == "[]"
    assert label(head + "ARG V\nARG W\nLABEL v=$V,$W\n") == "1.0,1.0-w"
    assert label(head + "ARG V\nLABEL v=$V\n", build_args={"V": "2.0"}) == "2.0"
    assert label(head + "ARG V=own\nLABEL v=$V\n") == "own"


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ("ARG A=arg\nENV A=env\n", "env"),
        ("ENV A=env\nARG A=arg\n", "given"),
        ("ENV A=env\nARG A\n", "given"),
        ("ENV A=env\nARG A=arg\nENV A=again\n", "again"),
        ("ENV A=env\nARG A=arg\nENV B=other\n", "given"),
    ],
)
def test_of_env_and_arg_the_later_one_counts(lines: str, value: str) -> None:
    text = f"FROM busybox\n{lines}LABEL v=$A\nRUN x\n"
    assert label(text, build_args={"A": "given"}) == value
    assert env_of(text, build_args={"A": "given"})["A"] == value


def test_an_arg_without_a_value_leaves_the_environment_alone() -> None:
    text = "FROM busybox\nENV A=env\nARG A\nLABEL v=$A\nRUN x\n"
    assert (label(text), env_of(text)["A"]) == ("env", "env")


def test_an_arg_beats_the_environment_of_the_base() -> None:
    bases = Bases({"busybox": base(Env=["A=base"])})
    assert plan("FROM busybox\nARG A=arg\nLABEL v=$A\n", bases).targets[0].config.labels == {"v": "arg"}


def test_a_stage_on_a_stage_inherits_its_args_and_its_environment() -> None:
    text = "FROM busybox AS a\nARG A=arg\nENV E=env\nFROM a\nLABEL v=$A,$E\nRUN x\n"
    assert label(text) == "arg,env"
    assert env_of(text)["A"] == "arg"


def test_what_a_stage_adds_does_not_reach_back_into_the_one_it_stands_on() -> None:
    text = "FROM busybox AS a\nARG A=one\nFROM a AS b\nARG A=two\nENV E=b\nFROM a\nLABEL v=$A,${E-none}\n"
    assert label(text) == "one,none"


def test_one_env_expands_all_its_values_with_those_before_it() -> None:
    graph = plan("FROM busybox\nENV A=old\nENV A=new B=$A\nENV C=$A\n")
    assert graph.targets[0].config.env == {"PATH": "/bin", "A": "new", "B": "old", "C": "new"}


def test_a_program_is_found_even_where_the_image_names_no_path() -> None:
    bases = Bases({"bare": base()})
    graph = plan("FROM bare\nRUN x\n", bases)
    assert dict(runs(graph)[0].env)["PATH"].endswith("/usr/sbin:/usr/bin:/sbin:/bin")
    assert graph.targets[0].config.env == dict(runs(graph)[0].env), "as docker has it, the image names it too"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "NO_PROXY", "all_proxy"])
def test_a_proxy_reaches_the_process_in_both_cases_and_neither_key_nor_history(name: str) -> None:
    graph = plan("FROM busybox\nRUN x\n", build_args={name: PROXY})
    (run,) = runs(graph)
    assert run.hidden_env == ((name.upper(), PROXY), (name.lower(), PROXY))
    assert name not in dict(run.env)
    assert not any("secret" in line.created_by for line in graph.targets[0].history)
    assert graph.warnings == ()


def test_a_proxy_that_an_arg_declares_is_an_argument_like_any_other() -> None:
    graph = plan("FROM busybox\nARG HTTP_PROXY\nRUN x\n", build_args={"HTTP_PROXY": PROXY})
    (run,) = runs(graph)
    assert (dict(run.env)["HTTP_PROXY"], run.hidden_env) == (PROXY, ())
    assert PROXY in graph.targets[0].history[-1].created_by


def test_a_proxy_that_env_sets_is_the_images_own() -> None:
    (run,) = runs(plan("FROM busybox\nENV HTTP_PROXY=own\nRUN x\n", build_args={"HTTP_PROXY": PROXY}))
    assert run.hidden_env == ()
    assert dict(run.env)["HTTP_PROXY"] == "own"


def test_history_shows_the_args_that_a_run_saw() -> None:
    graph = plan("FROM busybox\nARG A=1\nARG B\nENV E=2\nRUN make it\n", build_args={"B": "b"})
    assert graph.targets[0].history[-1].created_by == "RUN |2 A=1 B=b /bin/sh -c make it"


def test_platform_arguments_are_there_for_from_at_once_and_for_a_stage_that_asks() -> None:
    text = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nLABEL v=$TARGETARCH,[$TARGETOS]\n"
    bases = Bases({"busybox": base()})
    graph = plan(text, bases, platform=ARM64)
    assert bases.asked == [("busybox:latest", AMD64)]
    assert graph.targets[0].config.labels == {"v": "arm64,[]"}


def test_every_platform_argument_has_its_value() -> None:
    names = [
        f"{side}{part}"
        for side in ("TARGET", "BUILD")
        for part in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
    ]
    text = "FROM busybox\n" + "".join(f"ARG {name}\n" for name in names) + "RUN x\n"
    options = {"platform": Platform("linux", "arm", "v7"), "build_platform": AMD64}
    env = dict(runs(plan(text, Bases({"busybox": base(Platform("linux", "arm", "v7"))}), **options))[0].env)
    assert [env[name] for name in names] == [
        "linux/arm/v7", "linux", "", "arm", "v7", "linux/amd64", "linux", "", "amd64", "",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "stage"), [
    ("FROM busybox\nARG TARGETSTAGE\nLABEL v=$TARGETSTAGE\n", "", "default"),
    ("FROM busybox AS Last\nARG TARGETSTAGE\nLABEL v=$TARGETSTAGE\n", "", "last"),
    ("FROM busybox AS a\nARG TARGETSTAGE\nLABEL v=$TARGETSTAGE\nFROM a AS b\nFROM a\n", "b", "b"),
])  # fmt: skip
def test_the_target_stage_is_an_argument(text: str, target: str, stage: str) -> None:
    assert label(text, target=target) == stage


def test_one_arg_sees_the_arguments_before_it_in_the_same_instruction() -> None:
    assert label("FROM busybox\nARG A=1 B=$A C=$B\nLABEL v=$C\n") == "1"
    assert label("ARG A=1 B=$A\nFROM busybox\nARG B\nLABEL v=$B\n", build_args={"A": "2"}) == "2"


def test_a_default_that_is_not_needed_is_not_expanded() -> None:
    text = "FROM busybox\nARG A=${NONE:?no}\nLABEL v=$A\n"
    assert label(text, build_args={"A": "given"}) == "given"
    with pytest.raises(DockerfileError, match="NONE: no"):
        label(text)


def test_what_speaks_to_the_builder_alone_is_seen_by_nothing() -> None:
    text = (
        "FROM busybox\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nLABEL v=${BUILDKIT_SBOM_SCAN_STAGE-none}\nRUN x\n"
    )
    graph = plan(text, build_args={"BUILDKIT_SBOM_SCAN_CONTEXT": "true"})
    assert (graph.targets[0].config.labels["v"], graph.warnings) == ("none", ())
    assert "BUILDKIT_SBOM_SCAN_STAGE" not in dict(runs(graph)[0].env)


def test_a_builders_argument_is_in_the_stage_that_asks_for_it() -> None:
    given = {"BUILDKIT_SANDBOX_HOSTNAME": "box", "BUILDKIT_INLINE_CACHE": "1", "SOURCE_DATE_EPOCH": "5"}
    text = "FROM busybox\nARG BUILDKIT_SANDBOX_HOSTNAME SOURCE_DATE_EPOCH\nRUN x\n"
    graph = plan(text, build_args=given)
    (run,) = runs(graph)
    assert (run.hostname, graph.warnings) == ("box", ())
    env = dict(run.env)
    assert (env["BUILDKIT_SANDBOX_HOSTNAME"], env["SOURCE_DATE_EPOCH"]) == ("box", "5")
    assert "BUILDKIT_INLINE_CACHE" not in env


@pytest.mark.parametrize("name", ["a b", "-a", "x" * 65, "a\nb"])
def test_a_host_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no host name"):
        plan("FROM busybox\n", build_args={"BUILDKIT_SANDBOX_HOSTNAME": name})


def test_an_automatic_argument_that_is_given_is_used_without_an_arg() -> None:
    bases = Bases({"busybox": base(ARM64)})
    graph = plan(
        "FROM --platform=$TARGETPLATFORM busybox\n", bases, build_args={"TARGETPLATFORM": "linux/arm64"}
    )
    assert bases.asked == [("busybox:latest", ARM64)]
    assert graph.warnings == ()


def test_a_variable_of_from_that_has_no_value_hints_at_the_near_one() -> None:
    with pytest.raises(DockerfileError) as caught:
        plan("ARG BASE_IMAGE=busybox\nFROM $BASEIMAGE\n")
    assert caught.value.hint == "did you mean $BASE_IMAGE?"


def test_a_needed_value_hints_at_the_near_variable() -> None:
    with pytest.raises(DockerfileError, match="VERISON: has no value") as caught:
        plan("FROM busybox\nARG VERSION=1\nLABEL v=${VERISON:?}\n")
    assert caught.value.hint == "did you mean $VERSION?"


def test_arguments_that_no_arg_takes_are_named_in_a_warning() -> None:
    given = {"TYPO": "1", "A": "2", "HTTP_PROXY": "x", "SOURCE_DATE_EPOCH": "0", "BUILDKIT_INLINE_CACHE": "1"}
    (warning,) = plan("FROM busybox\nARG A\n", build_args=given).warnings
    assert warning == "build arguments that no ARG takes: TYPO"


def test_the_name_of_a_base_that_expands_to_nothing_is_an_error_at_its_line() -> None:
    with pytest.raises(DockerfileError, match="empty once") as caught:
        plan("ARG BASE\nFROM $BASE\n")
    assert (caught.value.line, caught.value.column) == (2, 6)
    assert "--build-arg" in caught.value.hint


def test_a_needed_value_that_is_missing_stops_the_build_with_its_own_words() -> None:
    with pytest.raises(DockerfileError, match="VERSION: say which") as caught:
        plan('FROM busybox\nARG VERSION\nLABEL v="${VERSION:?say which}"\n')
    assert caught.value.line == 3
