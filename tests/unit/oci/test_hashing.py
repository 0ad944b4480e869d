"""The digest of a file: the same as that of its bytes, whatever its length."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from img.oci.hashing import digest_of


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 7])
def test_the_digest_of_a_file_is_that_of_its_bytes(length: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * length)
    assert digest_of(path) == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_of(tmp_path / "none")
