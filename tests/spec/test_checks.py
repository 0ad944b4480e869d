"""Runs the corpus of checks (`checks.json`): each Dockerfile, and what is found in it, rule and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from img import _core
from img.builder import PlanOptions, unknown_base
from img.builder.checking import check_plan
from img.builder.plan import Resolve
from img.dockerfile import parse
from img.dockerfile.checks import RULES
from img.oci import Image, ImageConfig, Platform, Reference

CASES = json.loads((Path(__file__).parent / "checks.json").read_text("utf-8"))
AMD64 = Platform("linux", "amd64")


def resolver(bases: dict[str, dict[str, Any]]) -> Resolve:
    """Images by their short name; one that a case does not name has a PATH and nothing else."""

    def resolve(reference: Reference, platform: Platform) -> Image:
        run = {"Env": ["PATH=/bin"], **bases.get(reference.repository.rpartition("/")[2], {})}
        own = run.pop("platform", "")
        config = ImageConfig(platform=Platform.parse(own) if own else platform).with_run(**run)
        return Image.make(config, ())

    return resolve


def options(case: dict[str, Any]) -> PlanOptions:
    ignore = case.get("ignore", [])
    sure = ignore and not any(line.startswith("!") for line in ignore)
    return PlanOptions(
        target=case.get("target", ""),
        build_args=case.get("build_args", {}),
        platform=Platform.parse(case.get("platform", "linux/amd64")),
        build_platform=AMD64,
        ignored=(lambda path: _core.IgnoreRules(ignore).excluding(path) is not None) if sure else None,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_checks_find_what_is_there_and_nothing_else(case: dict[str, Any]) -> None:
    dockerfile = parse(("\n".join(case["dockerfile"]) + "\n").encode())
    plan = check_plan(dockerfile, options(case), resolver(case.get("bases", {})))
    wanted = ("warning", "hint") if case.get("hints") else ("warning",)
    found = [[f.rule, f.line] for f in plan.findings if f.level in wanted]
    assert found == case["finds"]
    if "error" in case:
        assert plan.error is not None and case["error"] in str(plan.error)
    else:
        assert plan.error is None


def test_the_corpus_has_both_sides_of_every_rule_that_the_context_is_not_needed_for() -> None:
    found = {rule for case in CASES for rule, _ in case["finds"]}
    assert set(RULES) - found == {"SecretInContext"}
    assert sum(1 for case in CASES if not case["finds"]) > 50
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names)) > 120


@pytest.mark.parametrize("rule", ["UndefinedVar", "JSONArgsRecommended", "InvalidBaseImagePlatform"])
def test_checks_that_depend_on_a_base_are_silent_where_it_cannot_be_had(rule: str) -> None:
    text = b"FROM busybox AS a\nLABEL x=$y\nFROM a\nLABEL x=$y\nCMD shell form\n"
    plan = check_plan(parse(text), PlanOptions(), lambda _, platform: unknown_base(platform))
    assert plan.error is None
    assert rule not in {found.rule for found in plan.findings}


def test_a_finding_says_where_what_and_how_to_mend_it() -> None:
    text = b"FROM scratch\nENV a \\\n  b\n"
    (found,) = check_plan(parse(text, path="D"), PlanOptions(), resolver({})).findings
    assert (found.path, found.line, found.end_line) == ("D", 2, 3)
    assert found.excerpt == "ENV a \\\n  b"
    assert found.hint == "write ENV a=…"
    assert str(found).startswith("D:2: LegacyKeyValueFormat: ENV a is in the old form")


def test_a_misspelt_variable_is_answered_with_the_one_that_there_is() -> None:
    text = b"FROM busybox\nENV VERSION=1\nLABEL v=$VERSOIN\n"
    (found,) = (
        f for f in check_plan(parse(text), PlanOptions(), resolver({})).findings if f.level == "warning"
    )
    assert "did you mean $VERSION?" in found.message
