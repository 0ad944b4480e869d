"""Whole commands on a registry's bad day, and `img store check` over what they leave."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.conftest import Context, MakeImg
from tests.support.command import Img
from tests.support.faults import Fault, FaultyWay, Schedule
from tests.support.registry import Registry
from tests.support.sound import RegistryFolder, store_complaints

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def way(registry: Registry) -> Iterator[FaultyWay]:
    """A proxy before the registry that carries out a schedule."""
    with FaultyWay(registry.host) as proxy:
        yield proxy


def fault(kind: str, name: str, nth: int = 0, *, on: bool = False) -> Fault:
    return Fault(kind=kind, name=name, nth=nth, on=on)


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([fault("blob-get", "broken", n) for n in range(4)], 0),
        ([fault("manifest-get", "503-past"), fault("blob-get", "flipped", 1)], 0),
        ([fault("manifest-get", "circular")], 3),
        ([fault("manifest-get", "huge", on=True)], 3),
        ([fault("blob-get", "403", 1, on=True)], 3),
        ([fault("blob-get", "flipped", 1, on=True)], 5),
    ],
    ids=["breaks", "passing", "circular", "huge", "refused", "spoilt"],
)
def test_a_pull_on_a_bad_day(
    make_img: MakeImg, way: FaultyWay, busybox_image: str, faults: list[Fault], code: int
) -> None:
    img = make_img()
    way.follow(Schedule(faults=tuple(faults)))
    outcome = img("pull", f"{way.host}/{busybox_image.partition('/')[2]}")
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.stderr
    assert store_complaints(img.state) == []
    assert img.ok("store", "check").stdout.startswith("sound:")
    if code:
        way.follow(Schedule())
        img.ok("pull", f"{way.host}/{busybox_image.partition('/')[2]}")


@pytest.fixture
def built(img: Img, make_context: Context) -> Img:
    """A store with an image `t` of two layers, one of them long."""
    noise = random.Random(5).randbytes(12 << 20)
    dockerfile = "FROM scratch\nCOPY big /\nCOPY small /\n"
    img.build(make_context({"Dockerfile": dockerfile, "big": noise, "small": "words\n"}))
    return img


def test_pushes_on_bad_days_leave_whole_images(built: Img, way: FaultyWay, registry: Registry) -> None:
    folder = RegistryFolder(registry.folder / "data")
    days = [
        ([fault("upload-patch", "half"), fault("upload-put", "lost", 1)], 0),
        ([fault("upload-patch", "405", on=True), fault("upload-post", "503-past")], 0),
        ([fault("manifest-put", "400")], 3),
        ([fault("upload-post", "other-host"), fault("upload-patch", "ignored")], 0),
    ]
    for number, (faults, code) in enumerate(days):
        name = f"bad-days/{number}"
        built.ok("tag", "t", f"{way.host}/{name}:1")
        way.follow(Schedule(faults=tuple(faults), guarded=number % 2 == 1))
        outcome = built("push", f"{way.host}/{name}:1")
        assert outcome.code == code and "Traceback" not in outcome.stderr, outcome
        assert way.strayed == []
        assert folder.complaints(name, "1") == ([] if not code else [f"{name} has no tag 1"])


def test_a_store_is_checked_repaired_and_filled_again(built: Img) -> None:
    outcome = built.ok("store", "check")
    assert outcome.stdout.startswith("sound: 1 name, 2 blobs, 2 layers, 2 records")
    config = built.image("t").manifest["config"]["digest"]
    path = built.state / "oci/blobs/sha256" / config.removeprefix("sha256:")
    path.chmod(0o600)
    path.write_bytes(b"{}")
    found = built.fails(5, "store", "check", "--quick", "--json").json()
    assert not found["sound"] and {d["kind"] for d in found["defects"]} >= {"blob", "image"}
    assert "2 wrong" in built.fails(5, "store", "check").stdout
    assert "repaired" in built.ok("store", "check", "--repair").stdout
    assert built.ok("store", "check").stdout.startswith("sound:")
    assert store_complaints(built.state) == []
