"""Which builds may have to run a program of the host: the others must not pay for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from img.engine import BuildRequest
from img.engine.outside import needs_outside


@pytest.mark.parametrize(
    ("dockerfile", "needed"),
    [
        ("FROM a\nRUN git clone https://h/x\nCOPY . /\n", False),
        ("FROM a\nADD a b /c\n", False),
        ("FROM a\nADD https://h/x /c\n", True),
        ("FROM a\nadd git@h:x /c\n", True),
        ("FROM a\nADD $X /c\n", True),
        ("FROM a\nADD --chown=1 \\\n  git://h/x /c\n", True),
        ("FROM a\nONBUILD ADD git://h/x /c\n", True),
        ("# escape=`\nFROM a\nADD `\n $X /c\n", True),
        ("FROM a\nRUN echo ADD $X\n", False),
    ],
)
def test_the_dockerfile_tells(dockerfile: str, needed: bool, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    assert needs_outside(BuildRequest(context=".", cwd=str(tmp_path))) is needed
    elsewhere = BuildRequest(context="empty", dockerfile="Dockerfile", cwd=str(tmp_path))
    assert needs_outside(elsewhere) is needed
    piped = BuildRequest(context=".", dockerfile="-", stdin=str(tmp_path / "Dockerfile"), cwd="/")
    assert needs_outside(piped) is needed


@pytest.mark.parametrize(
    "request_",
    [
        BuildRequest(context="https://h/x.git"),
        BuildRequest(context="git@h:x"),
        BuildRequest(context="github.com/a/b"),
        BuildRequest(context="."),
        BuildRequest(context="-"),
        BuildRequest(context="/none", dockerfile="https://h/Dockerfile"),
        BuildRequest(context="/none", contexts={"x": "git://h/x"}),
    ],
)
def test_the_request_tells(request_: BuildRequest, tmp_path: Path) -> None:
    expected = request_.context != "."
    assert needs_outside(replace(request_, cwd=str(tmp_path))) is expected
