"""Times caches that travel: `python -m benches.mounts` fills a folder and prints one table.

    python -m benches.mounts [--megabytes 1000] [--runs 3] [--dir /var/tmp/img-bench]

A folder of mixed files (a third in small texts, a third in objects of 200 KB, a third in archives of 20 MB)
is cut into chunks and unpacked again, beside `tar | zstd` and `zstd -d | tar` in turns. Then a hundredth
of its files changes, and it is cut once more with what is known of the first time: what is counted is the
bytes that would be uploaded.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from img import _core

WORDS = [f"word{number}" for number in range(5_000)]


def fill(root: Path, megabytes: int) -> list[Path]:
    """Makes the folder; gives its files."""
    chance = random.Random(1)
    files = []
    for name, length, share in (("text", 6_000, 3), ("object", 200_000, 3), ("archive", 20_000_000, 3)):
        for number in range(max(1, megabytes * 1_000_000 // share // length)):
            path = root / name / f"{number % 50:02}" / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(chance, name, length))
            files.append(path)
    return files


def content(chance: random.Random, name: str, length: int) -> bytes:
    """Texts compress well, objects by half, archives not at all."""
    noise = 0 if name == "text" else length // 2 if name == "object" else length
    words = " ".join(chance.choices(WORDS, k=(length - noise) // 8 + 1))
    return chance.randbytes(noise) + words.encode()[: length - noise]


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def empty(path: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def chunked(source: Path, spool: Path, known: dict[str, tuple[str, int]]) -> _core.ChunkedFolder:
    """Cuts the folder."""
    return _core.chunk_folder(str(source), str(empty(spool)), known=known)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/img-bench"))
    options = parser.parse_args()
    top = empty(options.dir / "mounts")
    source, spool, dest, archive = (top / name for name in ("source", "spool", "dest", "archive.tar.zst"))
    files = fill(source, options.megabytes)
    tar = f"tar -C {source} --sort=name -c . | zstd -q -3 -T0 -f -o {archive}"
    untar = f"zstd -q -dc {archive} | tar -C {dest} -x"
    rows: dict[str, list[float]] = {}
    made = chunked(source, spool, {})
    paths = [str(spool / chunk.digest.partition(":")[2]) for chunk in made.chunks]
    works: dict[str, Callable[[], object]] = {
        "out: img": lambda: chunked(source, spool, {}),
        "out: tar | zstd": lambda: subprocess.run(tar, shell=True, check=True),
        "in: img": lambda: _core.unpack_chunks(paths, str(dest), total_bytes=made.total_bytes),
        "in: zstd -d | tar": lambda: subprocess.run(untar, shell=True, check=True),
    }
    for _ in range(options.runs):
        for name, work in works.items():
            empty(dest)
            rows.setdefault(name, []).append(timed(work))
    known = {chunk.content: (chunk.digest, chunk.size) for chunk in made.chunks}
    chance = random.Random(2)
    for path in chance.sample(files, max(1, len(files) // 100)):
        path.write_bytes(chance.randbytes(path.stat().st_size))
    again: list[_core.ChunkedFolder] = []
    rows["out again, changed: img"] = [timed(lambda: again.append(chunked(source, spool, known)))]
    for name, seconds in rows.items():
        print(f"{name:<26}{statistics.median(seconds):8.2f} s")
    sizes = {chunk.digest: chunk.size for chunk in made.chunks}
    new = {chunk.digest: chunk.size for chunk in again[0].chunks if not chunk.known}
    print(f"{len(files)} files, {made.total_bytes / 1e6:.0f} MB in {len(made.chunks)} chunks")
    print(f"img: {sum(sizes.values()) / 1e6:.0f} MB; tar | zstd: {archive.stat().st_size / 1e6:.0f} MB")
    print(f"uploaded again: {sum(new.values()) / 1e6:.1f} MB in {len(new)} chunks")
    shutil.rmtree(top)


if __name__ == "__main__":
    main()
