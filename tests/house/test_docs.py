"""The papers of the house are true: generated parts are up to date, and what they show runs."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from img.cli import VERBS

from scripts.docs import DOCS, PAGES, render
from tests.conftest import Context
from tests.support import hosts
from tests.support.command import Img
from tests.support.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAPERS = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
SCRIPTS = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in (ROOT / "README.md", DOCS / "library.md", DOCS / "history.md")
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]

Localise = Callable[[str], str]


@pytest.fixture
def example(registry: Registry, busybox_layout: Path, make_context: Context) -> tuple[Path, Localise]:
    """A folder to run examples in, and what turns their names into ones of the registry on loopback."""
    registry.push_layout(busybox_layout, "library/alpine")
    base = f"{registry.host}/library/alpine"
    context = make_context(
        {"Dockerfile": f"FROM {base}\nARG VERSION\nRUN echo hello > /hello\nCMD cat /hello\n"}
    )

    def localise(text: str) -> str:
        text = re.sub(r"(?<![\w/:.-])alpine\b", base, text)
        return re.sub(r"\bregistry\.example\.com(?=/|$)", registry.host, text)

    return context, localise


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_parts_are_what_the_program_says_today(page: str) -> None:
    text = (DOCS / page).read_text()
    assert render(text) == text, "run scripts/docs.py"


def test_every_verb_has_its_section() -> None:
    text = (DOCS / "cli.md").read_text()
    headings = set(re.findall(r"^## img (\S+)$", text, re.MULTILINE))
    parts = set(re.findall(r"^<!-- generated: verb (\S+) -->$", text, re.MULTILINE))
    assert headings == parts == set(VERBS)


def test_the_commands_of_the_reference_run_as_written(img: Img, example: tuple[Path, Localise]) -> None:
    """In the page's order, in one store; what they print differs in digests, sizes and times."""
    context, localise = example
    text = (DOCS / "cli.md").read_text()
    lines = re.findall(r"^\$ (?:echo (\S+) \| )?img (.*)$", text, re.MULTILINE)
    assert {line.split()[0] for _, line in lines} == set(VERBS)
    for given, line in lines:
        img.ok(*map(localise, shlex.split(line)), cwd=context, stdin=given.encode())


@pytest.mark.parametrize("code", SCRIPTS)
def test_the_library_examples_run_as_written(code: str, img: Img, example: tuple[Path, Localise]) -> None:
    """In the default store, which is below the home of the test."""
    context, localise = example
    try:
        done = subprocess.run(
            [sys.executable, "-c", localise(code)],
            cwd=context,
            env=img.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        hosts.remove_tree(img.home / ".local")
    assert done.returncode == 0, done.stderr


def test_the_cache_page_names_every_field_of_a_key() -> None:
    documented = set(re.findall(r"`(\w+)`", (DOCS / "cache.md").read_text()))
    fields = set()
    for path in (ROOT / "python/img/builder/perform").glob("*.py"):
        tree = ast.parse(path.read_text())
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in (
                "CacheKey.make",
                "copy_key",
            ):
                fields |= {keyword.arg for keyword in call.keywords if keyword.arg}
    assert {"below", "args", "parts", "path"} <= fields
    assert fields <= documented, fields - documented


def test_the_architecture_is_short_and_explains_every_long_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) < 300
    named = set(re.findall(r"^\| `([\w/.]+\.(?:py|rs))` \|", text, re.MULTILINE))
    sources = [*ROOT.glob("python/img/**/*.py"), *ROOT.glob("rust/*/src/**/*.rs")]
    sources = [path for path in sources if path.name != "tests.rs"]
    long = {str(p.relative_to(ROOT)) for p in sources if len(p.read_text().splitlines()) > 400}
    assert long <= named, f"explain in ARCHITECTURE.md: {sorted(long - named)}"
    gone = {name for name in named if not (ROOT / name).is_file()}
    assert not gone, f"ARCHITECTURE.md explains files that are gone: {sorted(gone)}"


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_links_of_the_papers_lead_somewhere(paper: Path) -> None:
    text = re.sub(r"```.*?```", "", paper.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", text):
        if target and "://" not in target:
            assert (paper.parent / target).exists(), f"{paper.name} links to {target}"
