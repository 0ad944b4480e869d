"""Archives that are read where they lie, and what hostile ones come to."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from img.errors import InvalidDocument
from img.places.files import Tar

from tests.support.layout import Item, symlink, tar_of

pytestmark = pytest.mark.once

MIB = 1 << 20


def head(name: str, kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(size: int, *, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A header of pax with one record of that many bytes."""
    record = f"{size} comment=".encode()
    return head("pax/evil", kind, size) + padded(record + b"a" * (size - len(record) - 1) + b"\n")


def gnu_sparse(blocks: int) -> bytes:
    """An entry of GNU's old sparse form whose map goes on and on."""
    first = bytearray(head("sparse/evil", tarfile.GNUTYPE_SPARSE))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    more = bytearray(512)
    more[504] = 1
    return bytes(first) + bytes(more) * blocks


def pax_sparse(blocks: int) -> bytes:
    """The form of pax 1.0, whose map is in the data."""
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n29 GNU.sparse.realsize=00005\n"
    numbers = b"99999999999\n" + (b"0" * 126 + b"1\n") * (blocks * 4)
    kind = head("pax/evil", tarfile.XHDTYPE, len(records))
    return kind + padded(records) + head("sparse/evil", b"0", len(numbers)) + padded(numbers)


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[Iterable[bytes]], Path]:
    def write(pieces: Iterable[bytes]) -> Path:
        path = tmp_path / "evil.tar"
        path.write_bytes(b"".join((tar_of([Item(path="first", data=b"1")])[:1024], *pieces, bytes(1024))))
        return path

    return write


@pytest.mark.parametrize(
    ("pieces", "entry"),
    [
        ([head("pax/evil", tarfile.XHDTYPE, 8 << 30)], "pax/evil"),
        ([head("pax/evil", tarfile.XGLTYPE, 8 << 30)], "pax/evil"),
        ([head("long/evil", tarfile.GNUTYPE_LONGNAME, 8 << 30)], "long/evil"),
        ([head("link/evil", tarfile.GNUTYPE_LONGLINK, 8 << 30)], "link/evil"),
        ([pax(MIB)], "pax/evil"),
        ([pax(MIB - 4096), pax(8192), head("f", b"0")], "pax/evil"),
        ([gnu_sparse(3000)], ""),
        ([pax_sparse(3000)], ""),
    ],
)
def test_a_head_that_claims_more_than_a_mebibyte_is_refused_by_name_and_not_read(
    archive: Callable[[Iterable[bytes]], Path], pieces: list[bytes], entry: str
) -> None:
    path = archive(pieces)
    os.truncate(path, max(path.stat().st_size, 9 << 30))  # there is that much of it: a hole
    tracemalloc.start()
    try:
        with pytest.raises(InvalidDocument, match="longer than 1048576 bytes") as caught:
            Tar(path, "evil.tar")
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert "evil.tar" in str(caught.value) and entry in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_heads_before_heads_end_in_an_error(archive: Callable[[Iterable[bytes]], Path], kind: bytes) -> None:
    with pytest.raises(InvalidDocument, match=r"evil\.tar"):
        Tar(archive([*[pax(20, kind=kind)] * 5000, head("f", b"0")]), "evil.tar")


def test_what_pax_says_of_all_that_follow_does_not_pile_up(
    archive: Callable[[Iterable[bytes]], Path],
) -> None:
    each = [pax(MIB // 2, kind=tarfile.XGLTYPE).replace(b"comment", b"c%06d" % n) for n in range(60)]
    path = archive(piece for each_ in each for piece in (each_, head("f", b"0")))
    tracemalloc.start()
    try:
        Tar(path, "evil.tar").close()
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    finally:
        tracemalloc.stop()


def test_an_entry_that_leads_back_to_itself_is_refused(
    archive: Callable[[Iterable[bytes]], Path],
) -> None:
    """Of a size below zero: the next head would be one that was read before."""
    back = bytearray(head("f", b"0"))
    back[124:136] = (-1024 & (1 << 96) - 1).to_bytes(12, "big")
    back[148:156] = b" " * 8
    back[148:156] = b"%06o\0 " % sum(back)
    with pytest.raises(InvalidDocument, match="-1024 bytes"):
        Tar(archive([bytes(back)]), "evil.tar")


def test_names_of_every_dialect_are_read(tmp_path: Path) -> None:
    long = "d/" * 120 + "long"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as made:
            info = tarfile.TarInfo(long)
            info.size = 5
            made.addfile(info, io.BytesIO(b"bytes"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, long
            made.addfile(link)
        files = Tar(path, "good.tar")
        assert (files.read(long, 1, 3), files.size("link"), files.size("none")) == (b"yte", 5, None)
        files.close()


GOOD = tar_of([Item(path="é" * 60, data=b"x" * 700), symlink("l", "é" * 60), Item(path="b", data=b"2")])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=12), st.booleans())
def test_any_bytes_are_an_archive_or_an_error_of_ours(
    tmp_path: Path, changes: list[tuple[int, int]], sealed: bool
) -> None:
    """Bytes changed anywhere; with the sums of all heads made right again, so that more of it is believed."""
    data = bytearray(GOOD)
    for at, byte in changes:
        data[at] = byte
    for start in range(0, len(data) - 511, 512) if sealed else ():
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    path = tmp_path / "any.tar"
    path.write_bytes(data)
    with suppress(InvalidDocument):
        Tar(path, "any.tar").close()
