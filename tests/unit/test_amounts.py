"""Sizes, rates and durations as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.amounts import human_rate, human_size, human_time

pytestmark = pytest.mark.once

UNITS = ["B", "KiB", "MiB", "GiB", "TiB"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (374_681, "365.9KiB"), (162_004_992, "154.5MiB"),
     ((1 << 20) - 1, "1MiB"), (1_089_848_115, "1.015GiB"), (1 << 40, "1TiB"), (5000 << 40, "5000TiB")],
)  # fmt: skip
def test_a_size_has_four_digits_that_count(count: int, text: str) -> None:
    assert human_size(count) == text


@given(st.integers(0, 1 << 50))
def test_a_size_is_true_to_half_a_thousandth_in_the_largest_unit_that_fits(count: int) -> None:
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)([KMGT]?i?B)", human_size(count))
    assert match is not None
    number, power = float(match[1]), UNITS.index(match[2])
    assert (number >= 1 or not count) and (number < 1024 or power == len(UNITS) - 1)
    assert number * 1024**power == pytest.approx(count, rel=5.1e-4)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0, "0B/s"), (12.34, "12B/s"), (1500.0, "1.465KiB/s"), (320.0 * (1 << 20), "320MiB/s")],
)
def test_a_rate_is_a_size_in_a_second(rate: float, text: str) -> None:
    assert human_rate(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00s"), (9.994, "9.99s"), (9.996, "10.0s"), (59.94, "59.9s"), (59.96, "1m00s"),
     (125.4, "2m05s"), (3599.7, "1h00m"), (3720.0, "1h02m")],
)  # fmt: skip
def test_a_duration_is_written_in_units_that_carry_over(seconds: float, text: str) -> None:
    assert human_time(seconds) == text
