"""A layer of a few kilobytes that unpacks to more than there is room for: a clear end, and nothing left."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.support.command import Img
from tests.support.layout import write_layout
from tests.support.registry import Registry
from tests.support.rooms import in_little_room


def _bomb() -> bytes:
    """A tar with one file of 80 MB of zeros, which gzip makes a thousand times smaller."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 80_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def test_a_layer_that_unpacks_to_more_than_the_disk_holds_is_refused_and_leaves_nothing(
    img: Img, registry: Registry, busybox_image: str, tmp_path: Path
) -> None:
    layout, state = tmp_path / "layout", tmp_path / "small"
    state.mkdir()
    write_layout(layout, [_bomb()], {})
    bomb = registry.push_layout(layout, "bomb")
    script = f"""
        img pull {bomb}; echo "bomb: $?"
        folders=$(find {state}/layers {state}/work -mindepth 1 | wc -l)
        echo "left: $folders $(ls {state}/oci/blobs/sha256 | grep -c partial)"
        img pull {busybox_image}; echo "next: $?"
        img images
    """
    text = in_little_room(img, state, script)
    assert "bomb: 5" in text and "no space left" in text.lower(), text
    assert "next: 0" in text, text
    assert "Traceback" not in text
    images = text.partition("next: 0")[2]
    assert "busybox" in images and "bomb" not in images, text
    assert "left: 0 0" in text, text
