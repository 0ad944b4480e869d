"""Cache mounts: who shares a folder, who waits, who gets another; and what a collection takes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from img.errors import StoreError, StoreVersionError
from img.store import CacheLease, CacheShape, Store
from img.store.cache_copy import write_chunks
from img.store.cache_mounts import Sharing

from .conftest import Start, hear, say

LEASE = """
import sys
with Store(root) as store, store.work.begin() as work:
    lease = store.cache_mounts.lease(
        "k", sys.argv[1], id="/c", work=work.path, fill=lambda folder: (folder / "f").write_text("seed"),
        waiting=lambda: print("waiting", flush=True))
    print(lease.path.name, flush=True)
    sys.stdin.readline()
    lease.close()
"""


def lease(store: Store, sharing: Sharing, key: str = "k", text: str = "seed") -> CacheLease:
    """A lease that need not be waited for."""

    def fill(folder: Path) -> None:
        (folder / "f").write_text(text)

    def waiting() -> None:
        raise AssertionError("this one waits")

    work = store.lease().path
    return store.cache_mounts.lease(key, sharing, id="/c", work=work, fill=fill, waiting=waiting)


def test_a_cache_is_filled_once_and_kept(store: Store) -> None:
    with lease(store, "shared") as first:
        (first.data / "f").write_text("changed")
    with lease(store, "locked", text="another seed") as second:
        assert (second.data / "f").read_text() == "changed"
    with lease(store, "shared", key="other") as other:
        assert (other.data / "f").read_text() == "seed"
    assert not any(store.lease().path.iterdir()), "nothing half-made is left"


def test_a_fill_that_fails_leaves_nothing(store: Store) -> None:
    def fill(folder: Path) -> None:
        raise OSError("no seed")

    with pytest.raises(OSError, match="no seed"):
        store.cache_mounts.lease(
            "k", "shared", id="", work=store.lease().path, fill=fill, waiting=lambda: None
        )
    assert store.cache_mounts.all() == []
    assert not any(store.lease().path.iterdir())


def test_sharers_meet_in_one_folder_and_the_private_get_one_each(store: Store) -> None:
    with lease(store, "shared") as one, lease(store, "shared") as two:
        assert one.path == two.path
        with lease(store, "private") as three, lease(store, "private") as four:
            assert len({one.path, three.path, four.path}) == 3
        with lease(store, "private") as free:
            assert free.path.name == "k.1"
    with lease(store, "private") as first:
        assert first.path.name == "k.0"
    assert [row.id for row in store.cache_mounts.all()] == ["/c"] * 3


def test_a_lock_of_another_process_is_waited_for_and_dies_with_it(store: Store, start: Start) -> None:
    holder, waiter = start(LEASE, "locked"), start(LEASE, "locked")
    first, second = hear(holder), hear(waiter)
    if first != "k.0":
        holder, waiter, second = waiter, holder, first
    assert (second, [row.busy for row in store.cache_mounts.all()]) == ("waiting", [True])
    holder.kill()
    assert hear(waiter) == "k.0"
    say(waiter)
    waiter.wait()
    assert [row.busy for row in store.cache_mounts.all()] == [False]


def test_processes_that_make_one_cache_at_once_all_get_the_same(store: Store, start: Start) -> None:
    processes = [start(LEASE, "shared") for _ in range(4)]
    assert {hear(process) for process in processes} == {"k.0"}
    for process in processes:
        say(process)
        process.wait()
    assert not list(store.root.glob("work/*/cache-*"))


def test_a_collection_takes_what_is_old_and_free(store: Store) -> None:
    lease(store, "shared", key="old").close()
    lease(store, "shared", key="new").close()
    for key in ("old", "busy"):
        if key == "busy":
            busy = lease(store, "shared", key=key)
        os.utime(store.root / "cache-mounts" / f"{key}.0" / "lock", (1, 1))
    store.release_lease()
    assert store.collector.prune().cache_mounts == 1
    assert sorted(row.path.name for row in store.cache_mounts.all()) == ["busy.0", "new.0"]
    assert store.collector.prune(everything=True).cache_mounts == 1
    busy.close()
    assert store.collector.prune().cache_mounts == 0, "it was used until now"
    freed = store.collector.prune(everything=True)
    assert (freed.cache_mounts, store.cache_mounts.any()) == (1, False)
    assert freed.freed_bytes > 0


def test_a_cache_that_left_while_it_was_waited_for_is_made_anew(store: Store, start: Start) -> None:
    held = lease(store, "locked")
    waiter = start(LEASE, "locked")
    assert hear(waiter) == "waiting"
    held.path.rename(store.root / "cache-mounts" / "gone.0")
    held.close()
    assert hear(waiter) == "k.0"
    assert (store.root / "cache-mounts" / "k.0" / "data" / "f").read_text() == "seed"
    say(waiter)


def test_a_use_is_noted_when_it_begins_and_when_it_ends(store: Store) -> None:
    before = time.time() - 1
    with lease(store, "shared") as held:
        os.utime(held.path / "lock", (1, 1))
    (row,) = store.cache_mounts.all()
    assert row.used >= before


def test_caches_of_another_id_mapping_are_not_mixed(root: Path) -> None:
    with Store(root, mapping="0:1000:1") as store:
        lease(store, "shared").close()
    with pytest.raises(StoreVersionError):
        Store(root, mapping="root")


# ---- copies that come from elsewhere ---------------------------------------------------------------


def refilled(store: Store, text: str | None) -> str:
    """Leases a cache that may be refilled; gives what is in it."""

    def refill(folder: Path) -> bool:
        if text is not None:
            (folder / "f").write_text(text)
        return text is not None

    def fill(folder: Path) -> None:
        raise AssertionError("there is one")

    with store.cache_mounts.lease(
        "k", "shared", id="/c", work=store.lease().path, fill=fill, waiting=lambda: None, refill=refill
    ) as leased:
        found = leased.data / "f"
        return found.read_text() if found.exists() else ""


def test_a_copy_that_is_empty_is_filled_from_elsewhere(store: Store) -> None:
    with lease(store, "shared") as first:
        (first.data / "f").unlink()
    assert refilled(store, None) == ""
    assert refilled(store, "new") == "new"
    assert refilled(store, "newer") == "new", "it is not empty any more"
    assert not any(store.lease().path.iterdir())


def test_an_empty_copy_that_is_in_use_stays_as_it_is(store: Store) -> None:
    with lease(store, "shared") as first:
        (first.data / "f").unlink()
        assert refilled(store, "new") == ""


def test_two_threads_do_not_both_make_a_copy(store: Store) -> None:
    made = []
    first_is_making, go_on = threading.Event(), threading.Event()

    def fill(folder: Path) -> None:
        made.append(folder)
        first_is_making.set()
        assert go_on.wait(60)

    def use() -> None:
        work = store.lease().path
        store.cache_mounts.lease("k", "shared", id="", work=work, fill=fill, waiting=lambda: None).close()

    store.lease()
    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert first_is_making.wait(60)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_copy_is_put_in_the_place_of_another_unless_that_is_in_use(store: Store) -> None:
    def fill(folder: Path) -> None:
        (folder / "f").write_text("put")

    def put() -> Path:
        with store.work.begin() as work:
            return store.cache_mounts.put("k", id="/c", shape="mode=700", work=work, fill=fill)

    with lease(store, "shared"), pytest.raises(StoreError, match="the cache mount /c is in use"):
        put()
    assert (put() / "data/f").read_text() == "put"
    (row,) = store.cache_mounts.all()
    assert (row.name, row.key, row.shape, row.busy) == ("k.0", "k", "mode=700", False)
    with lease(store, "shared") as held:
        assert (held.data / "f").read_text() == "put"


def test_a_put_that_fails_leaves_what_was_there(store: Store) -> None:
    def fill(folder: Path) -> None:
        raise OSError("broken")

    lease(store, "shared").close()
    with store.work.begin() as work, pytest.raises(OSError, match="broken"):
        store.cache_mounts.put("k", id="/c", shape="", work=work, fill=fill)
    with lease(store, "shared") as held:
        assert (held.data / "f").read_text() == "seed"


def test_copies_are_removed_all_or_none(store: Store) -> None:
    lease(store, "shared", key="a").close()
    with store.work.begin() as trash:
        with lease(store, "shared", key="b"), pytest.raises(StoreError, match="in use"):
            store.cache_mounts.remove(store.cache_mounts.all(), trash)
        assert len(store.cache_mounts.all()) == 2
        store.cache_mounts.remove(store.cache_mounts.all(), trash)
    assert not store.cache_mounts.any()


def test_a_copy_is_held_for_reading_beside_others_and_that_is_no_use_of_it(store: Store) -> None:
    with lease(store, "shared") as used:
        path = used.path
    os.utime(path / "lock", (1000, 1000))
    held = store.cache_mounts.hold(path, lambda: None)
    assert held is not None
    with held, lease(store, "shared"):
        pass
    os.utime(path / "lock", (1000, 1000))
    again = store.cache_mounts.hold(path, lambda: None)
    assert again is not None
    again.close()
    assert store.cache_mounts.all()[0].used == 1000
    assert store.cache_mounts.hold(store.cache_mounts.root / "gone.0", lambda: None) is None


def test_what_is_known_of_chunks_is_no_trouble_where_it_cannot_be_read(store: Store) -> None:
    with lease(store, "shared") as held:
        assert held.chunks() == {}
        write_chunks(held.path, {"content": ("sha256:d", 7)})
        assert held.chunks() == {"content": ("sha256:d", 7)}
        for broken in ("", "[]", '{"a": 1}', '{"a": ["b", "c"]}'):
            (held.path / "chunks.json").write_text(broken)
            assert held.chunks() == {}


def test_a_cache_is_named_by_all_that_its_beginning_depends_on() -> None:
    plain = CacheShape(id="/c")
    others = [
        CacheShape(id="/d"), CacheShape(id="/c", uid=1), CacheShape(id="/c", gid=1),
        CacheShape(id="/c", mode=0o755), CacheShape(id="/c", seed="x"),
        CacheShape(id="/c", seed="x", source="/s"),
    ]  # fmt: skip
    assert len({shape.key for shape in (plain, *others)}) == 7
    assert plain.key == "8262cec735567a44fa2a0d6490973bd3"
    assert [str(shape) for shape in others] == ["", "uid=1", "gid=1", "mode=755", "source=/", "source=/s"]
