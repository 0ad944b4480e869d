"""The house itself: what a start imports, how long a file may be, that the README's examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support.command import Img
from tests.support.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"requests", "urllib3", "ssl", "rich", "http.client", "concurrent.futures", "logging"}


def _imports(img: Img, *args: str | Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "img", "--state", str(img.state), *map(str, args)],
        cwd=img.home,
        env=img.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^import time:.*\|\s*(\S+)$", done.stderr, re.MULTILINE)
    assert "img" in lines
    return set(lines)


def test_version_starts_with_nothing_heavy(img: Img) -> None:
    assert not HEAVY & _imports(img, "version")


def test_a_cached_build_starts_with_nothing_heavy(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nCOPY a /a\nRUN true\n", "a": ""})
    img.build(context)
    assert not (HEAVY - {"logging"}) & _imports(img, "build", "-t", "t", context)


def _console_examples() -> list[str]:
    """Each ```console block of the README, as the `$ img …` lines in it."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [block for block in blocks if re.search(r"^\$ img ", block, re.MULTILINE)]


def test_the_readme_shows_at_least_five_examples() -> None:
    assert sum(block.count("$ img ") for block in _console_examples()) >= 5


@pytest.mark.parametrize("style", ["console"])
def test_the_readmes_examples_run_as_written(
    style: str, img: Img, registry: Registry, busybox_layout: Path, make_context: Context
) -> None:
    """In order, in one store. Names of a public registry lead to the one on loopback."""
    registry.push_layout(busybox_layout, "library/alpine")
    base = f"{registry.host}/library/alpine"
    context = make_context({"Dockerfile": f'FROM {base}\nRUN echo hello > /hello\nCMD ["cat", "/hello"]\n'})
    for line in re.findall(r"^\$ img (.*)$", "\n".join(_console_examples()), re.MULTILINE):
        words = shlex.split(line, comments=True)
        local = [
            re.sub(r"^(alpine|registry\.example\.com(?=/))", rf"{registry.host}/library/\1", w) for w in words
        ]
        local = [w.replace("library/registry.example.com/", "") for w in local]
        img.ok(*local, cwd=context)
