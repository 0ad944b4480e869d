"""Times the walk of a context: `python -m benches.context` makes 100,000 files and prints one table.

    python -m benches.context [--runs 9] [--files 100000] [--dir /var/tmp/img-bench]

What is timed is `Selection` alone, in this process: the walk, the matching and the sorting, warm in the
page cache, with no pattern and with 50; no file is read.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from img import _core

PATTERNS = (
    "**/.git",
    "**/.hg",
    "**/.svn",
    "**/node_modules",
    "**/__pycache__",
    "**/*.pyc",
    "**/*.pyo",
    "**/*.swp",
    "**/*~",
    "**/.DS_Store",
    "**/Thumbs.db",
    "**/.idea",
    "**/.vscode",
    "**/*.log",
    "**/npm-debug.log*",
    "*.md",
    "!README.md",
    "docs/**",
    "!docs/api/*.html",
    "build",
    "dist",
    "target/",
    "/out",
    "tmp*",
    "**/tmp?",
    "*.tar.gz",
    "*.zip",
    "Dockerfile*",
    ".dockerignore",
    ".env*",
    "!.env.example",
    "secrets/**/*.pem",
    "**/*.key",
    "test/**/fixtures",
    "test/*/snapshots",
    "coverage",
    ".coverage.*",
    "**/[Bb]in",
    "**/[Oo]bj",
    "vendor/*/test",
    "packages/*/dist",
    "packages/**/lib/*.map",
    "!packages/core/lib/*.map",
    "**/*.min.js.map",
    "ci/[a-z]*.yml",
    "**/.cache",
    "d1/f1",
    "d2/**/f2*",
    "**/x/y/z",
    "!**/keep.me",
)


def tree(folder: Path, files: int) -> Path:
    """So many empty files, some 12 in a folder."""
    done = folder.parent / f"{folder.name}.done"
    if not done.exists():
        for number in range(files):
            path = (
                folder
                / f"d{number % 97}"
                / f"e{number // 97 % 90}"
                / f"f{number}.{'pyc' if number % 50 == 0 else 'c'}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        done.touch()
    return folder


def seconds(root: Path, patterns: tuple[str, ...]) -> tuple[float, int]:
    """How long one walk takes, and how many entries it gives."""
    started = time.perf_counter()
    selection = _core.Selection(str(root), ["."], ignore=patterns)
    return time.perf_counter() - started, selection.count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.context")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/img-bench"))
    options = parser.parse_args()
    root = tree(options.dir / f"context-{options.files}", options.files)
    print(f"{'patterns':>8} {'entries':>8} {'median s':>9} {'least s':>8}")
    for patterns in ((), PATTERNS):
        seconds(root, patterns)
        runs = [seconds(root, patterns) for _ in range(options.runs)]
        times = [run[0] for run in runs]
        print(f"{len(patterns):>8} {runs[0][1]:>8} {statistics.median(times):>9.3f} {min(times):>8.3f}")


if __name__ == "__main__":
    main()
