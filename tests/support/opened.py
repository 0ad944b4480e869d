"""Which files of a folder a program opens, by the kernel's own account (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

_IN_OPEN = 0x20
_IN_ISDIR = 0x4000_0000
_HEAD = struct.Struct("iIII")


def opened_during(root: Path, work: Callable[[], object]) -> set[str]:
    """Does some work; gives the files below a folder that anybody opened meanwhile, relative to it."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        folders: dict[int, Path] = {}
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            number = libc.inotify_add_watch(watch, os.fsencode(folder), _IN_OPEN)
            if number < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")
            folders[number] = folder
        work()
        return {str(path.relative_to(root)) for path in _opened(watch, folders)}
    finally:
        os.close(watch)


def _opened(watch: int, folders: dict[int, Path]) -> set[Path]:
    found: set[Path] = set()
    while True:
        try:
            data = os.read(watch, 1 << 20)
        except BlockingIOError:
            return found
        while data:
            number, mask, _, length = _HEAD.unpack_from(data)
            name = os.fsdecode(data[_HEAD.size : _HEAD.size + length].rstrip(b"\0"))
            data = data[_HEAD.size + length :]
            if name and not mask & _IN_ISDIR:
                found.add(folders[number] / name)
