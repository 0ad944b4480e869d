"""Go's durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.dockerfile.durations import nanoseconds

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("5s", 5 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5h", 5400 * SECOND),
        (".5s", SECOND // 2),
        ("1.s", SECOND),
        ("30s1m", 90 * SECOND),
        ("1us", 1000),
        ("1µs", 1000),
        ("1μs", 1000),
        ("-2ms", -2_000_000),
        ("+3ns", 3),
        ("0.1ns", 0),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, value: int) -> None:
    assert nanoseconds(text) == value


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-", ".s", "1d", "1 s", "1s ", "٣s", "1e3s", "300000h1000000h9999999h"]
)
def test_what_go_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        nanoseconds(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_parts_add_up(hours: int, minutes: int, seconds: int, millis: int) -> None:
    total = ((hours * 60 + minutes) * 60 + seconds) * SECOND + millis * 1_000_000
    assert nanoseconds(f"{hours}h{minutes}m{seconds}s{millis}ms") == total
