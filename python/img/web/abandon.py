"""`abandonable`: lets somebody else end what this thread waits for on a connection.

Whoever can be told to stop says so once, around its work; the connections below find it here, without being
handed it through every library between. Loads nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Calling = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Has an action called, from any thread, if the work is to end while a block runs; at once if it has been."""

_of_this_thread = threading.local()


@contextmanager
def abandonable(calling: Calling) -> Iterator[None]:
    """Has `calling` decide about the connections that this thread uses in the block."""
    before = getattr(_of_this_thread, "calling", None)
    _of_this_thread.calling = calling
    try:
        yield
    finally:
        _of_this_thread.calling = before


def when_abandoned(action: Callable[[], None]) -> AbstractContextManager[None]:
    """Has `action` called where the work of this thread is to end while the block runs."""
    calling: Calling | None = getattr(_of_this_thread, "calling", None)
    return calling(action) if calling else nullcontext()
