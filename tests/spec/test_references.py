"""Names of images as `references.json` has them: what each stands for, or why it is none, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from img.errors import InvalidReference
from img.oci import Reference
from img.oci.misspelled import meant_docker

pytestmark = pytest.mark.once

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "names" / "references.json").read_text())

BEYOND_SKOPEO = {
    "HOST/app", "ME/app",  # a first part with a capital is a host, in the grammar of 2022 and later
    "[::1]:5000/x", "[::1]/x", "[2001:db8::1]:443/a/b:t",  # likewise an address in brackets
    "127.0.0.1:9/x:t@sha256:" + "0123456789abcdef" * 4,  # docker and podman take tag and digest together
}  # fmt: skip
"""What is taken here and refused by skopeo 1.9, with which the corpus was compared."""


@pytest.mark.parametrize("case", [pytest.param(case, id=repr(case["written"])[:60]) for case in CASES])
def test_a_name_stands_for_what_the_corpus_says(case: dict[str, Any]) -> None:
    if "full" in case:
        reference = Reference.parse(case["written"])
        assert str(reference) == case["full"]
        assert Reference.parse(case["full"]) == Reference.parse(reference.familiar) == reference
        return
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(case["written"])
    error = caught.value
    assert (error.reason, error.at, error.hint) == (case["refused"], case.get("at", -1), case.get("hint", ""))
    if error.hint.startswith("did you mean ") and "archive:" not in error.hint:
        Reference.parse(error.hint.removeprefix("did you mean ").removesuffix("?"))


def test_whatever_is_taken_here_other_tools_take_as_well() -> None:
    assert {c["written"] for c in CASES if c.get("skopeo") == "refuses it"} == BEYOND_SKOPEO


def test_an_error_shows_the_name_with_a_caret_under_the_mistake() -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse("HOST.example/me/App:1")
    assert str(caught.value).splitlines()[1:] == ["  HOST.example/me/App:1", "                  ^"]


def test_a_host_that_is_not_there_may_have_been_meant_for_docker_hub() -> None:
    for host in ("dockr.io", "docker.oi", "docker.hub", "docker.com"):
        assert Reference.parse(f"{host}/me/app").registry == host
        assert "did you mean docker.io?" in meant_docker(host)
    for host in ("registry.example.org", "quay.io", "localhost"):
        assert not meant_docker(host)
