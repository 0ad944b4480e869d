"""A `dir:` folder that gets another image: it holds the one or the other, whenever the copy is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from img.engine import Engine, Settings
from img.engine.copying import CopyRequest
from img.errors import UsageError
from img.places.files import Folder
from img.places.folder import FolderSource, FolderTarget
from img.places.place import Cargo
from img.progress import silent
from img.registry import Stop

from tests.suites.registry.images import FileSink
from tests.suites.registry.pile import Pile, on

pytestmark = pytest.mark.once

KILLED = """
import os, signal, sys
from img.engine import Engine, Settings
from img.engine.copying import CopyRequest
from img.places import folder

left = int(sys.argv[1])

def count(event, args):
    global left
    if event in ("os.rename", "os.remove") and str(args[0]).startswith(sys.argv[3]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
with Engine(Settings(state=sys.argv[4])) as engine:
    engine.copy(CopyRequest(source=sys.argv[2], targets=(f"dir:{sys.argv[3]}",)))
"""


@pytest.fixture
def pile(tmp_path: Path) -> Pile:
    """Two indexes, called `old` and `new`, which share an image."""
    made = Pile(tmp_path / "pile")
    shared = {**made.image("amd64", 3_000), **on("amd64")}
    for name, architecture in (("old", "arm64"), ("new", "riscv64")):
        own = made.image(architecture, 2_000, 20)
        made.name(made.index([shared, {**own, **on(architecture)}]), name)
    return made


@pytest.fixture
def copy(tmp_path: Path, pile: Pile) -> object:
    def run(name: str, folder: Path) -> str:
        with Engine(Settings(state=str(tmp_path / "state"))) as engine:
            request = CopyRequest(source=f"oci:{pile.folder}:{name}", targets=(f"dir:{folder}",))
            return engine.copy(request).digest

    return run


def held(folder: Path, scratch: Path) -> str:
    """The digest of the image in a folder, every byte of which was read and checked."""
    source = FolderSource(Folder(folder))
    root = source.root()
    for entry in root.manifests:  # type: ignore[union-attr]
        manifest = source.document(entry)
        for blob in (manifest.config, *manifest.layers):  # type: ignore[union-attr]
            sink = FileSink(scratch, blob)
            source.pour(blob, sink, stop=Stop(), progress=silent)
            sink.finish()
    return root.digest


def test_a_copy_that_is_killed_anywhere_leaves_one_image_whole(
    tmp_path: Path, pile: Pile, copy: object
) -> None:
    folder, scratch = tmp_path / "d", tmp_path / "scratch"
    scratch.mkdir()
    old = copy("old", folder)  # type: ignore[operator]
    names = {path.name for path in folder.iterdir()}
    (folder / "notes.txt").write_text("mine")
    seen = set()
    for steps in range(0, 40, 2):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(steps), f"oci:{pile.folder}:new", folder, tmp_path / "state"],
            check=False,
        )
        seen.add(held(folder, scratch) == old)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
    assert seen == {True, False} and steps > 4, "before the one rename, and after it"
    assert copy("old", folder) == old  # type: ignore[operator]
    assert {path.name for path in folder.iterdir()} == names | {"notes.txt"}


def test_a_copy_that_is_given_up_takes_its_files_back_and_two_at_once_are_refused(
    tmp_path: Path, copy: object
) -> None:
    folder = tmp_path / "d"
    copy("old", folder)  # type: ignore[operator]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    source = FolderSource(Folder(folder))
    root = source.root()
    first, second = FolderTarget(folder), FolderTarget(folder)
    cargo = Cargo(documents=(root,), blobs=())
    first.begin(cargo, source)
    with pytest.raises(UsageError, match="another copy"):
        second.begin(cargo, source)
    second.abort()
    first.document(source.document(root.manifests[0]))  # type: ignore[union-attr]
    (folder / "notes.txt").write_text("mine")
    first.abort()
    first.abort()
    (folder / "notes.txt").unlink()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    new = FolderTarget(tmp_path / "new")
    new.begin(cargo, source)
    new.abort()
    assert not (tmp_path / "new").exists()
