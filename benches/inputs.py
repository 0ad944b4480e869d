"""Makes what the benches build and pull: the same bytes on every machine, made once and kept."""

from __future__ import annotations

import io
import itertools
import random
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.layout import busybox_items, tar_of, write_busybox, write_layout

WORDS = b"the quick brown layer jumps over the lazy manifest and never looks back at its digest again "


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the inputs are; `factor` 1.0 is what GOALS measure."""

    factor: float

    def count(self, full: int) -> int:
        """So many of `full`, at least one."""
        return max(1, round(full * self.factor))


def content(seed: random.Random, size: int, *, noise: float = 0.6) -> bytes:
    """Bytes of which a share is noise, so that gzip brings them to about that share."""
    parts = []
    left = size
    while left > 0:
        block = min(left, 4096)
        random_part = int(block * noise)
        parts.append(seed.randbytes(random_part))
        rest = block - random_part
        parts.append((WORDS * (rest // len(WORDS) + 1))[:rest])
        left -= block
    return b"".join(parts)


def _once(folder: Path) -> bool:
    """False where the input is there already, complete."""
    if (folder.parent / f"{folder.name}.done").exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    return True


def _done(folder: Path) -> None:
    (folder.parent / f"{folder.name}.done").touch()


def large_files(folder: Path, scale: Scale) -> Path:
    """1.07 GB in 2,000 files of 20 folders."""
    if _once(folder):
        seed = random.Random(1)
        for n in range(scale.count(2000)):
            path = folder / f"d{n % 20}" / f"f{n}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(seed, 535_000))
        _done(folder)
    return folder


def small_files(folder: Path, scale: Scale) -> Path:
    """393 MB in 100,000 files of 8,755 folders, three deep, as a tree of dependencies has them."""
    if _once(folder):
        seed = random.Random(2)
        folders = [folder / f"p{n % 25}" / f"q{n // 25 % 25}" / f"r{n}" for n in range(scale.count(8105))]
        for path in folders:
            path.mkdir(parents=True, exist_ok=True)
        pool = content(seed, 4 << 20)
        for n in range(scale.count(100_000)):
            size = int(seed.expovariate(1 / 3930))
            start = seed.randrange(len(pool) - 65536)
            data = n.to_bytes(8, "big") + pool[start : start + min(size, 65536)]
            (folders[n % len(folders)] / f"f{n}").write_bytes(data)
        _done(folder)
    return folder


def image_layout(folder: Path, scale: Scale) -> Path:
    """An image of about 1.1 GB: 4 layers, 60,000 entries."""
    if _once(folder):
        layers = (_layer(number, scale) for number in range(4))
        write_layout(folder, layers, {"Cmd": ["sh"]})
        _done(folder)
    return folder


def five_layers(folder: Path, scale: Scale) -> Path:
    """An image of 1.07 GB: 5 layers, each 2,000 files of 107,000 bytes that gzip brings to two thirds."""
    if _once(folder):
        write_layout(folder, (_even_layer(number, scale) for number in range(5)), {"Cmd": ["sh"]})
        _done(folder)
    return folder


def _even_layer(number: int, scale: Scale) -> bytes:
    seed = random.Random(200 + number)
    names = (f"v{number}/f{n}" for n in range(scale.count(2000)))
    return _tar([(f"v{number}", None)], ((name, content(seed, 107_000)) for name in names))


def _layer(number: int, scale: Scale) -> bytes:
    return _tar(_entries(number, scale))


def _tar(*entries: Iterable[tuple[str, bytes | None]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in itertools.chain(*entries):
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = (0o644, 1_600_000_000)
            if data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _entries(number: int, scale: Scale) -> Iterator[tuple[str, bytes | None]]:
    seed = random.Random(100 + number)
    pool = content(seed, 8 << 20, noise=0.25)
    yield f"l{number}", None
    for folder in range(scale.count(1000)):
        yield f"l{number}/d{folder}", None
        for n in range(14):
            size = int(seed.expovariate(1 / 18_000))
            start = seed.randrange(1 << 20)
            yield f"l{number}/d{folder}/f{n}", seed.randbytes(8) + pool[start : start + size]


def busybox_layout(folder: Path) -> Path:
    """The base image of the tests."""
    if _once(folder):
        write_busybox(folder)
        _done(folder)
    return folder


def busybox_tar() -> bytes:
    """The base image's root, as a plain tar."""
    return tar_of(busybox_items())
