"""`Interrupts`: what asks an operation to end early is obeyed once, and not again at once.

The command line and the worker listen through it. One wish to stop often comes as several signals: Ctrl-C in
a terminal reaches the library's caller and its worker, and the caller then closes the worker's input;
`timeout` tells a command and then its whole group; people press twice. A second KeyboardInterrupt would break
off what the first set going: ending steps, giving up claims, writing down how the build ended.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

SAME_SECONDS = 1.0
"""What comes so soon after an interrupt says the same once more; what comes later insists."""


class Interrupts:
    """A handler of signals that raises KeyboardInterrupt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Handles nothing yet. `clock` gives seconds."""
        self._clock = clock
        self._since: float | None = None

    @property
    def begun(self) -> bool:
        """One was raised, and what it ends may be ending still."""
        return self._since is not None

    def listen(self) -> None:
        """Takes Ctrl-C and SIGTERM over; a SIGINT that our parent told us to ignore stays ignored."""
        signal.signal(signal.SIGTERM, self)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self)

    def __call__(self, number: int = 0, frame: object = None) -> None:
        """Takes one signal.

        Raises:
            KeyboardInterrupt: it is the first, or comes long after the last that was raised.
        """
        now = self._clock()
        if self._since is None or now - self._since >= SAME_SECONDS:
            self._since = now
            raise KeyboardInterrupt
