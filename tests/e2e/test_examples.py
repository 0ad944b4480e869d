"""The example of mounts, built for real: apt over cache mounts, sources that are bound, a secret, links."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.support import hosts
from tests.support.command import Img, steps_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/mounts"


def test_the_example_of_mounts_builds_and_builds_again_from_its_caches(
    img: Img, debian_image: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    context = tmp_path / "example"
    shutil.copytree(EXAMPLE, context)
    flags = ("--build-arg", f"BASE={debian_image}", "--secret", f"id=token,src={token}")
    img.build(context, *flags)
    image = img.image()
    assert image.text("usr/local/share/greeting") == "BUILT WITH MOUNTS\n"
    assert image.text("usr/local/share/token.sha256").split()[0] == hashlib.sha256(b"s3cret").hexdigest()
    assert image.tree["usr/local/bin/greet"].bits == "755"
    assert image.config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/greet"]
    assert set(image.layers[-1]) == {"usr", "usr/local", "usr/local/bin", "usr/local/bin/greet"}

    # Other words: the tools come from the cache, and make finds its objects where it left them.
    (context / "words.txt").write_text("built again\n")
    again = img.build(context, *flags)
    assert not any("apt-get" in step for step in steps_run(again))
    assert img.image().text("usr/local/share/greeting") == "BUILT AGAIN\n"
    found = subprocess.run(
        hosts.inside("grep", "-rlF", "s3cret", str(img.state)), capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, ""), "the secret must be nowhere below the store"


def test_the_example_of_mounts_has_nothing_to_complain_about(img: Img, debian_image: str) -> None:
    img.ok("build", "--check", "--build-arg", f"BASE={debian_image}", EXAMPLE)
