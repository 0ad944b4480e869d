"""Files of the context that are not read again, and every way in which one may have changed all the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conftest import Context
from tests.support.command import Img
from tests.support.opened import opened_during

pytestmark = pytest.mark.once


@pytest.fixture
def context(make_context: Context) -> Path:
    """A context whose files are older than any clock's tick."""
    root = make_context({"Dockerfile": "FROM scratch\nCOPY d /d\n", "d/a": "one", "d/e/b": "two"})
    settle(root)
    return root


def settle(root: Path) -> None:
    """Comes back when a file that is changed now has a later time than these, by more than a clock's tick."""
    newest = max(path.stat().st_ctime_ns for path in root.rglob("*"))
    probe = root.parent / "probe"
    probe.touch()
    while probe.stat().st_ctime_ns < newest + 50_000_000:
        probe.touch()


def read(img: Img, context: Path) -> set[str]:
    """Builds; gives the files of `d` that were opened."""
    return {path for path in opened_during(context, lambda: img.build(context)) if path.startswith("d/")}


def content(img: Img) -> str:
    return img.image().text("d/a")


def test_no_file_of_an_unchanged_context_is_opened(img: Img, context: Path) -> None:
    assert read(img, context) == {"d/a", "d/e/b"}
    assert read(img, context) == set()
    (context / "d/a").write_text("other")
    assert "d/a" in read(img, context)
    assert content(img) == "other"


def test_a_file_that_was_just_written_is_read_again(img: Img, context: Path) -> None:
    """A second write within the tick of the first leaves every time as it is, so nothing is believed yet."""
    later = time.time_ns() + 3_600_000_000_000
    for text in ("own", "two", "six"):
        (context / "d/a").write_text(text)
        os.utime(context / "d/a", ns=(later, later))
        img.build(context)
        assert content(img) == text


@pytest.mark.parametrize("how", ["write", "replace", "hard link", "map"])
def test_a_change_of_the_same_length_and_time_is_seen(
    how: str, img: Img, context: Path, tmp_path: Path
) -> None:
    img.build(context)
    file = context / "d/a"
    before = file.stat()
    if how == "write":
        file.write_text("two")
    elif how == "replace":
        (tmp_path / "new").write_text("two")
        os.replace(tmp_path / "new", file)
    elif how == "hard link":
        os.link(file, tmp_path / "outside")
        (tmp_path / "outside").write_text("two")
    else:
        import mmap

        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 3) as mapped:
            mapped[:] = b"two"
            mapped.flush()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    img.build(context)
    assert content(img) == "two"


def test_two_names_of_one_file_are_read_once_and_both_change(img: Img, context: Path) -> None:
    os.link(context / "d/a", context / "d/c")
    settle(context)
    img.build(context)
    assert read(img, context) == set()
    (context / "d/c").write_text("two")
    img.build(context)
    assert content(img) == "two"
    assert img.image().text("d/c") == "two"
