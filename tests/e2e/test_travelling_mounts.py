"""Cache mounts that travel: two stores stand for two machines, and the second begins with a warm cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import img as library
import pytest
from img import cache
from img.cache.index import CHUNK_MEDIA_TYPE, CacheIndex, SharedMount
from img.oci import Descriptor

from tests.conftest import Context, MakeImg
from tests.support import hosts
from tests.support.between import Between
from tests.support.command import Img
from tests.support.orphans import Orphans
from tests.support.registry import Registry
from tests.support.web import Web

DEADLINE = 60

Make = Callable[..., Path]


@pytest.fixture
def warmed(make_context: Context, busybox_image: str) -> Make:
    """A build whose one step says what it found in its cache, and leaves something there."""

    def make(options: str = "target=/c", more: str = "true", before: str = "") -> Path:
        dockerfile = (
            f"{before}FROM {busybox_image}\n"
            f"RUN --mount=type=cache,{options} cat /c/d/f > /got 2>/dev/null || echo cold > /got; "
            f"{{ mkdir -p /c/d; echo warm > /c/d/f; }}; {more}\n"
        )
        return make_context({"Dockerfile": dockerfile})

    return make


def spec(kind: str, place: Path, registry: Registry, use: str) -> str:
    """The flag's value for a cache of a kind; `place` names it."""
    if kind == "registry":
        return f"type=registry,ref={registry.host}/mounts/{place.parent.name}-{place.name}".lower()
    return f"type=local,{'dest' if use == 'to' else 'src'}={place}"


def blobs(place: Path) -> dict[str, int]:
    """The blobs of a cache in a folder, and when each was made."""
    return {path.name: path.stat().st_mtime_ns for path in (place / "blobs/sha256").iterdir()}


def document(place: Path) -> CacheIndex:
    """What a cache in a folder says."""
    backend = cache.open_backend(
        cache.parse_spec(f"type=local,src={place}", "from"),
        cache.Reach(registry=lambda: None),  # type: ignore[arg-type,return-value]
    )
    found = CacheIndex.from_bytes(backend.read() or b"")
    assert found is not None
    return found


def carry(place: Path, *mounts: SharedMount) -> None:
    """Makes a cache in a folder that carries these."""
    backend = cache.open_backend(
        cache.parse_spec(f"type=local,dest={place}", "to"),
        cache.Reach(registry=lambda: None),  # type: ignore[arg-type,return-value]
    )
    index = CacheIndex(mounts=mounts)
    backend.write(index.to_bytes(), index.blobs)


# ---- from machine to machine -----------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("kind", ["local", "registry"])
def test_a_cache_is_warm_on_a_machine_that_never_used_it(
    kind: str, warmed: Make, make_img: MakeImg, registry: Registry, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    place = tmp_path / kind
    a.build(warmed(), "--cache-to", spec(kind, place, registry, "to") + ",mounts=all")
    assert a.image().text("got") == "cold\n"
    told = b.build(warmed(), "--no-cache", "--cache-from", spec(kind, place, registry, "from"))
    assert b.image().text("got") == "warm\n"
    assert "the cache mount /c came from a shared cache" in told.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [
        "target=/c,id=named",
        "target=/c,sharing=locked",
        "target=/c,sharing=private",
        "target=/c,uid=1000,gid=1000,mode=0700",
        "target=/c,from=seed,source=/s",
    ],
)
def test_it_is_the_same_cache_on_every_machine(
    options: str, warmed: Make, make_img: MakeImg, busybox_image: str, tmp_path: Path
) -> None:
    if "uid" in options and not hosts.many_ids():
        options = "target=/c,mode=0700"
    a, b = make_img(), make_img()
    seed = f"FROM {busybox_image} AS seed\nRUN mkdir -m 750 /s && echo s > /s/seed && chown 7:8 /s\n"
    more = "ls -A /c > /list; stat -c '%u:%g %a' /c > /whose"
    context = warmed(options, more, seed if "seed" in options else "")
    a.build(context, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mounts=all")
    b.build(context, "--no-cache", "--cache-from", f"type=local,src={tmp_path / 'cache'}")
    first, second = a.image(), b.image()
    assert (first.text("got"), second.text("got")) == ("cold\n", "warm\n")
    assert [first.text(name) for name in ("list", "whose")] == [
        second.text(name) for name in ("list", "whose")
    ]


def test_files_arrive_as_they_were(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    a, b = make_img(), make_img()
    make = (
        "cd /c && [ -e done ] || { mkdir -m 1777 t; echo x > .wh.x; ln -s ../../etc l; "
        "echo y > y; ln y h; chmod 4751 y; "
        "touch -d '2001-02-03 04:05:06' y t; mknod p p; touch done; }; "
        "stat -c '%n %F %a %u %h' * .wh.x > /stat; stat -c '%n %Y %y' y t > /times; readlink l >> /stat"
    )
    context = warmed("target=/c", make)
    a.build(context, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mounts=all")
    b.build(context, "--no-cache", "--cache-from", f"type=local,src={tmp_path / 'cache'}")
    lines = [line for line in a.image().text("stat").splitlines() if not line.startswith("p fifo")]
    assert b.image().text("stat").splitlines() == lines
    assert b.image().text("times") == a.image().text("times")


def test_owners_arrive_as_far_as_there_are_ids(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    a, b, single = make_img(), make_img(), make_img("--single-id")
    context = warmed("target=/c", "chown 12:34 /c/d/f; stat -c '%u:%g' /c/d/f > /owner")
    a.build(context, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mounts=all")
    for machine in (b, single):
        machine.build(context, "--no-cache", "--cache-from", f"type=local,src={tmp_path / 'cache'}")
        assert machine.image().text("got") == "warm\n"
    if hosts.many_ids():
        assert b.image().text("owner") == "12:34\n"
    single.build(warmed(), "--no-cache", "--cache-to", f"type=local,dest={tmp_path / 'again'},mounts=all")
    if hosts.many_ids():
        # To whom it belonged is not lost on the way through a machine with one id.
        c = make_img()
        look = warmed("target=/c", "stat -c '%u:%g' /c/d/f > /owner")
        c.build(look, "--cache-from", f"type=local,src={tmp_path / 'again'}")
        assert c.image().text("owner") == "12:34\n"


@pytest.mark.once
def test_another_owner_is_another_cache(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    a, b = make_img(), make_img()
    a.build(warmed(), "--cache-to", f"type=local,dest={tmp_path / 'cache'},mounts=all")
    b.build(warmed("target=/c,mode=0711"), "--cache-from", f"type=local,src={tmp_path / 'cache'}")
    assert b.image().text("got") == "cold\n"


@pytest.mark.once
def test_a_cache_that_is_here_is_left_alone_unless_it_is_empty(
    warmed: Make, make_img: MakeImg, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    a, b, c = make_img(), make_img(), make_img()
    come = ("--no-cache", "--cache-from", f"type=local,src={tmp_path / 'cache'}")
    a.build(warmed(), "--cache-to", f"type=local,dest={tmp_path / 'cache'},mounts=all")
    b.build(warmed("target=/c", "echo own > /c/d/f"))
    b.build(warmed("target=/c"), *come)
    assert b.image().text("got") == "own\n"
    c.build(make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --mount=type=cache,target=/c true\n"}))
    c.build(warmed(), *come)
    assert c.image().text("got") == "warm\n"


@pytest.mark.once
def test_only_what_is_named_travels(
    make_img: MakeImg, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    mounts = "--mount=type=cache,target=/one --mount=type=cache,target=/two --mount=type=cache,target=/three"
    run = f"RUN {mounts} ls /one /two /three > /got; touch /one/1 /two/2 /three/3"
    context = make_context({"Dockerfile": f"FROM {busybox_image}\n{run}\n"})
    told = a.build(context, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mounts=/one;/two;/four")
    assert "no step of this build has a cache mount '/four'" in told.stderr
    assert {mount.id for mount in document(tmp_path / "cache").mounts} == {"/one", "/two"}
    b.build(context, "--no-cache", "--cache-from", f"type=local,src={tmp_path / 'cache'},mounts=/two")
    assert b.image().text("got") == "/one:\n\n/three:\n\n/two:\n2\n"


@pytest.mark.once
def test_what_did_not_change_is_not_sent_again(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    a, b = make_img(), make_img()
    place = tmp_path / "cache"
    to, come = f"type=local,dest={place},mounts=all", f"type=local,src={place}"
    make = "[ -e /c/big ] || head -c 30000000 /dev/urandom > /c/big; echo {} > /c/small"
    a.build(warmed("target=/c", make.format(1)), "--cache-to", to)
    before = blobs(place)
    assert len(before) > 10
    # Another machine, with a change: its cache came from the first one's chunks.
    told = b.build(warmed("target=/c", make.format(2)), "--cache-from", come, "--cache-to", to)
    assert " 1 of " in next(line for line in told.stderr.splitlines() if "goes to a shared cache" in line)
    after = blobs(place)
    new = sum((place / "blobs/sha256" / name).stat().st_size for name in after.keys() - before.keys())
    assert new < 500_000
    assert all(after[name] == made for name, made in before.items() if name in after)
    mount = document(place).mounts[0]
    # A step that does not run uses no cache: what the shared cache has stays.
    b.build(warmed("target=/c", make.format(2)), "--cache-to", to)
    assert document(place).mounts == (mount,)


@pytest.mark.once
def test_a_chunk_that_a_cache_has_lost_is_made_again(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    a, b = make_img(), make_img()
    place = tmp_path / "cache"
    context = warmed("target=/c", "[ -e /c/big ] || head -c 9000000 /dev/urandom > /c/big")
    a.build(context, "--cache-to", f"type=local,dest={place},mounts=all")
    chunk = document(place).mounts[0].chunks[1]
    (place / "blobs/sha256" / chunk.hex).unlink()
    told = b.build(context, "--no-cache", "--cache-from", f"type=local,src={place}")
    assert b.image().text("got") == "cold\n", told.stderr
    a.build(context, "--no-cache", "--cache-to", f"type=local,dest={place},mounts=all")
    assert (place / "blobs/sha256" / chunk.hex).stat().st_size == chunk.size


@pytest.mark.once
def test_what_a_build_that_fails_has_fetched_travels_too(
    warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    place = tmp_path / "cache"
    failed = a.fails(
        1, "build", "--cache-to", f"type=local,dest={place},mounts=all", warmed("target=/c", "exit 7")
    )
    assert "exit code 7" in failed.text or "7" in failed.text
    b.build(warmed(), "--cache-from", f"type=local,src={place}")
    assert b.image().text("got") == "warm\n"


# ---- caches that lie -------------------------------------------------------------------------------


def hostile(place: Path, *, entry: str, total_bytes: int = 0, damage: bool = False) -> SharedMount:
    """A mount whose one chunk holds a tar with one entry, made by other tools."""
    archive = place / "hostile.tar"
    place.mkdir()
    with tarfile.open(archive, "w") as out:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/"
        out.addfile(link)
        out.addfile(tarfile.TarInfo(entry))
    frame = subprocess.run(["zstd", "-c", archive], check=True, capture_output=True).stdout
    name = hashlib.sha256(frame).hexdigest()
    (place / "blobs/sha256").mkdir(parents=True)
    (place / "blobs/sha256" / name).write_bytes(frame[:-1] + b"x" if damage else frame)
    chunk = Descriptor(media_type=CHUNK_MEDIA_TYPE, digest=f"sha256:{name}", size=len(frame))
    size = total_bytes or archive.stat().st_size
    return SharedMount(id="/c", key=_key("/c"), chunks=(chunk,), total_bytes=size)


def _key(mount_id: str) -> str:
    from img.store import CacheShape

    return CacheShape(id=mount_id).key


@pytest.mark.once
@pytest.mark.parametrize(
    "lie", [{"entry": "../../escaped"}, {"entry": "x", "damage": True}, {"entry": "x", "total_bytes": 512}]
)
def test_a_cache_that_lies_fills_nothing_and_stops_no_build(
    lie: dict[str, Any], warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    img = make_img()
    place = tmp_path / "cache"
    carry(place, hostile(place, **lie)) if not place.exists() else None
    told = img.build(warmed("target=/c", "ls -A /c > /list"), "--cache-from", f"type=local,src={place}")
    assert "warning" in told.stderr.lower() or "WARN" in told.stderr
    assert (img.image().text("got"), img.image().text("list")) == ("cold\n", "d\n")
    escaped = subprocess.run(
        hosts.inside("find", str(tmp_path), "-name", "escaped"), capture_output=True, text=True, check=True
    )
    assert escaped.stdout == ""


@pytest.mark.once
def test_an_entry_that_goes_through_a_link_stays_inside(
    warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    img = make_img()
    place = tmp_path / "cache"
    carry(place, hostile(place, entry=f"link{tmp_path}/escaped"))
    img.build(warmed(), "--cache-from", f"type=local,src={place}")
    assert not (tmp_path / "escaped").exists()


# ---- kill -9 ---------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("what", ["export", "import"])
def test_kill_9_on_the_way_leaves_nothing_half_written(
    what: str, warmed: Make, make_img: MakeImg, registry: Registry, tmp_path: Path
) -> None:
    """It comes while one chunk of several is on its way, and hangs."""
    a, b = make_img(), make_img()
    context = warmed("target=/c", "[ -e /c/big ] || head -c 20000000 /dev/urandom > /c/big")
    place = f"mounts/killed-{what}-{os.getpid()}"
    a.build(context)
    with Between(int(registry.host.rpartition(":")[2])) as between, Orphans() as orphans:
        where = f"type=registry,ref=127.0.0.1:{between.port}/{place}"
        if what == "export":
            machine, words = a, ("export", "/c", "--to", where)
            between.spoil(method="PUT", path="/blobs/uploads/", hang=True)
        else:
            a.ok("cache", "mounts", "export", "/c", "--to", where)
            machine, words = b, ("import", "/c", "--from", where)
            chunks = int(between.count("PUT", "/blobs/uploads/"))
            between.seen.clear()
            assert chunks > 3
            between.spoil(method="GET", path="/blobs/", skip=2, drip=True)
        process = machine.start("cache", "mounts", *words)
        assert between.waiting.wait(DEADLINE)
        process.kill()
        process.communicate(timeout=DEADLINE)
        assert orphans.left(DEADLINE) == []
        there = json.loads(machine.ok("cache", "mounts", "ls", "--json").stdout)
        assert [mount["id"] for mount in there] == (["/c"] if what == "export" else [])
        if what == "export":
            assert between.count("PUT", "/manifests/") == 0
            a.ok("cache", "mounts", "export", "/c", "--to", where)
        b.build(context, "--no-cache", "--cache-from", where)
    assert b.image().text("got") == "warm\n"
    machine.ok("prune")
    assert not any((machine.state / "work").iterdir())


# ---- by hand ---------------------------------------------------------------------------------------


def listed(img: Img) -> list[dict[str, Any]]:
    """What `ls` says."""
    found: list[dict[str, Any]] = json.loads(img.ok("cache", "mounts", "ls", "--json").stdout)
    return found


def test_a_cache_is_listed_exported_imported_and_removed(
    warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    begun = time.time() - 1
    a.build(warmed())
    (mount,) = listed(a)
    assert (mount["id"], mount["shape"], mount["busy"]) == ("/c", "", False)
    assert mount["bytes"] > 0 and begun <= mount["last_used"] <= time.time()
    assert "/c" in a.ok("cache", "mounts", "ls").stdout
    archive = tmp_path / "c.tar.zst"
    a.ok("cache", "mounts", "export", "/c", "-o", archive)
    plain = subprocess.run(["zstd", "-dc", archive], check=True, capture_output=True).stdout
    names = subprocess.run(["tar", "-t"], input=plain, check=True, capture_output=True, text=False).stdout
    assert names == b"d/\nd/f\n"
    piped = subprocess.run(
        a.command("cache", "mounts", "export", mount["name"][:8]),
        env=a.environment(),
        check=True,
        capture_output=True,
    )
    assert piped.stdout == archive.read_bytes()
    b.ok("cache", "mounts", "import", "/c", archive)
    b.build(warmed())
    assert b.image().text("got") == "warm\n"
    # Whatever other tools make is taken as well, and replaces what is there.
    other = subprocess.run(["tar", "-cz", "-C", str(tmp_path), "--transform", "s,.*,d/f,", "c.tar.zst"],
                           check=True, capture_output=True).stdout  # fmt: skip
    b.ok("cache", "mounts", "import", "/c", "-", stdin=other)
    b.build(warmed(), "--no-cache")
    assert b.image().tree["got"].data == archive.read_bytes()
    assert "Reclaimed" in b.ok("cache", "mounts", "rm", "/c").stdout
    assert listed(b) == []
    assert "there is no cache mount '/d'" in b.fails(2, "cache", "mounts", "rm", "/d").stderr


def test_an_imported_cache_has_the_owner_and_mode_that_it_is_given(
    warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    archive = tmp_path / "c.tar.zst"
    a.build(warmed())
    a.ok("cache", "mounts", "export", "/c", "-o", archive)
    owner = ("--uid", "5", "--gid", "6") if hosts.many_ids() else ()
    options = "uid=5,gid=6," if owner else ""
    b.ok("cache", "mounts", "import", "/c", archive, *owner, "--mode", "0710")
    b.build(warmed(f"{options}mode=0710,target=/c", "stat -c '%u:%g %a' /c > /whose"))
    assert b.image().text("got") == "warm\n"
    assert b.image().text("whose") == ("5:6 710\n" if owner else "0:0 710\n")
    # That was another cache than the plain one, which is made beside it.
    b.ok("cache", "mounts", "import", "/c", archive, "--mode", "0755")
    assert len(listed(b)) == 2
    b.fails(2, "cache", "mounts", "import", "/c", "--mode", "0755", "--from", f"type=local,src={tmp_path}")


@pytest.mark.once
def test_several_caches_of_one_id_are_told_apart(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    img = make_img()
    img.build(warmed("target=/c"))
    img.build(warmed("target=/c,mode=0700", "echo other > /c/d/f"))
    first, second = sorted(listed(img), key=lambda mount: str(mount["shape"]))
    assert (first["shape"], second["shape"]) == ("", "mode=700")
    refused = img.fails(2, "cache", "mounts", "export", "/c", "-o", tmp_path / "no")
    assert first["name"] in refused.stderr and "mode=700" in refused.stderr
    assert not (tmp_path / "no").exists()
    img.ok("cache", "mounts", "export", second["name"][:10], "-o", tmp_path / "yes")
    img.ok("cache", "mounts", "rm", "/c")
    assert listed(img) == []


@pytest.mark.once
def test_what_a_build_is_using_is_neither_replaced_nor_removed(
    warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    img = make_img()
    archive = tmp_path / "c.tar.zst"
    img.build(warmed())
    img.ok("cache", "mounts", "export", "/c", "-o", archive)
    marker = f"7{os.getpid()}"
    process = img.start("build", warmed("target=/c", f"echo started; sleep {marker}"))
    assert process.stdout is not None
    assert any(line[-8:] == b"started\n" for line in process.stdout)
    assert listed(img)[0]["busy"] is True
    for args in (("import", "/c", archive), ("rm", "/c"), ("rm", "--all")):
        refused = img.fails(5, "cache", "mounts", *args)
        assert "the cache mount /c is in use by a build" in refused.stderr
    img.ok("cache", "mounts", "export", "/c", "-o", archive)
    process.send_signal(signal.SIGINT)
    process.wait(DEADLINE)
    process.stdout.close()
    img.ok("cache", "mounts", "rm", "--all")


@pytest.mark.once
def test_a_cache_goes_to_a_shared_one_and_comes_back_by_hand(
    warmed: Make, make_img: MakeImg, registry: Registry, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    where = spec("registry", tmp_path / "hand", registry, "to")
    a.build(warmed("target=/c,mode=0750"), "--cache-to", where)
    a.ok("cache", "mounts", "export", "/c", "--to", where)
    b.ok("cache", "mounts", "import", "/c", "--from", where)
    assert listed(b)[0]["shape"] == "mode=750"
    refused = b.fails(2, "cache", "mounts", "import", "/d", "--from", where)
    assert "carries no cache mount '/d'" in refused.stderr
    again = b.build(warmed("target=/c,mode=0750"), "--cache-from", where)
    assert "Using cache" in again.stderr, "the records that were there stay"
    b.build(warmed("target=/c,mode=0750"), "--no-cache")
    assert b.image().text("got") == "warm\n"


@pytest.mark.once
@pytest.mark.parametrize("content", [b"", b"no archive", b"\x28\xb5\x2f\xfd broken"])
def test_what_is_no_archive_replaces_nothing(
    content: bytes, warmed: Make, make_img: MakeImg, tmp_path: Path
) -> None:
    img = make_img()
    img.build(warmed())
    (tmp_path / "bad").write_bytes(content)
    img.fails(2, "cache", "mounts", "import", "/c", tmp_path / "bad")
    img.build(warmed(), "--no-cache")
    assert img.image().text("got") == "warm\n"


@pytest.mark.once
def test_an_empty_cache_is_an_archive_too(
    make_img: MakeImg, make_context: Context, busybox_image: str, tmp_path: Path
) -> None:
    img = make_img()
    img.build(make_context({"Dockerfile": f"FROM {busybox_image}\nRUN --mount=type=cache,target=/c true\n"}))
    img.ok("cache", "mounts", "export", "/c", "-o", tmp_path / "empty")
    img.ok("cache", "mounts", "import", "/c", tmp_path / "empty")


@pytest.mark.once
def test_the_library_does_the_same(warmed: Make, make_img: MakeImg, tmp_path: Path) -> None:
    a, b = make_img(), make_img()
    a.build(warmed())
    with library.Client(a.state) as one, library.Client(b.state) as two:
        (mount,) = one.cache_mounts()
        one.export_cache_mount("/c", tmp_path / "c.tar.zst")
        one.export_cache_mount("/c", to=f"type=local,dest={tmp_path / 'cache'}")
        assert two.import_cache_mount("/c", tmp_path / "c.tar.zst") == mount.name
        assert two.import_cache_mount("/c", source=f"type=local,src={tmp_path / 'cache'}") == mount.name
        assert [gone.id for gone in two.remove_cache_mounts("/c")] == ["/c"]
        assert two.cache_mounts() == []


# ---- real tools ------------------------------------------------------------------------------------


def wheel() -> bytes:
    """A package without dependencies, as pip installs it."""
    archive = io.BytesIO()
    meta = "greeting-1.0.dist-info"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("greeting.py", f"WORD = {os.urandom(100_000).hex()!r}\n")
        out.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        out.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{meta}/RECORD", "".join(f"{name},,\n" for name in (*out.namelist(), f"{meta}/RECORD")))
    return archive.getvalue()


@pytest.mark.once
def test_pip_downloads_nothing_on_the_second_machine(
    make_img: MakeImg, make_context: Context, debian_image: str, registry: Registry
) -> None:
    a, b = make_img(), make_img()
    image = f"{registry.host}/python-{os.getpid()}"
    install = "apt-get update && apt-get install -y --no-install-recommends python3-pip"
    base = make_context({"Dockerfile": f"FROM {debian_image}\nRUN {install}\n"})
    a.ok("build", "-t", image, "--push", base, timeout=590)
    where = f"type=registry,ref={registry.host}/pip-{os.getpid()}"
    name = "greeting-1.0-py3-none-any.whl"
    with Web() as web:
        # Says of its files what the world's index says: that they never change.
        web.put(f"/{name}", wheel(), headers={"Cache-Control": "max-age=365000000, immutable, public"})
        link = f'<!DOCTYPE html><a href="/{name}">{name}</a>'
        web.put("/simple/greeting/", link, headers={"Content-Type": "text/html"})
        pip = (
            f"pip install --break-system-packages --trusted-host 127.0.0.1 -i {web.url('/simple/')} greeting"
        )
        run = f"RUN --mount=type=cache,target=/root/.cache/pip {pip}\nRUN python3 -c 'import greeting'\n"
        context = make_context({"Dockerfile": f"FROM {image}\n{run}"})
        a.build(context, "--cache-to", f"{where},mounts=all")
        assert web.statuses(f"/{name}") == [200]
        b.build(context, "--no-cache", "--cache-from", where)
        assert web.statuses(f"/{name}") == [200], "the second machine fetched the wheel"


@pytest.mark.once
def test_apt_downloads_nothing_on_the_second_machine(
    make_img: MakeImg, make_context: Context, debian_image: str, tmp_path: Path
) -> None:
    a, b = make_img(), make_img()
    mounts = "--mount=type=cache,target=/var/cache/apt,sharing=locked"
    mounts += " --mount=type=cache,target=/var/lib/apt/lists,id=lists"
    keep = "echo 'Binary::apt::APT::Keep-Downloaded-Packages \"true\";' > /etc/apt/apt.conf.d/99keep"
    install = "apt-get install -y --no-install-recommends"
    first = f"FROM {debian_image}\nRUN {mounts} {keep} && apt-get update && {install} make\n"
    where = tmp_path / "cache"
    a.ok("build", "--cache-to", f"type=local,dest={where},mounts=all", make_context({"Dockerfile": first}))
    second = (
        f"FROM {debian_image}\nRUN --network=none {mounts} {install} --no-download make && make --version\n"
    )
    b.build(make_context({"Dockerfile": second}), "--cache-from", f"type=local,src={where}")
