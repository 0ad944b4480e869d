"""What transfers look like: rates, the time that is left, and the line that sums them up.

Pure: whoever draws says what time it is.
"""

from __future__ import annotations

from collections import deque

from img.amounts import human_rate, human_size, human_time
from img.progress import Transfer, Transferred

WINDOW_SECONDS = 5.0
"""A rate is of the last so many seconds: long enough not to jump, short enough to be of now."""

_LEAST_SECONDS = 0.5
"""A window that is shorter says nothing."""

_ENDS = {"pull": "pulled", "push": "pushed", "copy": "copied", "load": "loaded", "save": "saved"}


class Rate:
    """How fast a count of bytes grows, over a sliding window."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, count: int, now: float) -> None:
        """Takes where the count stands; one that fell begins anew."""
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def bytes_per_second(self) -> float | None:
        """The rate; None where too little was seen to say."""
        if len(self._seen) < 2:
            return None
        (since, first), (until, last) = self._seen[0], self._seen[-1]
        return (last - first) / (until - since) if until - since >= _LEAST_SECONDS else None

    def seconds_left(self, done: int, total: int) -> float | None:
        """How long the rest takes at this rate; None where nobody can say."""
        rate = self.bytes_per_second
        return (total - done) / rate if rate and total > done else None


class Board:
    """The transfers of one action that are under way, and the bytes of those that ended since it was idle."""

    def __init__(self) -> None:
        """Nothing moves."""
        self.moving: dict[tuple[str, str], Transfer] = {}
        self.since = 0.0
        self._ended_bytes = 0
        self._rate = Rate()

    def take(self, event: Transfer, now: float) -> None:
        """Takes an event. Of a blob that did not move, nothing is counted."""
        if not self.moving:
            self.since, self._ended_bytes, self._rate = now, 0, Rate()
            self._rate.at(0, now)
        key = (event.digest, event.name)
        if event.done_bytes != event.total_bytes:
            self.moving[key] = event
        else:
            self.moving.pop(key, None)
            if event.kind not in ("present", "mounted"):
                self._ended_bytes += event.total_bytes
        self._rate.at(self.done_bytes, now)

    @property
    def done_bytes(self) -> int:
        """What has moved since the board was idle."""
        return self._ended_bytes + sum(event.done_bytes for event in self.moving.values())

    @property
    def total_bytes(self) -> int:
        """What is to move, as far as it has begun; 0 where nobody knows."""
        totals = [event.total_bytes for event in self.moving.values()]
        return self._ended_bytes + sum(totals) if all(totals) else 0

    def line(self, action: str) -> str:
        """Where all of it stands: `pull 120MiB of 1.2GiB, 40MiB/s, 27.1s left`."""
        done, total = self.done_bytes, self.total_bytes
        parts = [f"{action} {human_size(done)}" + (f" of {human_size(total)}" if total else "")]
        if (rate := self._rate.bytes_per_second) is not None:
            parts.append(human_rate(rate))
        if (left := self._rate.seconds_left(done, total)) is not None:
            parts.append(f"{human_time(left)} left")
        return ", ".join(parts)

    def lines(self, action: str, most: int) -> list[str]:
        """A line for each transfer, the oldest first; of more than `most`, the last line counts the rest."""
        shown = [_one(action, event) for event in self.moving.values()]
        if len(shown) <= most:
            return shown
        return [*shown[: most - 1], f"{action} of {len(shown) - most + 1} more"] if most > 0 else []


def _one(action: str, event: Transfer) -> str:
    """Where one transfer stands: `pull 3b8a1f09c2d4 12MiB of 48MiB 25%`."""
    what = event.digest.partition(":")[2][:12] if event.digest.startswith("sha256:") else event.digest
    if not event.total_bytes:
        return f"{action} {what} {human_size(event.done_bytes)}"
    share = 100 * event.done_bytes // event.total_bytes
    return f"{action} {what} {human_size(event.done_bytes)} of {human_size(event.total_bytes)} {share}%"


def transferred_line(event: Transferred) -> str:
    """The sum of a transfer: `pulled 5 layers of alpine, 1GiB in 3.20s (320MiB/s), 2 were here`."""
    verb = _ENDS.get(event.action, event.action)
    where = "there" if event.action in ("push", "copy") else "here"
    noun = "blob" if event.action == "copy" else "layer"  # a copy counts configs as well
    parts = []
    if event.mounted:
        parts.append(f"{event.mounted} mounted")
    if event.present:
        parts.append(f"{event.present} {'was' if event.present == 1 else 'were'} {where}")
    if not event.moved:
        return f"{verb} {event.name}" + (f": of its {noun}s, {', '.join(parts)}" if parts else "")
    moved = f"{event.moved} {noun}{'' if event.moved == 1 else 's'} of {event.name}"
    size = human_size(event.moved_bytes)
    if event.seconds > 0:
        rate = human_rate(event.moved_bytes / event.seconds)
        size += f" in {human_time(event.seconds)} ({rate})"
    return f"{verb} {', '.join([moved, size, *parts])}"
