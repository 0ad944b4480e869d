"""What the benches make of figures: which sitting counts, what the table says, what a picture shows."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benches import report, results
from benches.growth import exponent
from benches.plot import Axis, Series, chart
from benches.results import Figures, Results, Sitting
from benches.workloads import Goal, chosen

pytestmark = pytest.mark.once


def _figures(name: str, *seconds: float, limit: bool = False, problem: str = "") -> Figures:
    return Figures(
        name=name,
        limit=limit,
        identity="user",
        version=f"{name} 1",
        seconds=seconds,
        cpu_seconds=seconds,
        memory_bytes=50 << 20,
        stored_bytes=0,
        problem=problem,
    )


def _sitting(row: str, date: str, *figures: Figures) -> Sitting:
    return Sitting(
        row=row,
        date=date,
        command="python -m benches.run",
        machine="a machine",
        scale=1,
        fresh=True,
        load=0.1,
        figures={one.name: one for one in figures},
    )


def test_a_ratio_counts_within_its_sitting_whatever_is_measured_later() -> None:
    known = Results().with_sitting(_sitting("3", "day 1", _figures("img", 2.0), _figures("buildah", 20.0)))
    known = known.with_sitting(_sitting("3", "day 2", _figures("img", 1.0), _figures("buildkit", 14.0)))
    rows = {one.name: (sitting.date, sitting.ratio(one.name)) for sitting, one in report.latest(known, "3")}
    assert rows == {"img": ("day 2", 1.0), "buildkit": ("day 2", 14.0), "buildah": ("day 1", 10.0)}


def test_a_sitting_of_which_nothing_counts_any_more_goes() -> None:
    known = Results().with_sitting(_sitting("3", "day 1", _figures("img", 2.0), _figures("buildah", 20.0)))
    known = known.with_sitting(_sitting("4", "day 1", _figures("img", 2.0)))
    known = known.with_sitting(_sitting("3", "day 2", _figures("img", 1.0), _figures("buildah", 14.0)))
    assert [(sitting.row, sitting.date) for sitting in known.sittings] == [("4", "day 1"), ("3", "day 2")]


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    known = Results().with_sitting(
        _sitting("3", "day 1", _figures("img", 2.0, 1.0), _figures("podman", problem="no"))
    )
    results.save(known, tmp_path / "results.json")
    assert results.load(tmp_path / "results.json") == known


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 0, "sittings": []}')
    with pytest.raises(ValueError, match="format 0"):
        results.load(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("ours", "work", "verdict"),
    [(1.1, 1.0, "yes"), (1.2, 1.0, "no"), (1.0, 0.0, "")],
    ids=["met", "missed", "unknown"],
)
def test_a_goal_may_be_a_share_of_a_limit(ours: float, work: float, verdict: str) -> None:
    limits = [_figures("the work itself", work, limit=True)] if work else []
    known = Results().with_sitting(_sitting("9", "day 1", _figures("img", ours), *limits))
    assert report.verdict(known, "9", Goal(limit="the work itself", factor=1.15)) == verdict


def test_the_page_names_who_is_missing_and_why() -> None:
    missing = _figures("podman", problem="podman is not installed")
    known = Results().with_sitting(_sitting("3", "day 1", _figures("img", 2.0), missing))
    page = report.render(known)
    assert "| 3 | podman | user | podman is not installed |" in page
    assert "| 3 | COPY of 1.07 GB in 2,000 files | 2.00 s | 1.5 s | no | - |" in page


def test_a_rows_name_stands_for_its_kinds() -> None:
    assert chosen(["11", "3p", "1"]) == ["1", "3p-gzip", "3p-zstd", "11-version", "11-images"]
    with pytest.raises(ValueError, match="no row 12"):
        chosen(["12"])


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    assert exponent([(size, 3 * size**power) for size in (10, 100, 1000)]) == pytest.approx(power)


def test_one_point_has_no_exponent() -> None:
    assert math.isnan(exponent([(10, 1)]))


def test_a_picture_is_well_formed_and_holds_every_point_within_its_frame() -> None:
    points = tuple((10.0**power, 10.0 ** (power - 3)) for power in range(1, 6))
    axis = Axis(title="size & more", text=lambda value: f"{value:g}")
    drawn = ElementTree.fromstring(chart("Time < size", axis, axis, [Series(name="COPY", points=points)]))
    dots = drawn.findall("{http://www.w3.org/2000/svg}circle")
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    assert len(dots) == len(points)
    assert all(0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height for dot in dots)
