"""`Supply`: a blob of one place as the file that another one reads."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from img.errors import DigestMismatch, SizeMismatch
from img.oci import Descriptor, sha256
from img.places.supply import PIECES_AHEAD, SMALL_BYTES, Supply
from img.progress import Progress
from img.registry import Sink, Stop, Stopped

CONTENT = random.Random(1).randbytes(SMALL_BYTES * 6 + 17)


class Bytes:
    """A source of one blob, in pieces."""

    def __init__(self, content: bytes, piece: int = 65_536) -> None:
        self.content = content
        self.piece = piece
        self.began: list[int] = []
        self.threads: list[threading.Thread] = []

    def pour(self, blob: Descriptor, sink: Sink, *, stop: Stop, progress: Progress) -> None:
        self.began.append(sink.offset)
        self.threads.append(threading.current_thread())
        while sink.offset < len(self.content):
            stop.check()
            sink.write(self.content[sink.offset : sink.offset + self.piece])


def supply(source: Bytes, *, content: bytes = CONTENT, stop: Stop | None = None) -> Supply:
    blob = Descriptor(media_type="x", digest=sha256(content), size=len(content))
    return Supply(source, blob, stop or Stop())


def read(made: Supply, offset: int = 0, most: int = -1, count: int = 50_000) -> bytes:
    with made.open() as file:
        file.seek(offset)
        data = b""
        while len(data) != most:
            piece = file.read(count if most < 0 else min(count, most - len(data)))
            if not piece:
                break
            data += piece
    return data


places = st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 300_000))


@settings(max_examples=30)
@given(st.lists(places, max_size=5), st.integers(5_000, 200_000))
def test_any_part_may_be_read_again_before_the_whole(parts: list[tuple[int, int]], count: int) -> None:
    source = Bytes(CONTENT)
    made = supply(source)
    furthest = 0
    for offset, length in parts:
        offset = min(
            offset, furthest, len(CONTENT) - 1
        )  # a registry goes on where it stands, which is nowhere it was never
        data = read(made, offset, length, count)
        assert data and CONTENT[offset:].startswith(data)
        furthest = max(furthest, offset + len(data))
    assert read(made, 0, count=count) == CONTENT
    made.close()
    assert not any(thread.is_alive() for thread in source.threads)


def test_parts_that_follow_one_another_are_read_once() -> None:
    source = Bytes(CONTENT)
    made = supply(source)
    parts = [read(made, offset, 100_000, 100_000) for offset in range(0, len(CONTENT), 100_000)]
    made.close()
    assert b"".join(parts) == CONTENT
    assert source.began == [0]


@pytest.mark.parametrize("size", [SMALL_BYTES, len(CONTENT)], ids=["in-memory", "piped"])
def test_the_end_of_a_wrong_blob_is_never_handed_out(size: int) -> None:
    wrong = CONTENT[: size - 1] + bytes([CONTENT[size - 1] ^ 1])
    short, long = CONTENT[: size - 1], wrong + b"x"
    for content, error in ((wrong, DigestMismatch), (short, SizeMismatch), (long, SizeMismatch)):
        made = supply(Bytes(content), content=CONTENT[:size])
        got: list[bytes] = []
        with pytest.raises(error):
            _drain(made, got)
        made.close()
        assert sum(map(len, got)) < size - 1


def _drain(made: Supply, got: list[bytes]) -> None:
    with made.open() as file:
        while piece := file.read(10_000):
            got.append(piece)


def test_a_source_is_only_some_pieces_ahead() -> None:
    source = Bytes(CONTENT, piece=SMALL_BYTES // 8)
    made = supply(source)
    with made.open() as file:
        assert file.read(1) == CONTENT[:1]
        pipe = made._pipe
        assert pipe is not None
        while len(pipe._pieces) < PIECES_AHEAD:
            assert pipe._thread.is_alive()
        assert pipe.offset <= (PIECES_AHEAD + 3) * SMALL_BYTES // 8
    made.close()
    assert not any(thread.is_alive() for thread in source.threads)


def test_a_stop_ends_both_ends() -> None:
    stop = Stop()
    source = Bytes(CONTENT)
    made = supply(source, stop=stop)
    assert read(made, 0, 1, 1) == CONTENT[:1]
    stop.set()
    with pytest.raises(Stopped):
        _drain(made, [])
    made.close()
    assert not any(thread.is_alive() for thread in source.threads)
