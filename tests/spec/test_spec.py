"""Runs the corpus of Dockerfiles beside this file; README.md tells its format."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from img.dockerfile import Dockerfile, ExpandError, Instruction, expand, expand_words, parse
from img.errors import DockerfileError

HERE = Path(__file__).parent
FREE = {"span", "original"}  # checked only where a case names them


def cases(name: str = "*") -> list[Any]:
    found = []
    for file in sorted(HERE.glob(f"{name}.json")):
        for case in json.loads(file.read_text("utf-8")):
            found.append(pytest.param(case, id=f"{file.stem}: {case['name']}"))
    return found


PARSING = [c for c in cases() if "dockerfile" in c.values[0]]
WORDS = [c for c in cases() if "word" in c.values[0]]


def plain(value: object) -> object:
    """A value of ours as JSON would have it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return described(value) if isinstance(value, Instruction) else non_default(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def non_default(value: Any) -> dict[str, object]:
    fields = dataclasses.fields(value)
    given = {f.name: getattr(value, f.name) for f in fields if f.name not in FREE}
    defaults = {f.name: f.default for f in fields}
    return {name: plain(v) for name, v in given.items() if v != defaults[name]}


def described(found: Instruction) -> dict[str, object]:
    return {"is": type(found).__name__, **non_default(found)}


def flat(dockerfile: Dockerfile) -> list[Instruction]:
    staged = [i for stage in dockerfile.stages for i in (stage.from_, *stage.instructions)]
    return [*dockerfile.args, *staged]


def source(case: dict[str, Any]) -> bytes:
    text = case["dockerfile"]
    text = text if isinstance(text, str) else "\n".join(text) + "\n"
    return text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("case", [c for c in PARSING if "gives" in c.values[0]])
def test_a_dockerfile_parses_to_what_it_says(case: dict[str, Any]) -> None:
    dockerfile = parse(source(case))
    found = flat(dockerfile)
    expected = [dict(wanted) for wanted in case["gives"]]
    for wanted, got in zip(expected, found, strict=False):
        if "original" in wanted:
            assert got.original == wanted.pop("original")
        if "lines" in wanted:
            assert [got.span.start, got.span.end] == wanted.pop("lines")
    assert [described(got) for got in found] == expected
    for name, wanted in case.get("parses_to", {}).items():
        got = getattr(dockerfile, name)
        assert ([w.rule for w in got] if name == "warnings" else got) == wanted


@pytest.mark.parametrize("case", [c for c in PARSING if "fails" in c.values[0]])
def test_a_mistake_is_named_with_its_place(case: dict[str, Any]) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(source(case))
    wanted = case["fails"]
    assert wanted["message"] in caught.value.message
    assert wanted.get("hint", "") in caught.value.hint
    assert caught.value.line == wanted["line"]
    assert caught.value.column == wanted.get("column", caught.value.column)


@pytest.mark.parametrize("case", WORDS)
def test_a_word_expands_as_the_reference_says(case: dict[str, Any]) -> None:
    call = (case["word"], case.get("variables", {}), case.get("escape", "\\"))
    if "fails" in case:
        with pytest.raises(ExpandError, match=case["fails"]):
            expand(*call)
    if "gives" in case:
        assert expand(*call) == case["gives"]
    if "words" in case:
        assert expand_words(*call) == case["words"]


def test_every_case_says_what_it_expects() -> None:
    for case in (c.values[0] for c in cases()):
        assert {"gives", "fails", "words", "finds"} & case.keys(), case["name"]
        assert ("dockerfile" in case) != ("word" in case), case["name"]
