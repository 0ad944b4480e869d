"""What transfers look like: rates, the time that is left, and the line that sums them up.

Pure: whoever draws says what time it is.
"""

from __future__ import annotations

from collections import Counter, deque

from img.amounts import human_rate, human_size, human_time
from img.progress import Transfer, Transferred, Transferring

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


Key = tuple[str, str]
"""What a transfer is known by: its digest, and the image that it is of."""


class Board:
    """The transfers of one action that are under way, and the bytes of those that ended since it was idle."""

    def __init__(self) -> None:
        """Nothing moves."""
        self.moving: dict[Key, Transfer] = {}
        self.since = 0.0
        self._ended: dict[Key, int] = {}
        self._announced: dict[str, int] = {}
        self._rate = Rate()

    @property
    def idle(self) -> bool:
        """Whether nothing moves, and nothing is about to."""
        return not self.moving and not self._announced

    def _begin(self, now: float) -> None:
        """What ended before is of no interest any more, where nothing is under way."""
        if self.idle:
            self.since, self._rate = now, Rate()
            self._ended.clear()
            self._rate.at(0, now)

    def announce(self, event: Transferring, now: float) -> None:
        """Takes what is to move in all."""
        self._begin(now)
        self._announced[event.name] = self._announced.get(event.name, 0) + event.total_bytes

    def close(self, event: Transferred) -> None:
        """All of it is there."""
        self._announced.pop(event.name, None)

    def take(self, event: Transfer, now: float) -> None:
        """Takes an event. Of a blob that did not move, nothing is counted; of one that began anew, once."""
        self._begin(now)
        key = (event.digest, event.name)
        self._ended.pop(key, None)
        if event.kind or event.done_bytes == event.total_bytes:
            self.moving.pop(key, None)
            if event.kind not in ("present", "mounted", "dropped"):
                self._ended[key] = event.total_bytes
            elif event.name in self._announced:
                self._announced[event.name] -= event.total_bytes
        else:
            self.moving[key] = event
        self._rate.at(self.done_bytes, now)

    @property
    def done_bytes(self) -> int:
        """What has moved since the board was idle."""
        return sum(self._ended.values()) + sum(event.done_bytes for event in self.moving.values())

    @property
    def total_bytes(self) -> int:
        """What is to move, as far as that was said or has begun; 0 where nobody knows."""
        totals = [event.expected_bytes for event in self.moving.values()]
        if not all(totals):
            return 0
        begun = sum(self._ended.values()) + sum(totals)
        return max(begun, sum(self._announced.values()) + self._besides())

    def _besides(self) -> int:
        """What moves and was not announced."""
        moving = (event for event in self.moving.values() if event.name not in self._announced)
        ended = (count for (_, name), count in self._ended.items() if name not in self._announced)
        return sum(event.expected_bytes for event in moving) + sum(ended)

    @property
    def is_guess(self) -> bool:
        """Whether the total is what blobs will come to that are being made."""
        return any(event.tar_total_bytes and not event.total_bytes for event in self.moving.values())

    def line(self, action: str, *, brief: bool = False) -> str:
        """Where all of it stands: `pull 120MiB of 1.2GiB, 40MiB/s, 27.1s left`.

        Args:
            brief: In few words: `pull 10%, 27.1s left`.
        """
        done, total = self.done_bytes, self.total_bytes
        parts = [f"{action} {_share(done, total) if brief else _of(done, total, guess=self.is_guess)}"]
        if (rate := self._rate.bytes_per_second) is not None and not brief:
            parts.append(human_rate(rate))
        if (left := self._rate.seconds_left(done, total)) is not None:
            parts.append(f"{human_time(left)} left")
        return ", ".join(parts)

    def lines(self, action: str, most: int, width: int) -> list[str]:
        """A line for each transfer, the oldest first; of more than `most`, the last line counts the rest."""
        events = list(self.moving.values())
        if len(events) > most:
            shown = events[: most - 1] if most > 0 else []
            rest = [f"{action} of {len(events) - len(shown)} more"] if most > 0 else []
        else:
            shown, rest = events, []
        # One blob may go to several places at once.
        twice = {digest for digest, count in Counter(event.digest for event in events).items() if count > 1}
        return [*(_one(action, event, width, named=event.digest in twice) for event in shown), *rest]


def _of(done: int, total: int, *, guess: bool) -> str:
    if not total:
        return human_size(done)
    return f"{human_size(done)} of {'about ' if guess else ''}{human_size(total)}"


def _share(done: int, total: int) -> str:
    return f"{100 * done // total}%" if total else human_size(done)


def _one(action: str, event: Transfer, width: int, *, named: bool) -> str:
    """Where one transfer stands: `pull 3b8a1f09c2d4 12MiB of 48MiB 25%`.

    What it is gives way to how far it is.
    """
    done, total = event.done_bytes, event.expected_bytes
    share = f" {_share(done, total)}" if total else ""
    guess = event.total_bytes != total
    ends = (f" {_of(done, total, guess=guess)}{share}", f" {human_size(done)}{share}", share)
    is_digest = event.digest.startswith("sha256:")
    what = event.digest.partition(":")[2][:12] if is_digest else event.digest
    if named:
        what = f"{what[:6]} {event.name}"
    least = min(len(what), 12)
    end = next((end for end in ends if len(action) + 1 + least + len(end) <= width), ends[-1])
    return f"{action} {_shortened(what, max(1, width - len(action) - 1 - len(end)))}{end}"


def _shortened(text: str, width: int) -> str:
    """A text of at most `width` characters: both its ends, since either may tell it from its like."""
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


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
