"""How sizes, rates and durations are written for people: one form each, wherever they are shown.

Lists, notes, sums, errors and the display of progress call these; in JSON there are bytes and seconds, as
numbers. A limit that somebody set is named in words, as it was set (`no answer within 30 seconds`).
"""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def human_size(count: float) -> str:
    """Bytes: four digits that count, in units of 1,024: `1012KiB`, `36.36MiB`, `1GiB`."""
    for unit in _UNITS[:-1]:
        text = f"{count:.4g}"
        if float(text) < 1024:  # as it is written: 1023.96 is the next unit's 1
            return text + unit
        count /= 1024
    return f"{count:.4g}{_UNITS[-1]}"


def human_rate(bytes_per_second: float) -> str:
    """A rate: `36.36MiB/s`; less than 1 KiB in a second is told in whole bytes."""
    return f"{human_size(bytes_per_second if bytes_per_second >= 1024 else round(bytes_per_second))}/s"


def human_time(seconds: float) -> str:
    """A duration: `0.34s`, `12.3s`, `2m05s`, `1h02m`."""
    if seconds < 59.95:
        return f"{seconds:.2f}s" if seconds < 9.995 else f"{seconds:.1f}s"
    whole = round(seconds)
    minutes = whole // 60
    return f"{minutes}m{whole % 60:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
