"""A store on disk, and images and layers to put into it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from img.oci import Descriptor, Image, ImageConfig, Platform, sha256
from img.oci.descriptor import OCI_LAYER
from img.store import Store

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store is, or will be."""
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """A new store."""
    with Store(root) as opened:
        yield opened


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Starts a process that runs Python code over the same store (`root` and `sys.argv` are there)."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *args: str) -> subprocess.Popen[str]:
        head = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
            "from pathlib import Path\nfrom img.store import Store\n"
            "from tests.unit.store.conftest import image_of, make_folder\n"
            f"root = Path({str(root)!r})\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", head + code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str], word: str = "") -> None:
    """Writes a line to a process."""
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Reads a line from a process, without its end; empty where it ended."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def succeed(process: subprocess.Popen[str]) -> str:
    """Waits for a process that must end with 0; gives the rest of its output."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


def make_folder(store: Store, name: str, size: int = 0) -> Path:
    """A layer's folder, ready to be published, with one file of this many bytes."""
    folder = store.lease().folder(name)
    (folder / "file").write_bytes(b"\1" * size)
    return folder


def diff_id_of(text: str) -> str:
    """A diff ID that stands for a text."""
    return sha256(text.encode())


def image_of(store: Store, *layers: str, label: str = "") -> Image:
    """An image of layers whose blobs are these texts, and in the store."""
    descriptors = tuple(
        Descriptor(media_type=OCI_LAYER, digest=store.blobs.put(text.encode()), size=len(text))
        for text in layers
    )
    config = ImageConfig(platform=Platform.host(), diff_ids=tuple(diff_id_of(text) for text in layers))
    return Image.make(config.with_run(Labels={"label": label}), descriptors)
