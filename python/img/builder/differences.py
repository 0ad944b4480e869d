"""How two cache keys differ, field by field: `compare`, `Difference`; and what people are told of that.

Pure: `explain` finds what is to be compared. What is shown of a value is clipped, and without the passwords
of its URLs; of a variable whose name says that it is a secret, none is. Secrets themselves are in no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from img.builder.plan.checks import names_a_secret
from img.dockerfile.faults import printable, without_passwords
from img.values import dataclass

_CLIP = 40
"""Characters of a value that one clause shows."""

_DEFAULTS = {
    "user": "root",
    "network": "default",
    "security": "sandbox",
    "cwd": "/",
    "hostname": "the default",
    "chown": "none",
    "chmod": "none",
    "epoch": "none",
}
"""What a field means that a key leaves out."""

_NAMES = {"epoch": "SOURCE_DATE_EPOCH", "dest": "destination", "path": "folder"}
_FLAGS = ("link", "parents", "unpack", "exclude")

_ORDER = (
    "v", "op", "args", "script", "inline", "path", "dest", "env", "user", "cwd", "content", "chown", "chmod",
    *_FLAGS, "mounts", "secrets", "network", "security", "hosts", "hostname", "platform", "epoch", "below",
)  # fmt: skip
"""Fields as people want to hear of them: what they wrote first, what follows from other steps last."""

_SOURCES = ("parts", "sources")
"""Fields of keys that name files by the stack that they are in: those of `content` say more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field, or one part of it, that is not what it was.

    Attributes:
        field: Of the key: `args`, `env`, `content`.
        name: The part: a variable, a mount's target, a path; empty for the field as a whole.
        change: `changed`, `added` or `removed`; of a file also `mode`, `owner`, `type` and so on.
        old: What it was, clipped; empty where that cannot be shown.
        new: What it is.
        text: The same for people: `env V: 1 -> 2`.
    """

    field: str
    name: str = ""
    change: str = "changed"
    old: str = ""
    new: str = ""
    text: str

    def as_data(self) -> dict[str, str]:
        """As plain data."""
        return {
            "field": self.field,
            "name": self.name,
            "change": self.change,
            "old": self.old,
            "new": self.new,
            "text": self.text,
        }


def compare(old: Mapping[str, object], new: Mapping[str, object]) -> list[Difference]:
    """Names what differs between two keys' inputs, the earlier one first.

    What the files are that differ, and what is below, only the caller can tell: there is one difference for
    the field `content`, and one for `below`, without old and new.
    """
    if old.get("v") != new.get("v"):
        return [Difference(field="v", old=str(old.get("v")), new=str(new.get("v")), text=_VERSION)]
    fields = {*old, *new} - {*_SOURCES}
    found: list[Difference] = []
    for field in sorted(fields, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)):
        before, after = old.get(field), new.get(field)
        if before != after:
            found.extend(_field(field, before, after))
    return found


_VERSION = "img changed how it computes keys"


def equal_fields(old: Mapping[str, object], new: Mapping[str, object]) -> int:
    """How near two keys are: the number of fields that are the same."""
    return sum(1 for name, value in new.items() if old.get(name) == value)


def _field(field: str, old: object, new: object) -> Iterator[Difference]:
    if field == "env":
        for one in _pairs("env", "env", old, new):
            yield _change_alone(one, f"env {clip(one.name)}") if names_a_secret(one.name) else one
    elif field == "mounts":
        yield from _mounts(old, new)
    elif field == "secrets":
        for name in sorted({*_dict(old), *_dict(new)}):
            if _dict(old).get(name) != _dict(new).get(name):
                change = _change(_dict(old).get(name), _dict(new).get(name))
                said = {"added": "counts now", "removed": "counts no more"}.get(change, change)
                yield Difference(
                    field=field, name=name, change=change, text=f"the secret {clip(name)} {said}"
                )
    elif field == "inline":
        yield from (_change_alone(one, one.name) for one in _pairs("inline", "", old, new))
    elif field in ("args", "script"):
        yield Difference(field=field, old=_shown(old), new=_shown(new), text=f"{field} changed")
    elif field == "content":
        yield Difference(field=field, text="the files changed")
    elif field == "below":
        yield Difference(field=field, text="what is below changed")
    elif field in _FLAGS:
        yield Difference(
            field=field, old=_shown(old), new=_shown(new), text=f"{_flag(field)} {_change(old, new)}"
        )
    else:
        name = _NAMES.get(field, field)
        before, after = (_shown(value) or _DEFAULTS.get(field, "none") for value in (old, new))
        yield Difference(field=field, old=before, new=after, text=f"{name}: {before} -> {after}")


def _flag(field: str) -> str:
    return "what is unpacked" if field == "unpack" else f"--{field}"


def _change_alone(one: Difference, head: str) -> Difference:
    """A difference that is told without either value."""
    return Difference(field=one.field, name=one.name, change=one.change, text=f"{head} {one.change}")


def _change(old: object, new: object) -> str:
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def _dict(value: object) -> dict[str, object]:
    """A list of pairs as a dictionary; the later of two names counts."""
    if not isinstance(value, list):
        return {}
    return {str(pair[0]): pair[1] for pair in value if isinstance(pair, (list, tuple)) and len(pair) == 2}


def _pairs(field: str, word: str, old: object, new: object) -> Iterator[Difference]:
    """Names and values, such as variables."""
    before, after = _dict(old), _dict(new)
    any_differs = False
    for name in (*before, *(name for name in after if name not in before)):
        was, is_ = before.get(name), after.get(name)
        if was == is_ and (name in before) == (name in after):
            continue
        any_differs = True
        head = f"{word} {clip(name)}".strip()
        if name not in before:
            yield Difference(
                field=field, name=name, change="added", new=_shown(is_), text=f"{head} added: {_shown(is_)}"
            )
        elif name not in after:
            yield Difference(
                field=field, name=name, change="removed", old=_shown(was), text=f"{head} removed"
            )
        else:
            text = f"{head}: {_apart(was, is_)}"
            yield Difference(field=field, name=name, old=_shown(was), new=_shown(is_), text=text)
    if not any_differs:
        yield Difference(field=field, text=f"{word or field}: another order")


def _mounts(old: object, new: object) -> Iterator[Difference]:
    before, after = _by_target(old), _by_target(new)
    any_differs = False
    for target in (*before, *(target for target in after if target not in before)):
        was, is_ = before.get(target), after.get(target)
        if was == is_:
            continue
        any_differs = True
        head = f"mount {clip(target)}"
        if was is None or is_ is None:
            change = _change(was, is_)
            yield Difference(field="mounts", name=target, change=change, text=f"{head} {change}")
            continue
        for name in sorted({*was, *is_}):
            if was.get(name) != is_.get(name):
                one, other = (_shown(facts.get(name)) or "none" for facts in (was, is_))
                text = f"{head}: {name} {one} -> {other}"
                yield Difference(field="mounts", name=target, old=one, new=other, text=text)
    if not any_differs:
        yield Difference(field="mounts", text="mounts: another order")


def _by_target(value: object) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for mount in value if isinstance(value, list) else ():
        if not isinstance(mount, dict):
            continue
        name = str(mount.get("target") or mount.get("env") or mount.get("id") or "")
        while name in found:
            name += "'"
        found[name] = mount
    return found


# ---- files ----------------------------------------------------------------------------------------


def file_difference(path: str, change: str, old: str, new: str, *, field: str = "content") -> Difference:
    """What was done to one file, as a listing's comparison has it (`_core.compare_listings`)."""
    name = clip(path, 80)
    if change in ("added", "removed"):
        text = f"{name} {change}" + (f" with {new} more in it" if new else "")
    elif change == "content":
        text = f"{name} changed ({f'{old} -> {new}' if old != new else old} bytes)"
    elif change == "target":
        text = f"link {name}: {clip(old)} -> {clip(new)}"
    elif change == "xattrs":
        text = f"extended attributes of {name}"
    else:
        text = f"{change} {clip(old)} -> {clip(new)} {name}"
    return Difference(
        field=field, name=printable(path), change=change, old=clip(old), new=clip(new), text=text
    )


def files_clause(files: Sequence[Difference], *, total: int, added: int, removed: int, changed: int) -> str:
    """What was done to many files, in one clause."""
    for change, count in (("added", added), ("removed", removed)):
        if count > 1 and count == added + removed + changed and len(files) > 1:
            names = ", ".join(clip(one.name) for one in files[:3])
            return f"{count} files {change}: {names}{', …' if total > 3 else ''}"
    more = added + removed + changed - 1
    if not files:
        return "the files changed"
    inside = files[0].new if files[0].change in ("added", "removed") else ""
    more -= int(inside) if inside.isdecimal() else 0
    return files[0].text + (f" and {more} more" if more > 0 else "")


# ---- values ---------------------------------------------------------------------------------------


def clip(text: str, length: int = _CLIP) -> str:
    """A value as a message may show it: short, printable, and without passwords."""
    text = printable(without_passwords(text))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _apart(old: object, new: object) -> str:
    """Two values, clipped to where they part."""
    one, other = (printable(without_passwords(str(value))) for value in (old, new))
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    if max(len(one), len(other)) <= _CLIP or same < _CLIP // 2:
        return f"{clip(one) or 'empty'} -> {clip(other) or 'empty'}"
    start = max(0, same - 8)
    return f"…{clip(one[start:])} -> …{clip(other[start:])}"


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return clip(" ".join(str(part) for part in value), 200)
    return clip(str(value), 200)
