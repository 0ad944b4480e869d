"""Files that a connection sends without reading them: what the kernel sends of them, and what it leaves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from img.web.sockets import sent_by_kernel

BYTES = bytes(range(256)) * 40


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(BYTES)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_stretch_of_a_file_arrives(pair: tuple[socket.socket, socket.socket], file: int) -> None:
    assert sent_by_kernel(pair[0], file, 100, 9_000, 30) == 8_900
    assert pair[1].recv(20_000, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == BYTES[100:9_000]


def test_what_a_shorter_file_lacks_is_left(pair: tuple[socket.socket, socket.socket], file: int) -> None:
    assert sent_by_kernel(pair[0], file, 10_000, 20_000, 30) == len(BYTES) - 10_000
    assert sent_by_kernel(pair[0], file, 30_000, 40_000, 30) == 0


def test_what_cannot_be_sent_so_is_left_to_be_read(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    blind = os.open(tmp_path / "blind", os.O_WRONLY | os.O_CREAT)
    assert sent_by_kernel(pair[0], blind, 0, 10, 30) == 0
    os.close(blind)


def test_a_peer_that_takes_nothing_ends_it(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(16 << 20))
    with (tmp_path / "long").open("rb") as long, pytest.raises(TimeoutError):
        sent_by_kernel(pair[0], long.fileno(), 0, 16 << 20, 0.05)


def test_a_peer_that_is_gone_is_the_connections_fault(
    pair: tuple[socket.socket, socket.socket], file: int
) -> None:
    pair[1].close()
    with pytest.raises(ConnectionError):
        sent_by_kernel(pair[0], file, 0, 100, 30)
