"""Errors and events cross a process boundary as JSON and come out as they went in."""

from __future__ import annotations

import errno
import inspect
import json

import pytest
from img import errors
from img.errors import BuildError, DockerfileError, ImgError, exit_code_of, from_fields, to_fields
from img.progress import (
    BuildStarted,
    Event,
    Note,
    StepDone,
    StepOutput,
    StepStarted,
    Transfer,
    Warned,
    from_json,
    to_json,
)

SAMPLES: dict[str, object] = {
    "codes": ("DENIED",), "log_tail": ("a", "b"), "near": ("alpine",), "line": 2, "column": 3, "status": 404,
    "exit_code_of_step": 7, "not_found": True, "expected": "sha256:a", "actual": "sha256:b",
    "also": ("Dockerfile:4: RUN x",), "at": 4,
}  # fmt: skip
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ImgError) and kind is not ImgError
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_out_of_json_with_its_kind_its_fields_and_its_text(kind: type[ImgError]) -> None:
    values = {name: SAMPLES.get(name, name) for name in kind.fields}
    error = kind(**values)  # type: ignore[arg-type]
    again = from_fields(json.loads(json.dumps(to_fields(error))))
    assert type(again) is kind
    assert str(again) == str(error)
    assert {name: getattr(again, name) for name in kind.fields} == values
    assert exit_code_of(again) == exit_code_of(error)


def test_an_error_of_a_newer_version_keeps_its_text() -> None:
    again = from_fields({"kind": "Later", "text": "what it said"})
    assert (type(again), str(again)) == (ImgError, "what it said")


def test_what_a_kind_names_must_be_an_error_of_img() -> None:
    assert type(from_fields({"kind": "exit_code_of", "text": "x"})) is ImgError


def test_the_caret_of_a_dockerfiles_error_stands_below_its_column_behind_tabs_too() -> None:
    error = DockerfileError("what?", path="D", line=12, column=6, excerpt="\tRUN oops")
    where, excerpt, caret = str(error).splitlines()
    assert where == "D:12: what?"
    assert excerpt.expandtabs(1).index("oops") == caret.expandtabs(1).index("^")
    assert caret.count("^") == 1


def test_a_dockerfiles_error_shows_the_lines_around_and_the_other_places() -> None:
    error = DockerfileError(
        "what?", line=10, column=3, excerpt="  oops \\", before="RUN \\", after="  more", also=("D:3: COPY",)
    )
    assert str(error).splitlines()[1:] == [
        "    9 | RUN \\",
        "   10 |   oops \\",
        "      |   ^",
        "   11 |   more",
        "  also D:3: COPY",
    ]


def test_a_failed_step_names_its_place_its_exit_code_and_its_last_lines() -> None:
    text = str(BuildError("RUN [false]", 3, ("one", "two"), "Dockerfile:4"))
    assert text.startswith("Dockerfile:4: ") and "exit code 3" in text
    assert text.endswith("  one\n  two")


def test_each_family_of_errors_has_its_exit_code() -> None:
    assert exit_code_of(KeyboardInterrupt()) == 130
    assert exit_code_of(OSError(errno.EIO, "x")) == 5
    assert exit_code_of(ValueError()) == 1
    assert exit_code_of(errors.NotFound("x")) == 3


@pytest.mark.parametrize(
    "event",
    [
        BuildStarted(name="a", steps=3),
        StepStarted(step=1, title="RUN", why="new"),
        StepOutput(step=1, text="ü\n\ufffd"),
        StepDone(step=1, title="RUN", cached=True, seconds=0.25),
        Transfer(action="pull", digest="sha256:a", done_bytes=1, total_bytes=0),
        Note(level="warning", text="x"),
        Warned(number=1, total=2, rule="UndefinedVar", message="x", path="D", line=3, end_line=4, hint="y"),
    ],
)
def test_every_event_comes_out_of_a_json_line_as_it_went_in(event: Event) -> None:
    line = json.dumps(to_json(event))
    assert "\n" not in line
    assert from_json(json.loads(line)) == event


def test_a_field_that_a_newer_version_added_to_an_event_is_let_pass() -> None:
    assert from_json({"event": "Note", "level": "info", "text": "x", "later": 1}) == Note(
        level="info", text="x"
    )
