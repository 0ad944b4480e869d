"""An interrupt that comes several times is one; one that comes later insists."""

from __future__ import annotations

import pytest
from img.interrupts import SAME_SECONDS, Interrupts


def test_what_comes_again_at_once_breaks_nothing_off_and_what_comes_later_does() -> None:
    now = [100.0]
    interrupts = Interrupts(lambda: now[0])
    assert not interrupts.begun
    with pytest.raises(KeyboardInterrupt):
        interrupts()
    assert interrupts.begun
    now[0] += SAME_SECONDS * 0.9
    interrupts()
    now[0] += SAME_SECONDS * 0.9
    with pytest.raises(KeyboardInterrupt):
        interrupts()
    interrupts()
