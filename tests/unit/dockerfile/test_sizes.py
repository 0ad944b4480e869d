"""Sizes, as docker reads them."""

from __future__ import annotations

import pytest
from img.dockerfile.sizes import size_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("512b", 512), ("1k", 1024), ("1K", 1024), ("1kb", 1024), ("1KiB", 1024),
        ("10m", 10 << 20), ("1.5g", 3 << 29), ("1 g", 1 << 30), (".5k", 512), ("2.k", 2048), ("1t", 1 << 40),
        ("1p", 1 << 50),
    ],
)  # fmt: skip
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1x", "1mm", "1ibm", "1 2", "1  g", "0x10", "1e3", "9000p", "٣"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        size_bytes(text)
