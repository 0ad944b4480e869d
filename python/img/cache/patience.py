"""`Patience`: how the object stores wait: tries, limits of time and memory, and an early end.

`s3`, `gha` and `azblob` do everything through one. What waits for the network does so in a thread that is
left behind when the build stops or its time is up, since nothing can wake it; such a thread dies with its own
time-out, or with the process. It knows no protocol.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import BinaryIO, TypeVar

from img.cache.backend import Sink
from img.cache.parts import Parts
from img.errors import CacheError, SizeMismatch
from img.oci import Descriptor
from img.registry.retry import MAX_WAIT_SECONDS
from img.registry.stop import Stop, Stopped
from img.values import dataclass

T = TypeVar("T")
R = TypeVar("R")

PIECE_BYTES = 1 << 20
"""What a sink is given at once."""
MAX_INDEX_BYTES = 64 << 20
"""A longer document is not read."""
_AHEAD = 4
_SLOWEST = 10
"""A piece may take this many times the seconds that a connection may be silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long is waited, and how often something is tried.

    Attributes:
        connect_seconds: Time for a connection to stand.
        read_seconds: Time that a connection may be silent.
        attempts: How often one thing is tried; at least 1.
        backoff_seconds: Wait before the second attempt; doubled for each further one, and jittered.
        whole_seconds: Time for one operation with all its attempts; 0 for no limit.
        lanes: Requests of uploads at once.
    """

    connect_seconds: float = 10
    read_seconds: float = 60
    attempts: int = 5
    backoff_seconds: float = 0.25
    whole_seconds: float = 0
    lanes: int = 4


class Passing(Exception):
    """A failure that may pass.

    Attributes:
        error: What to raise if it does not.
        after_seconds: The wait that was asked for, or None.
    """

    def __init__(self, error: CacheError, *, after_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_seconds = after_seconds


class Patience:
    """The waiting of one cache. Safe from several threads."""

    def __init__(self, cache: str, limits: Limits) -> None:
        """Prepares. `cache` names it in errors, without credentials."""
        self.cache = cache
        self.limits = limits
        self._stop = Stop()
        self._lanes: SimpleQueue[None] = SimpleQueue()
        for _ in range(limits.lanes):
            self._lanes.put(None)

    def stop(self) -> None:
        """Ends everything soon, from any thread."""
        self._stop.set()

    def error(self, reason: str, hint: str = "") -> CacheError:
        """An error of this cache."""
        return CacheError(self.cache, reason, hint)

    def operation(self, what: str) -> Operation:
        """Begins to count the failures and the time of one operation; `what` names it in errors."""
        return Operation(self, what, self._stop)

    def run(self, what: str, attempt: Callable[[], T]) -> T:
        """Calls `attempt` in a thread that can be left behind, again where it failed and that may pass.

        Raises:
            CacheError: no attempt is left, the time is up, or the work was stopped.
        """
        operation = self.operation(what)
        while True:
            try:
                return operation.wait_for(attempt)
            except Passing as fault:
                operation.failed(fault)

    def pour(
        self, what: str, blob: Descriptor, sink: Sink, open_at: Callable[[int], Iterator[bytes]]
    ) -> None:
        """Writes a blob into a sink; goes on where a connection broke.

        Args:
            open_at: Gives the pieces from an offset on; runs in another thread, which ends with it.
        Raises:
            CacheError: as `run`.
            SizeMismatch: there are more bytes than the descriptor says.
            Whatever `open_at` and `sink.write` raise.
        """
        operation = self.operation(what)
        renewing = max(1, min(PIECE_BYTES, blob.size // 20))
        taken = 0
        while True:
            before = taken
            try:
                for piece in operation.pumped(open_at, taken):
                    if taken + len(piece) > blob.size:
                        raise SizeMismatch(blob.size, taken + len(piece))
                    sink.write(piece)
                    taken += len(piece)
                if taken == blob.size:
                    return
                raise Passing(self.error(f"{what}: it ended early"))
            except Passing as fault:
                # An attempt that moved on is no failure; one that only drips counts, so that this ends.
                if taken - before >= renewing:
                    operation.renew()
                operation.failed(fault)

    def send_parts(
        self,
        what: str,
        blob: Descriptor,
        open_blob: Callable[[], BinaryIO],
        send: Callable[[int, bytes], T],
    ) -> list[T]:
        """Sends a blob in parts, several at once; a part is held in memory until it is sent.

        Args:
            send: Sends a part, numbered from 0; it runs in other threads, and is tried again.
        Returns:
            What `send` gave, in order.
        Raises:
            CacheError: as `run`.
            StoreError, SizeMismatch: the blob cannot be read.
        """
        operation = self.operation(what)
        done: SimpleQueue[tuple[int, T | BaseException]] = SimpleQueue()
        results: dict[int, T] = {}
        started = 0

        def collect(least: int) -> None:
            while len(results) < least:
                number, outcome = operation.next_of(done)
                if isinstance(outcome, BaseException):
                    raise outcome
                results[number] = outcome

        def start(data: bytes, number: int) -> None:
            def carry() -> None:
                try:
                    done.put((number, self._tried(what, lambda: send(number, data))))
                except BaseException as error:  # noqa: BLE001 - raised again by `collect`
                    done.put((number, error))
                finally:
                    self._lanes.put(None)

            threading.Thread(target=carry, daemon=True).start()

        reader = Parts(blob, open_blob)
        try:
            while True:
                operation.next_of(self._lanes)
                try:
                    data = reader.next()
                except BaseException:
                    self._lanes.put(None)
                    raise
                if not data and started:
                    self._lanes.put(None)
                    break
                start(data, started)
                started += 1
                collect(started - self.limits.lanes)
        finally:
            reader.close()
        collect(started)
        return [results[number] for number in range(started)]

    def each(self, work: Callable[[R], T], items: Sequence[R]) -> list[T]:
        """Calls `work` for every item, as many at once as there are lanes; raises the first error."""
        from concurrent.futures import ThreadPoolExecutor

        if not items:
            return []
        with ThreadPoolExecutor(max_workers=min(len(items), self.limits.lanes)) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def _tried(self, what: str, attempt: Callable[[], T]) -> T:
        """As `run`, in this thread."""
        operation = self.operation(what)
        while True:
            operation.check()
            try:
                return attempt()
            except Passing as fault:
                operation.failed(fault)


class Operation:
    """One operation: its failures so far, and the time that it has left."""

    def __init__(self, patience: Patience, what: str, stop: Stop) -> None:
        self._patience = patience
        self._limits = patience.limits
        self._what = what
        self._stop = stop
        self._failures = 0
        whole = self._limits.whole_seconds
        self._deadline = monotonic() + whole if whole else None

    def renew(self) -> None:
        """Forgets the failures so far: the work has moved on."""
        self._failures = 0

    def check(self) -> None:
        """Raises CacheError where the work was stopped, or its time is up."""
        if self._stop.is_set:
            raise self._stopped()
        if self._deadline is not None and monotonic() > self._deadline:
            raise self._late(self._limits.whole_seconds)

    def failed(self, fault: Passing) -> None:
        """Waits before the next attempt.

        Raises:
            CacheError: none is left, or too long a wait is asked for.
        """
        self._failures += 1
        asked = fault.after_seconds
        if self._failures >= self._limits.attempts or (asked is not None and asked > MAX_WAIT_SECONDS):
            raise fault.error from fault.__cause__
        longest = min(MAX_WAIT_SECONDS, self._limits.backoff_seconds * 2 ** (self._failures - 1))
        seconds = longest * random.uniform(0.5, 1.0) if asked is None else asked
        if self._deadline is not None and monotonic() + seconds > self._deadline:
            raise fault.error from fault.__cause__
        try:
            self._stop.sleep(seconds)
        except Stopped:
            raise self._stopped() from None

    def wait_for(self, work: Callable[[], T]) -> T:
        """Calls `work` in another thread and waits for it.

        Raises:
            CacheError: the work was stopped, or its time is up; that thread is left behind.
            Whatever `work` raises.
        """
        done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def carry() -> None:
            try:
                done.put((work(), None))
            except BaseException as error:  # noqa: BLE001 - raised again below
                done.put((None, error))

        self.check()
        threading.Thread(target=carry, daemon=True).start()
        value, error = self.next_of(done)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def next_of(self, queue: SimpleQueue[T], *, seconds: float = 0) -> T:
        """Takes the next item of a queue.

        Raises:
            CacheError: the work was stopped or its time is up; or none came in so many seconds, if given.
        """
        self.check()
        limits = [seconds] if seconds else []
        if self._deadline is not None:
            limits.append(max(0.0, self._deadline - monotonic()))
        # Whoever is woken by the stop takes what is put here, and looks at the flag before it.
        with self._stop.calling(lambda: queue.put(None)):  # type: ignore[arg-type]
            try:
                item = queue.get(timeout=min(limits) if limits else None)
            except Empty:
                self.check()
                raise self._late(seconds) from None
        if self._stop.is_set:
            raise self._stopped()
        return item

    def pumped(self, open_at: Callable[[int], Iterator[bytes]], offset: int) -> Iterator[bytes]:
        """Gives the pieces of `open_at`, which another thread reads, a few of them ahead."""
        pieces: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        room = threading.Semaphore(_AHEAD)
        gone = threading.Event()

        def carry() -> None:
            try:
                for piece in open_at(offset):
                    room.acquire()
                    if gone.is_set():
                        return
                    pieces.put(piece)
                pieces.put(None)
            except BaseException as error:  # noqa: BLE001 - raised again below
                pieces.put(error)

        threading.Thread(target=carry, daemon=True).start()
        try:
            while (item := self.next_of(pieces, seconds=self._limits.read_seconds * _SLOWEST)) is not None:
                if isinstance(item, BaseException):
                    raise item
                room.release()
                yield item
        finally:
            gone.set()
            room.release()

    def _stopped(self) -> CacheError:
        return self._patience.error(f"{self._what}: the build was stopped")

    def _late(self, seconds: float) -> CacheError:
        return self._patience.error(f"{self._what}: not done within {seconds:g} seconds")


def skipping(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Gives the pieces without the first `count` bytes."""
    for piece in pieces:
        if count >= len(piece):
            count -= len(piece)
            continue
        yield piece[count:]
        count = 0
