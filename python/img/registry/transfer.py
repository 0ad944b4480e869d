"""`fetch` and `push`: whole images over the wire, several blobs at once.

Called by the floors that pull and push. The first error ends the other transfers and is the one that is
raised; when a call returns or raises, all its threads have ended and every sink is finished or aborted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import BinaryIO, Generic, TypeVar

from img.errors import DigestMismatch, LayerError, SizeMismatch
from img.oci.descriptor import Descriptor
from img.oci.manifest import Manifest
from img.oci.reference import Reference
from img.progress import Progress
from img.registry.client import Registry
from img.registry.download import Sink
from img.registry.stop import Stop, Stopped

T = TypeVar("T")


def fetch(
    registry: Registry,
    ref: Reference,
    descriptors: Sequence[Descriptor],
    open_sink: Callable[[Descriptor], Sink],
    *,
    jobs: int = 4,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> None:
    """Brings blobs into sinks, in parallel; a digest that is named twice comes once.

    A blob that turns out wrong is fetched once more from its start, into a fresh sink.

    Args:
        open_sink: Makes the sink of a blob; called from the thread that fetches it.
        jobs: How many blobs move at once.
        progress: Where events go; by default where all of the registry's go.
        stop: Ends the transfers early, from any thread.
    Raises:
        DigestMismatch, SizeMismatch, LayerError: a blob was wrong twice.
        RegistryError: as `Registry.blob`.
        Stopped: `stop` was set.
        Whatever `open_sink` or a sink raises.
    """

    def one(descriptor: Descriptor, halt: Stop) -> None:
        try:
            _into_sink(registry, ref, descriptor, open_sink, halt, progress)
        except (DigestMismatch, SizeMismatch, LayerError):
            halt.check()
            registry.doubt(ref)
            _into_sink(registry, ref, descriptor, open_sink, halt, progress)

    once = {descriptor.digest: descriptor for descriptor in descriptors}
    in_parallel(list(once.values()), one, jobs, stop)


def push(
    registry: Registry,
    ref: Reference,
    manifest: Manifest,
    open_blob: Callable[[Descriptor], BinaryIO],
    *,
    mount_from: Sequence[Reference] = (),
    jobs: int = 4,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> str:
    """Sends an image: its layers and config in parallel, then its manifest, so that no tag is half true.

    Args:
        ref: Where to; the manifest goes under its tag.
        open_blob: Opens a blob at its start; called again where it must be sent again.
        mount_from: Images that may share blobs with it; those on other registries are passed over.
        jobs: How many blobs move at once.
        progress: Where events go; by default where all of the registry's go.
        stop: Ends the transfers early, from any thread.
    Returns:
        The manifest's digest.
    Raises:
        Unauthorized: the registry allows no push here.
        RegistryError: as `Registry.push_blob`.
        Stopped: `stop` was set.
    """
    near = (m.repository for m in mount_from if m.registry == ref.registry)
    repositories = tuple(dict.fromkeys(name for name in near if name != ref.repository))

    def one(descriptor: Descriptor, halt: Stop) -> None:
        registry.push_blob(
            ref,
            descriptor,
            lambda: open_blob(descriptor),
            mount_from=repositories,
            stop=halt,
            progress=progress,
        )

    once = {descriptor.digest: descriptor for descriptor in (*manifest.layers, manifest.config)}
    in_parallel(list(once.values()), one, jobs, stop)
    return registry.push_manifest(ref, manifest.raw, manifest.media_type)


def _into_sink(
    registry: Registry,
    ref: Reference,
    descriptor: Descriptor,
    open_sink: Callable[[Descriptor], Sink],
    halt: Stop,
    progress: Progress | None,
) -> None:
    """One try at one blob: whatever happens, its sink ends finished or aborted."""
    sink = open_sink(descriptor)
    try:
        registry.blob(ref, descriptor, sink, stop=halt, progress=progress)
        sink.finish()
    except BaseException:
        sink.abort()
        raise


def in_parallel(tasks: Sequence[T], work: Callable[[T, Stop], None], jobs: int, stop: Stop | None) -> None:
    """Works on all tasks in their order, in threads of its own; raises the first error."""
    crew = _Crew(tasks, work)
    with (stop or Stop()).calling(crew.halt.set):
        crew.run(max(1, min(jobs, len(tasks))))
    if crew.errors:
        raise crew.errors[0]
    if crew.halt.is_set:
        raise Stopped


class _Crew(Generic[T]):
    """Threads that take tasks from one queue until it is empty or something went wrong."""

    def __init__(self, tasks: Sequence[T], work: Callable[[T, Stop], None]) -> None:
        self._pending = deque(tasks)
        self._work = work
        self.halt = Stop()
        self.errors: list[BaseException] = []

    def run(self, count: int) -> None:
        """Starts the threads and waits for their ends, even if this thread is interrupted meanwhile."""
        # Ends are waited for by events: after an interrupt, joining a thread again does not wait for it.
        ends = [threading.Event() for _ in range(count)]
        threads = [threading.Thread(target=self._toil, args=(end,), daemon=True) for end in ends]
        try:
            for thread in threads:
                thread.start()
            for end in ends:
                end.wait()
        except BaseException:
            self.halt.set()
            for thread, end in zip(threads, ends, strict=True):
                if thread.ident is not None:
                    end.wait()
            raise

    def _toil(self, ended: threading.Event) -> None:
        try:
            # None means that another thread took the last one; a task's own IndexError is an error.
            while not self.halt.is_set and (task := self._take()) is not None:
                self._work(task, self.halt)
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread and raised there
            self.errors.append(error)
            self.halt.set()
        finally:
            ended.set()

    def _take(self) -> T | None:
        try:
            return self._pending.popleft()
        except IndexError:
            return None
