"""The page of checks is true: each rule has an example that it finds, and one that it does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from img import _core
from img.builder import PlanOptions
from img.builder.checking import check_plan
from img.dockerfile import parse
from img.dockerfile.checks import RULES
from img.oci import Image, ImageConfig, Platform, Reference

from tests.conftest import Context
from tests.support.command import Img

PAGE = (Path(__file__).resolve().parents[2] / "docs/checks.md").read_text()
EXAMPLES = {
    name: re.findall(r"```dockerfile\n(.*?)```", section, re.DOTALL)
    for name, section in re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", PAGE.replace("\n# ", "\n\0 "), re.M | re.S)
}
AMD64 = Platform("linux", "amd64")


def resolve(reference: Reference, platform: Platform) -> Image:
    """Bases of the page: what is called after an architecture is for that one."""
    own = Platform("linux", "arm64") if reference.repository.startswith("arm64v8/") else platform
    return Image.make(ImageConfig(platform=own).with_run(Env=["PATH=/bin"]), ())


def rules(text: str) -> list[str]:
    options = PlanOptions(
        platform=AMD64,
        build_platform=AMD64,
        ignored=lambda path: _core.IgnoreRules(["notes.txt"]).excluding(path) is not None,
    )
    plan = check_plan(parse(text.replace("\0", "#").encode()), options, resolve)
    return [found.rule for found in plan.findings]


def test_every_rule_has_its_section_in_the_order_of_the_program() -> None:
    assert list(EXAMPLES) == list(RULES)
    assert all(len(blocks) == 2 for blocks in EXAMPLES.values())
    for rule in RULES.values():
        assert rule.about in " ".join(PAGE.split()), rule.name


@pytest.mark.parametrize("rule", [name for name in RULES if name != "SecretInContext"])
def test_the_first_example_is_found_and_the_second_is_not(rule: str) -> None:
    bad, good = EXAMPLES[rule]
    assert rule in rules(bad)
    assert rule not in rules(good)


def test_the_example_with_a_secret_is_found_in_a_context_that_has_one(
    img: Img, make_context: Context
) -> None:
    bad, good = EXAMPLES["SecretInContext"]
    for text, wanted in ((bad, True), (good, False)):
        outcome = img.ok("build", "--check", make_context({"Dockerfile": text, "main.py": "", ".env": ""}))
        assert ("SecretInContext" in outcome.stdout) == wanted
