"""`Background`: work that goes on beside a build, in a few threads, and ends with it."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable

NICE = 10
"""How much work beside a build gives way: a tenth of the time where somebody else wants all of it."""

Task = Callable[[], None]


class Background:
    """A queue of tasks and the threads that work on it; a thread begins with the first task for it.

    The threads are daemons, and a task tells of its failure itself: nothing is raised out of one. They, and
    the threads that they start, give way to everything else (`nice`), the steps of the build above all.
    """

    def __init__(self, threads: int) -> None:
        """Starts nothing yet."""
        self._most = max(1, threads)
        self._changed = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._threads = 0
        self._busy = 0
        self._stopped = False

    def add(self, task: Task) -> None:
        """Has a task done soon; after `stop` it is dropped."""
        with self._changed:
            if self._stopped:
                return
            self._tasks.append(task)
            if self._threads - self._busy < len(self._tasks) and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True).start()
            self._changed.notify()

    def drain(self, seconds: float = math.inf) -> None:
        """Waits until every task is done, those that tasks added among them; for `seconds` at the most."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (self._tasks or self._busy) and time.monotonic() < deadline:
                # A slice, not for ever: a signal's handler runs between two waits.
                self._changed.wait(0.2)

    def stop(self) -> None:
        """Drops what has not begun, and lets the threads end; safe to call twice."""
        with self._changed:
            self._stopped = True
            self._tasks.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        # Of this very thread: on Linux each has a priority of its own, and passes it on.
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE))
        while True:
            with self._changed:
                while not self._tasks:
                    if self._stopped:
                        return
                    self._changed.wait()
                task = self._tasks.popleft()
                self._busy += 1
            try:
                task()
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
