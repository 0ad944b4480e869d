"""Claims: one holder at a time, in threads and in processes, dead ones included; and no file left."""

from __future__ import annotations

import threading

import pytest
from img import _core
from img.store import Store

from tests.unit.store.conftest import Start, hear, say, succeed

HOLD = (
    "store = Store(root)\n"
    "claim = store.claims.hold('ab', waiting=lambda: print('waiting', flush=True))\n"
    "print('held', flush=True); sys.stdin.readline(); claim.close(); print('over', flush=True)\n"
)


def _never() -> None:
    raise AssertionError("nobody else holds it")


def test_a_claim_that_is_free_is_given_at_once_and_leaves_no_file(store: Store) -> None:
    with store.claims.hold("ab", waiting=_never) as claim, store.claims.hold("cd", waiting=_never):
        assert not claim.waited
    claim.close()
    assert list(store.claims.root.iterdir()) == []


def _one_after_the_other(store: Store, start: Start, program: str, *held: str) -> None:
    """Two processes want the same: the second says that it waits, and has it once the first is over."""
    first = start(program)
    assert hear(first) == held[0]
    second = start(program)
    assert hear(second) == "waiting"
    say(first)
    assert hear(first) == "over"
    assert hear(second) == held[1]
    say(second)
    assert succeed(second) == "over\n"
    assert list(store.claims.root.iterdir()) == []


def test_another_process_waits_and_then_has_it(store: Store, start: Start) -> None:
    _one_after_the_other(store, start, HOLD, "held", "held")


def test_what_a_killed_process_held_is_free(store: Store, start: Start) -> None:
    first = start(HOLD)
    assert hear(first) == "held"
    first.kill()
    first.wait()
    assert len(list(store.claims.root.iterdir())) == 1
    with store.claims.hold("ab", waiting=_never):
        store.claims.sweep()
        assert len(list(store.claims.root.iterdir())) == 1, "a living one's file stays"
    assert list(store.claims.root.iterdir()) == []


def test_a_collection_sweeps_what_killed_processes_left(store: Store, start: Start) -> None:
    first = start(HOLD)
    assert hear(first) == "held"
    first.kill()
    first.wait()
    store.collector.prune()
    assert list(store.claims.root.iterdir()) == []


def test_many_threads_hold_it_one_after_the_other(store: Store) -> None:
    inside: list[int] = []
    most = 0

    def work(number: int) -> None:
        nonlocal most
        for _ in range(20):
            with store.claims.hold("ab", waiting=lambda: None):
                inside.append(number)
                most = max(most, len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(store.claims.root.iterdir()) == []


TOGETHER = (
    "store = Store(root)\n"
    "with store.claims.together(['cd', 'ab', 'ab'], waiting=lambda: print('waiting', flush=True),\n"
    "                           check=lambda: None) as waited:\n"
    "    print('held', waited, flush=True); sys.stdin.readline()\n"
    "print('over', flush=True)\n"
)


def test_several_are_waited_for_and_said_once(store: Store, start: Start) -> None:
    _one_after_the_other(store, start, TOGETHER, "held False", "held True")


def test_who_waits_no_more_has_nothing_and_what_it_had_is_free(store: Store) -> None:
    class Over(Exception):
        pass

    def over() -> None:
        raise Over

    with store.claims.hold("cd", waiting=_never):
        said: list[str] = []
        with (
            pytest.raises(Over),
            store.claims.together(["ab", "cd"], waiting=lambda: said.append("waiting"), check=over),
        ):
            pytest.fail("another holds one of them")
        assert said == ["waiting"]
        with store.claims.hold("ab", waiting=_never):
            pass
    assert list(store.claims.root.iterdir()) == []


def test_an_interrupt_ends_the_wait_for_several(store: Store) -> None:
    with store.claims.hold("ab", waiting=_never):
        try:
            with (
                pytest.raises(KeyboardInterrupt),
                store.claims.together(
                    ["ab"], waiting=lambda: _core.stop_everything(True), check=lambda: None
                ),
            ):
                pytest.fail("another holds it")
        finally:
            _core.stop_everything(False)
