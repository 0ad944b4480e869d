"""What commands make of a store whose machine went down: what is broken is made or fetched again.

What is sound is kept.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path

from tests.conftest import Context, MakeImg
from tests.support.command import Img, steps_run
from tests.support.registry import Registry

STAMP = "head -c 16 /dev/urandom | md5sum"
DAMAGED = "was being written when this machine went down"


def cut_the_power(img: Img) -> None:
    """Makes the store one that another boot of the machine used last."""
    with sqlite3.connect(img.state / "img.db") as database:
        assert database.execute("UPDATE meta SET value='another sound' WHERE key='boot'").rowcount == 1
    database.close()


def layer_with(img: Img, name: str) -> Path:
    """The folder of the layer that has this file."""
    (found,) = (path for path in (img.state / "layers").iterdir() if (path / name).exists())
    return found


def lose(path: Path) -> None:
    """Leaves a file as a file system does that had not written it yet: its name and times, and no byte."""
    times = path.stat()
    os.truncate(path, 0)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_build_makes_a_broken_layer_again_and_takes_the_sound_ones_from_the_cache(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    dockerfile = f"FROM {busybox_image}\nRUN echo one > /one\nRUN {STAMP} > /two\nRUN {STAMP} > /three\n"
    context = make_context({"Dockerfile": dockerfile})
    img.build(context)
    before = img.image()
    lose(layer_with(img, "one") / "one")
    cut_the_power(img)
    again = img.build(context)
    assert again.stderr.count(DAMAGED) == 1
    assert [title.partition("echo")[1] for title in steps_run(again)] == ["echo"]
    after = img.image()
    assert after.text("one") == "one\n"
    assert [after.text(name) for name in ("two", "three")] == [before.text(name) for name in ("two", "three")]
    calm = img.build(context)
    assert steps_run(calm) == [] and DAMAGED not in calm.stderr


def test_a_cut_that_broke_nothing_costs_nobody_a_step(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN {STAMP} > /a\nCOPY f /f\n", "f": "f"})
    img.build(context)
    cut_the_power(img)
    again = img.build(context)
    assert steps_run(again) == [] and DAMAGED not in again.stderr


def test_a_base_is_extracted_anew_from_its_blob_and_fetched_anew_where_that_is_broken(
    img: Img, make_context: Context, registry: Registry, busybox_layout: Path, tmp_path: Path
) -> None:
    base = registry.push_layout(busybox_layout, "power-cut")
    context = make_context({"Dockerfile": f"FROM {base}\nRUN busybox true && echo a > /a\n"})
    img.ok("pull", base)
    (layer,) = (img.state / "layers").iterdir()
    lose(layer / "bin" / "busybox")
    cut_the_power(img)
    offline = img.build(context, "--offline")
    assert len(steps_run(offline)) == 1

    sizes = {path: path.stat().st_size for path in (img.state / "oci/blobs/sha256").iterdir()}
    lose(max(sizes, key=lambda path: sizes[path]))
    cut_the_power(img)
    again = img.build(context, "--no-cache")
    assert again.stderr.count(DAMAGED) == 1
    assert img.image().text("a") == "a\n"


def test_a_push_never_sends_a_broken_blob(
    img: Img, make_img: MakeImg, make_context: Context, busybox_image: str, registry: Registry
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nRUN seq 2000000 > /large\n"})
    img.build(context)
    built = img.image()
    for name in ("one", "two"):
        img.ok("tag", "t", f"{registry.host}/cut-{name}:v")
    img.ok("push", f"{registry.host}/cut-one:v")
    blobs = sorted((img.state / "oci/blobs/sha256").iterdir(), key=lambda path: path.stat().st_mtime)
    broken = max(blobs, key=lambda path: path.stat().st_size)
    lose(broken)
    cut_the_power(img)
    img.ok("push", f"{registry.host}/cut-two:v")
    other = make_img()
    other.ok("pull", f"{registry.host}/cut-two:v")
    assert other.image(f"{registry.host}/cut-two:v").tree == built.tree


def test_a_list_of_images_leaves_out_one_whose_documents_are_lost(
    img: Img, make_context: Context, busybox_image: str
) -> None:
    context = make_context({"Dockerfile": f"FROM {busybox_image}\nENV A=1\n"})
    img.build(context, tag="kept")
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\nENV A=2\n")
    img.build(context, tag="lost")
    with sqlite3.connect(img.state / "img.db") as database:
        (config,) = database.execute("SELECT config FROM images WHERE name LIKE '%/lost:%'").fetchone()
    database.close()
    lose(img.state / "oci/blobs/sha256" / config.removeprefix("sha256:"))
    cut_the_power(img)
    listed = img.ok("images")
    assert "kept" in listed.stdout and "lost" not in listed.stdout
    assert DAMAGED in listed.stderr
    assert DAMAGED not in img.ok("images").stderr
    img.build(context, tag="lost")
    assert "lost" in img.ok("images").stdout


def test_what_a_row_names_may_be_gone_and_every_verb_goes_on_or_says_so(
    img: Img, make_context: Context, registry: Registry, busybox_layout: Path, tmp_path: Path
) -> None:
    """As after a power cut that brought rows back and not what they name; or after somebody's `rm -r`."""
    base = registry.push_layout(busybox_layout, "lost")
    run = "RUN --mount=type=cache,target=/c echo a > /c/a && echo a > /a"
    context = make_context({"Dockerfile": f"FROM {base}\n{run}\nCOPY f /f\n", "f": "f"})
    img.build(context, tag="app")
    blobs = "oci/blobs/sha256"

    def lose_all(*patterns: str) -> None:
        aside = Path(tempfile.mkdtemp(dir=tmp_path))  # what subordinate ids own can be moved, not deleted
        for number, path in enumerate([p for pattern in patterns for p in img.state.glob(pattern)]):
            path.rename(aside / str(number))

    # Folders: what can be had again is; what cannot says so; nothing else minds.
    lose_all(
        *(f"{name}/*" for name in ("layers", "listings", "fingerprints", "cache-mounts", "blocks", "memo"))
    )
    for verb in ("images", "history", "du", "ls", "prune"):
        img.ok(verb)
    assert "build the image again" in img.fails(5, "save", "-o", tmp_path / "x.tar", "app").stderr
    assert len(steps_run(img.build(context, tag="app"))) == 2
    assert img.image("app").text("a") == "a\n"
    lose_all("logs/*")
    assert img.ok("history").stdout
    img.ok("logs")
    # Documents of a base: the pull that brings them again is not held up by the row, and neither is a build.
    for words in (("pull", base), ("build", str(context)), ("images",)):
        lose_all(f"{blobs}/*")
        assert f"the documents of {base} are gone" in img.ok(*words).stderr
        img.ok("images")  # which sees them all
        img.ok("store", "check")
    # Those of what was built here: its name goes, and the next build brings it back.
    img.build(context, tag="app")
    (image_id,) = [row["id"] for row in img.ok("images", "--json").json() if row["name"] == "app"]
    lose_all(f"{blobs}/{image_id[7:]}")
    assert "no such image: app" in img.fails(5, "push", "app").stderr
    assert steps_run(img.build(context, tag="app")) == []
    img.ok("inspect", "app")
