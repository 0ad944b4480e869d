"""Two stores stand for two machines: what one built, the other does not run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import steps_run
from tests.support.registry import Registry

STAMP = "head -c 16 /dev/urandom | md5sum"


@pytest.fixture
def stages(make_context: Context, busybox_image: str) -> Path:
    """Two stages that a third copies from; every RUN would give something else if it ran again."""
    return make_context(
        {
            "Dockerfile": (
                f"FROM {busybox_image} AS one\nCOPY a /a\nRUN {STAMP} > /one\n"
                f"FROM {busybox_image} AS two\nRUN {STAMP} > /two\nRUN {STAMP} > /unused\n"
                f"FROM {busybox_image}\nRUN {STAMP} > /own\nCOPY --from=one /one /one\n"
                f"COPY --from=two /two /two\nWORKDIR /w\nRUN true\nRUN cat /one /two > /both\n"
            ),
            "a": "a",
        }
    )


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nothing_runs_where_another_machine_ran_it(
    mode: str, stages: Path, make_img: MakeImg, registry: Registry
) -> None:
    ref = f"{registry.host}/share/{mode}"
    a, b = make_img(), make_img()
    a.build(stages, "--cache-to", f"type=registry,ref={ref},mode={mode}")
    again = b.build(stages, "--cache-from", f"type=registry,ref={ref}")
    assert steps_run(again) == []
    assert b.image().document == a.image().document
