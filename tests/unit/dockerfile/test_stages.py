"""The door of the floor: whole Dockerfiles, stages by name, triggers, and how a mistake is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from img.dockerfile import Span, find_stage, parse, parse_trigger, stage_named
from img.dockerfile.instructions import Copy, Run
from img.errors import DockerfileError, UsageError

THREE = parse(b"FROM a AS Builder\nFROM b\nFROM c AS final\nFROM d AS builder\n")
WHERE = Span(path="Dockerfile", start=3, end=3, text="FROM base")

SPICE = """FROM RUN COPY ADD ARG ENV LABEL EXPOSE VOLUME USER WORKDIR CMD ENTRYPOINT SHELL STOPSIGNAL
HEALTHCHECK ONBUILD MAINTAINER AS a b=c $x ${y:-z} ["a"] [1] [] [ " ' \\ ` <<E E # --from=a --link -- NONE =
--mount=type=cache,target=/x --interval=1s \udcff"""
words = st.sampled_from([*SPICE.split(), "\u3000", ""])
texts = st.lists(st.lists(words, max_size=6).map(" ".join), max_size=10).map("\n".join)


@settings(max_examples=500)
@given(st.binary(max_size=300) | texts.map(lambda t: b"FROM a\n" + t.encode("utf-8", "surrogateescape")))
def test_any_bytes_give_a_dockerfile_or_a_dockerfile_error(data: bytes) -> None:
    try:
        dockerfile = parse(data)
    except DockerfileError as error:
        lines, shown = error.line, str(error)
        shown.encode()  # can be written to any terminal
    else:
        lines, shown = dockerfile.stages[-1].from_.span.end, ""
    assert lines <= data.count(b"\n") + 1
    assert shown.startswith("Dockerfile:") or dockerfile.stages


def test_a_deeply_nested_list_is_the_shell_form() -> None:
    text = "[" * 100_000
    (run,) = parse(f"FROM a\nRUN {text}\n".encode()).stages[0].instructions
    assert isinstance(run, Run)
    assert run.words == (text,)
    assert not run.exec_form


def test_an_error_shows_file_line_excerpt_caret_and_hint() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(b"FROM a\nRUN one \\\n  && two\n\tCOPPY x y\n", path="docker/App.Dockerfile")
    assert str(caught.value) == (
        "docker/App.Dockerfile:4: unknown instruction COPPY\n    4 | \tCOPPY x y\n      | \t^"
    )
    assert caught.value.hint == "did you mean COPY?"


def test_an_error_points_into_the_line_that_is_wrong_not_the_first() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(b"FROM a\nENV A=1 \\\n    # about B\n    B=2 \\\n    C\n")
    error = caught.value
    assert (error.line, error.column, error.excerpt) == (5, 5, "    C")


def test_a_stage_is_found_by_name_in_any_case_and_the_last_of_a_name_wins() -> None:
    assert find_stage(THREE, "FINAL").index == 2
    assert find_stage(THREE, "builder").index == 3
    assert stage_named(THREE, "BUILDER", before=3) is THREE.stages[0]
    assert stage_named(THREE, "builder", before=0) is None


def test_a_stage_is_found_by_number() -> None:
    assert find_stage(THREE, 1).index == 1
    assert find_stage(THREE, "0").index == 0
    assert stage_named(THREE, "0") is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("biulder", "did you mean builder?"),
        ("zzz", "the stages are builder, final, builder"),
        ("4", "stages"),
        ("", ""),
    ],
)
def test_a_stage_that_is_not_there_is_told_with_a_near_name(name: str, hint: str) -> None:
    with pytest.raises(DockerfileError, match="there is no stage") as caught:
        find_stage(THREE, name)
    assert hint in caught.value.hint


def test_a_file_without_named_stages_says_so() -> None:
    with pytest.raises(DockerfileError) as caught:
        find_stage(parse(b"FROM a\n"), "x")
    assert caught.value.hint == "no stage has a name"


def test_a_trigger_of_a_base_image_is_an_instruction_at_the_from_that_brought_it() -> None:
    copy = parse_trigger("COPY --chown=1 . /app", where=WHERE)
    assert isinstance(copy, Copy)
    assert (copy.dest, copy.chown, copy.span, copy.original) == ("/app", "1", WHERE, "COPY --chown=1 . /app")


def test_a_trigger_keeps_its_here_documents_through_an_image() -> None:
    dockerfile = parse(b"FROM a\nONBUILD RUN <<-E cat\n\tone\n\tE\n")
    (onbuild,) = dockerfile.stages[0].instructions
    again = parse_trigger(onbuild.trigger, where=WHERE)  # type: ignore[attr-defined]
    assert isinstance(again, Run)
    assert again.heredocs == onbuild.instruction.heredocs  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "ONBUILD RUN x", "FROM x", "RUN a\nRUN b", "RNU x", "COPY a"])
def test_a_trigger_that_cannot_be_points_at_the_from(text: str) -> None:
    with pytest.raises(DockerfileError, match="ONBUILD trigger") as caught:
        parse_trigger(text, where=WHERE)
    assert (caught.value.line, caught.value.excerpt) == (3, "FROM base")


def four_hundred_lines() -> bytes:
    step = "RUN --mount=type=cache,target=/c apt-get update && \\\n  # why\n  apt-get install -y a b\n"
    step += 'ENV A=b B="c d"\nCOPY --chown=a:b x y /z/\nLABEL a.b="x y"\nWORKDIR /app\nUSER app\n'
    return ("FROM debian:12\n" + step * 50).encode()


def test_four_hundred_lines_give_three_hundred_instructions() -> None:
    data = four_hundred_lines()
    assert data.count(b"\n") == 401
    assert len(parse(data).stages[0].instructions) == 300


@pytest.mark.parametrize("syntax", ["docker/dockerfile:1", "docker/dockerfile-upstream:master-labs"])
def test_what_the_caller_says_of_the_syntax_takes_the_directives_place(syntax: str) -> None:
    assert parse(b"# syntax=other/language\nFROM a\n", syntax=syntax).syntax == "other/language"


@pytest.mark.parametrize(
    "syntax", ["other/language", "docker/dockerfile/x", "dockerfile:1", "docker/dockerfile:"]
)
def test_a_syntax_of_the_callers_that_is_not_built_in_is_refused(syntax: str) -> None:
    with pytest.raises(UsageError, match="BUILDKIT_SYNTAX asks for another frontend"):
        parse(b"FROM a\n", syntax=syntax)
