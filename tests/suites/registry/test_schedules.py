"""A thousand bad days: each pull and push comes out right or ends in a typed error, and nothing is spoilt.

Each seed is one schedule of faults (`tests/support/faults.py`) for one pull or push through a proxy before a
real registry. `SEED=123` runs one of them alone and says what came by.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from img.engine.pulling import Puller
from img.errors import ImgError
from img.oci import Descriptor, Manifest, Platform, Reference
from img.registry import Options, Registry, Stop, push
from img.store import Store
from img.values import replace

from tests.suites.registry.images import Bits, make_image
from tests.support.faults import (
    ANY,
    BLOB,
    FAULTS,
    PULLING,
    PUSHING,
    Fault,
    FaultyWay,
    Schedule,
    random_schedule,
)
from tests.support.layout import Item, digest_of, folder, tar_of, write_layout
from tests.support.registry import Registry as RealRegistry
from tests.support.sound import RegistryFolder, store_complaints

pytestmark = pytest.mark.once

SCHEDULES = 1000
BATCHES = 20
LIMIT_SECONDS = 120
OPTIONS = Options(backoff_seconds=0.001, read_seconds=0.2, connect_seconds=5, attempts=4, part_bytes=150_000)
"""For days on which anything may fail in the end: there, a machine that is slow is a silent server too."""
STEADY = replace(OPTIONS, read_seconds=30)
"""For what is never silent."""
PATIENT = replace(OPTIONS, read_seconds=1)
"""For what has to end well, or as it does: one fault alone, which may be silence."""
FILES = [
    {"etc/name": b"one\n", "etc/other": b"two\n" * 100},
    {"big": random.Random(1).randbytes(1_200_000)},
    {f"many/{n}": b"%d" % n for n in range(40)},
]


class Day:
    """What the schedules of one module are carried out with."""

    def __init__(self, real: RealRegistry, way: FaultyWay, layout: Path) -> None:
        self.real = real
        self.way = way
        self.folder = RegistryFolder(real.folder / "data")
        self.name = real.push_layout(layout, "pulled").rpartition("/")[2]
        self.digest = self.folder.tag("pulled", "latest")
        self.diff_ids: dict[str, dict[str, bytes]] = {}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, needs_docker_registry: None) -> Iterator[Day]:
    base = tmp_path_factory.mktemp("schedules")
    tars = [tar_of([folder(name) for name in sorted({*_folders(files)})] + _items(files)) for files in FILES]
    write_layout(base / "layout", tars, {})
    with RealRegistry(base / "registry") as real, FaultyWay(real.host) as way:
        day = Day(real, way, base / "layout")
        day.diff_ids = {digest_of(tar): files for tar, files in zip(tars, FILES, strict=True)}
        before = make_image(500)
        with Registry(keychain=None) as registry:
            push(registry, Reference.parse(f"{real.host}/before:v1"), before.manifest, before.open)
        yield day


def _folders(files: dict[str, bytes]) -> list[str]:
    return [name.rpartition("/")[0] for name in files if "/" in name]


def _items(files: dict[str, bytes]) -> list[Item]:
    return [Item(path=name, data=data) for name, data in files.items()]


class Watched:
    """Runs one transfer: gives its error, or None; it must end by itself within the limit."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._timer = threading.Timer(LIMIT_SECONDS, stop)

    def run(self, work: Callable[[], None]) -> ImgError | None:
        started = time.monotonic()
        self._timer.start()
        try:
            work()
        except ImgError as error:
            return error
        finally:
            self._timer.cancel()
            assert time.monotonic() - started < LIMIT_SECONDS
        return None


def pull(day: Day, schedule: Schedule, seed: int, state: Path, options: Options) -> ImgError | None:
    """One pull into an empty store, by tag or by digest."""
    day.way.follow(schedule)
    target = "pulled:latest" if seed % 4 < 2 else f"pulled@{day.digest}"
    reference = Reference.parse(f"{day.way.host}/{target}")
    with Store(state, mapping="the tests'") as store, Registry(keychain=None, options=options) as registry:
        puller = Puller(store, lambda: registry, lambda event: None, jobs=1 + seed % 3)

        def work() -> None:
            image = puller.resolve(reference, Platform.host(), policy="always")
            puller.extract(image)
            assert image.digest == day.digest

        error = Watched(puller.stop).run(work)
        named = store.names.find(reference) is not None
        layers, report = len(store.layers.all()), store.checker().run()
    assert error or (named and layers == len(FILES))
    assert report.defects == ()
    assert store_complaints(state, day.diff_ids) == []
    return error


class Slow:
    """A blob that is being made: more of it is there each time somebody asks."""

    diff_id = "sha256:" + "d" * 64

    def __init__(self, blob: bytes, descriptor: Descriptor) -> None:
        self._blob = blob
        self._descriptor = descriptor
        self._there = 0

    @property
    def tar(self) -> tuple[int, int, int]:
        return self._there, 3 * self._there, 3 * len(self._blob)

    def wait(self, offset: int, count: int) -> int | None:
        self._there = min(len(self._blob), max(self._there, offset + count) + 50_000)
        return self._there - offset

    def read(self, offset: int, count: int) -> bytes:
        return self._blob[offset : min(offset + count, self._there)]

    def result(self) -> Descriptor:
        return self._descriptor


def push_image(day: Day, schedule: Schedule, seed: int, options: Options) -> ImgError | None:
    """A push over a tag that has an older image already."""
    name, after = f"pushed-{seed}", make_image(500_000, 3000, seed=seed)
    digests = [*after.blobs, after.manifest.digest]
    before = day.folder.copy("before", name, "v1")
    day.way.follow(schedule)
    stop = Stop()
    with Registry(keychain=None, options=options) as registry:
        error = Watched(stop.set).run(lambda: _push(registry, day, name, after, seed, stop))
    tag = day.folder.tag(name, "v1")
    allowed = {after.manifest.digest}
    if error:  # a tag whose last answer was lost may stand
        allowed.add(before)
    assert tag in allowed
    assert day.folder.complaints(name, "v1") == []
    assert day.folder.spoilt(digests) == []
    day.folder.forget(name, digests)
    return error


def _push(registry: Registry, day: Day, name: str, bits: Bits, seed: int, stop: Stop) -> None:
    reference = Reference.parse(f"{day.way.host}/{name}:v1")
    if seed % 4 == 1:
        layer = bits.layers[0]
        try:
            registry.push_growing(reference, Slow(bits.blobs[layer.digest], layer), stop=stop)
        except ImgError:
            pass  # as the engine does: it is sent once more when it is whole
    made: Manifest = bits.manifest
    sent = push(
        registry,
        reference,
        made,
        lambda blob: io.BytesIO(bits.blobs[blob.digest]),
        mount_from=[Reference.parse(f"{day.way.host}/pulled")] if seed % 5 == 0 else [],
        jobs=1 + seed % 3,
        stop=stop,
    )
    assert sent == made.digest


def carry_out(
    day: Day, schedule: Schedule, seed: int, scratch: Path, options: Options = PATIENT
) -> ImgError | None:
    """One schedule: an odd seed pushes, an even one pulls."""
    try:
        pushed = push_image(day, schedule, seed, options) if seed % 2 else None
        error = pushed if seed % 2 else pull(day, schedule, seed, scratch / "state", options)
        assert day.way.strayed == []
    except BaseException as wrong:  # noqa: BLE001 - whatever it is, the schedule belongs to it
        log = "\n  ".join(day.way.log)
        pytest.fail(f"SEED={seed}: {schedule}\n  {log}\n{wrong!r}")
    finally:
        shutil.rmtree(scratch / "state", ignore_errors=True)
    return error


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_bad_day_ends_with_right_bytes_or_a_typed_error(day: Day, batch: int, tmp_path: Path) -> None:
    alone = int(os.environ.get("SEED", "-1"))
    seeds = range(batch, SCHEDULES, BATCHES) if alone < 0 else range(alone, alone + 1 - min(batch, 1))
    right = 0
    for seed in seeds:
        schedule = random_schedule(seed, PUSHING if seed % 2 else PULLING)
        error = carry_out(day, schedule, seed, tmp_path, OPTIONS)
        right += error is None
        if alone >= 0:
            print(f"seed {seed}: {schedule}", *day.way.log, repr(error), sep="\n  ")
    assert right >= len(seeds) // 4 or alone >= 0


FINAL = {"nowhere", "429-tomorrow", "403", "404", "418", "401-unexplained"}
"""What is not worth a second attempt, in general."""

ALSO_FINAL = {
    "manifest-get": {"huge", "endless", "circular", "no-manifest", "schema-1"},
    "manifest-put": {"other-digest", "400"},
    "upload-post": {"bad-location", "mounted-lie"},
    "upload-put": {"other-digest", "believed"},
    "blob-head": {"says-there"},
    "token": {
        "no-token",
        "two-lines",
        "revoked",
        "huge",
        "endless",
        "flipped",
        "doubled",
        "shorter",
        "longer",
        "empty",
        "said-shorter",
    },
}
OVERCOME = {
    "upload-post": {"no-location"},  # it was a mount that was asked for
    "upload-patch": {"404"},
}


def _single() -> Iterator[Any]:
    """Every fault of a pull and of a push, alone; those that can happen to any request, where it matters."""
    for kind in sorted({*PULLING, *PUSHING}):
        for name in FAULTS[kind]:
            if name not in ANY or kind in ("manifest-get", "blob-get", "upload-patch", "token"):
                yield pytest.param(kind, name, id=f"{kind}-{name}")


@pytest.mark.parametrize(("kind", "name"), list(_single()))
def test_a_fault_that_happens_once_is_overcome_or_told(
    day: Day, kind: str, name: str, tmp_path: Path
) -> None:
    seed = (
        100_011 if kind in PUSHING and kind != "token" else 100_008
    )  # of those that move one blob at a time
    faults = [Fault(kind=kind, name=name, nth=1 if kind == "blob-get" else 0)]
    if name in BLOB:  # about a range, which is asked for after a break
        faults = [Fault(kind=kind, name="cut", nth=1), Fault(kind=kind, name=name, nth=2)]
    if kind == "upload-get":  # nobody asks before a part has failed
        faults.append(Fault(kind="upload-patch", name="500", nth=1))
    error = carry_out(day, Schedule(faults=tuple(faults), guarded=kind == "token"), seed, tmp_path)
    assert day.way.seen(kind)
    print(repr(error), *day.way.log, sep="\n")
    final = (FINAL | ALSO_FINAL.get(kind, set())) - OVERCOME.get(kind, set())
    assert (error is not None) == (name in final), repr(error)


@pytest.mark.parametrize("name", ["cut", "broken"])
def test_a_blob_that_breaks_at_any_tenth_is_resumed_there(day: Day, name: str, tmp_path: Path) -> None:
    for tenth in range(11):
        faults = tuple(Fault(kind="blob-get", name=name, nth=n, at=tenth / 10) for n in range(3))
        assert carry_out(day, Schedule(faults=faults), 200_000, tmp_path, STEADY) is None


@pytest.mark.parametrize("kind", ["upload-patch", "upload-put", "manifest-put"])
def test_an_upload_that_breaks_at_any_tenth_is_made_good(day: Day, kind: str, tmp_path: Path) -> None:
    for tenth in range(11):
        faults = (Fault(kind=kind, name="half", nth=1 if kind == "upload-patch" else 0, at=tenth / 10),)
        assert carry_out(day, Schedule(faults=faults), 300_001 + 2 * tenth, tmp_path, STEADY) is None
