"""ARG, ENV and what is automatic: who sees which value. Source: Dockerfile reference, "ARG" and "ENV"."""

from __future__ import annotations

from typing import Any

import pytest
from img.errors import DockerfileError
from img.oci import Platform

from .planning import AMD64, ARM64, Bases, base, plan, runs

PROXY = "http://user:secret@proxy:3128"


def env_of(text: str, number: int = -1, **options: Any) -> dict[str, str]:
    """What the last RUN's process sees."""
    return dict(runs(plan(text, **options))[number].env)


def label(text: str, **options: Any) -> str:
    """The label `v` of the image."""
    return plan(text, **options).config.labels["v"]


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


def test_env_beats_arg_whichever_comes_first() -> None:
    for lines in ("ARG A=arg\nENV A=env\n", "ENV A=env\nARG A=arg\n"):
        text = f"FROM busybox\n{lines}LABEL v=$A\nRUN x\n"
        assert label(text, build_args={"A": "given"}) == "env"
        assert env_of(text, build_args={"A": "given"})["A"] == "env"


def test_the_environment_of_the_base_beats_an_arg() -> None:
    bases = Bases({"busybox": base(Env=["A=base"])})
    assert plan("FROM busybox\nARG A=arg\nLABEL v=$A\n", bases).config.labels == {"v": "base"}


def test_a_stage_on_a_stage_inherits_its_args_and_its_environment() -> None:
    text = "FROM busybox AS a\nARG A=arg\nENV E=env\nFROM a\nLABEL v=$A,$E\nRUN x\n"
    assert label(text) == "arg,env"
    assert env_of(text)["A"] == "arg"


def test_what_a_stage_adds_does_not_reach_back_into_the_one_it_stands_on() -> None:
    text = "FROM busybox AS a\nARG A=one\nFROM a AS b\nARG A=two\nENV E=b\nFROM a\nLABEL v=$A,${E-none}\n"
    assert label(text) == "one,none"


def test_one_env_expands_all_its_values_with_those_before_it() -> None:
    graph = plan("FROM busybox\nENV A=old\nENV A=new B=$A\nENV C=$A\n")
    assert graph.config.env == {"PATH": "/bin", "A": "new", "B": "old", "C": "new"}


def test_a_program_is_found_even_where_the_image_names_no_path() -> None:
    bases = Bases({"bare": base()})
    (run,) = runs(plan("FROM bare\nRUN x\n", bases))
    assert dict(run.env)["PATH"].endswith("/usr/sbin:/usr/bin:/sbin:/bin")
    assert "Env" not in plan("FROM bare\nRUN x\n", bases).config.run


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "NO_PROXY", "all_proxy"])
@pytest.mark.parametrize("declared", ["", "ARG {}\n"])
def test_a_proxy_reaches_the_process_and_neither_key_nor_history(name: str, declared: str) -> None:
    text = f"FROM busybox\n{declared.format(name)}RUN x\n"
    graph = plan(text, build_args={name: PROXY})
    (run,) = runs(graph)
    assert (name, PROXY) in run.hidden_env
    assert name not in dict(run.env)
    assert not any("secret" in line.created_by for line in graph.history)
    assert graph.warnings == ()


def test_a_proxy_that_env_sets_is_the_images_own() -> None:
    (run,) = runs(plan("FROM busybox\nENV HTTP_PROXY=own\nRUN x\n", build_args={"HTTP_PROXY": PROXY}))
    assert run.hidden_env == ()
    assert dict(run.env)["HTTP_PROXY"] == "own"


def test_history_shows_the_args_that_a_run_saw() -> None:
    graph = plan("FROM busybox\nARG A=1\nARG B\nENV E=2\nRUN make it\n", build_args={"B": "b"})
    assert graph.history[-1].created_by == "RUN |2 A=1 B=b /bin/sh -c make it"


def test_platform_arguments_are_there_for_from_at_once_and_for_a_stage_that_asks() -> None:
    text = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nLABEL v=$TARGETARCH,[$TARGETOS]\n"
    bases = Bases({"busybox": base()})
    graph = plan(text, bases, platform=ARM64)
    assert bases.asked == [("busybox:latest", AMD64)]
    assert graph.config.labels == {"v": "arm64,[]"}


def test_every_platform_argument_has_its_value() -> None:
    names = [
        f"{side}{part}" for side in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")
    ]
    text = "FROM busybox\n" + "".join(f"ARG {name}\n" for name in names) + "RUN x\n"
    options = {"platform": Platform("linux", "arm", "v7"), "build_platform": AMD64}
    env = dict(runs(plan(text, Bases({"busybox": base(Platform("linux", "arm", "v7"))}), **options))[0].env)
    assert [env[name] for name in names] == [
        "linux/arm/v7", "linux", "arm", "v7", "linux/amd64", "linux", "amd64", "",
    ]  # fmt: skip


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
