"""Retry-After, waiting, and being stopped while waiting."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from img.errors import RegistryError
from img.progress import silent
from img.registry import Options, Stop, Stopped
from img.registry.retry import Backoff, Retriable, retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), (" 120 ", 120.0), (None, None), ("", None), ("soon", None)],
)
def test_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime.now(timezone.utc)
    later = retry_after(format_datetime(now + timedelta(hours=1), usegmt=True))
    assert later is not None and 3500 < later <= 3600
    assert retry_after(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0


def test_the_last_failure_is_the_one_that_is_raised() -> None:
    errors = [RegistryError(f"failure {n}") for n in range(3)]
    tries = iter(errors)

    def attempt() -> None:
        raise Retriable(next(tries))

    backoff = Backoff(Options(attempts=3, backoff_seconds=0.001), Stop(), silent)
    with pytest.raises(RegistryError) as caught:
        backoff.run(attempt)
    assert caught.value is errors[2]


def test_a_stop_ends_a_wait() -> None:
    stop = Stop()
    backoff = Backoff(Options(), stop, silent)
    threading.Timer(0.01, stop.set).start()
    with pytest.raises(Stopped):
        backoff.wait(Retriable(RegistryError("busy"), after_seconds=50))


def test_a_stop_calls_what_is_under_way_and_what_comes_late() -> None:
    stop, called = Stop(), []
    with stop.calling(lambda: called.append("done before")):
        pass
    with stop.calling(lambda: called.append("under way")):
        stop.set()
        stop.set()
    with stop.calling(lambda: called.append("late")):
        pass
    assert called == ["under way", "late"]
