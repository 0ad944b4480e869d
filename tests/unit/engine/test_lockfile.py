"""`LockFile`: its text, and what is refused of one."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.engine.lockfile import (
    KINDS,
    LockFile,
    Name,
    git_name,
    http_name,
    matching,
    parse_lock,
    place_of,
    stale,
)
from img.errors import LockError
from img.oci import Reference

DIGEST = "sha256:" + "a" * 64
COMMIT = "b" * 40
ALPINE = Name(kind="images", text="docker.io/library/alpine:3.20")
TRIGGER = Name(kind="triggers", text="docker.io/library/busybox:1")
GIT = Name(kind="git", text="https://example.com/app.git#main")
HTTP = Name(kind="http", text="https://example.com/file")
LOCK = LockFile(pins={GIT: COMMIT, HTTP: DIGEST, TRIGGER: DIGEST, ALPINE: DIGEST})

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
names = st.builds(Name, kind=st.sampled_from(KINDS), text=texts)


@st.composite
def locks(draw: st.DrawFn) -> LockFile:
    """Any lock file."""
    pins = {}
    for name in draw(st.lists(names, unique=True)):
        length = 40 if name.kind == "git" else 64
        hexadecimal = draw(st.text("0123456789abcdef", min_size=length, max_size=length))
        pins[name] = hexadecimal if name.kind == "git" else f"sha256:{hexadecimal}"
    return LockFile(pins=pins)


@given(locks())
def test_what_is_written_is_read_again(lock: LockFile) -> None:
    assert parse_lock(lock.text().encode(), path="img.lock") == lock


@given(locks())
def test_the_order_of_the_entries_does_not_show(lock: LockFile) -> None:
    turned = LockFile(pins=dict(reversed(list(lock.pins.items()))))
    assert turned.text() == lock.text()


@given(locks())
def test_an_entry_has_a_line_of_its_own(lock: LockFile) -> None:
    text = lock.text()
    assert text.count("\n") == len(lock.pins) + 3 + 2 * len({name.kind for name in lock.pins})
    for name, pin in lock.pins.items():
        line, excerpt = place_of(text.encode(), name)
        assert text.split("\n")[line - 1] == excerpt
        assert json.dumps(name.text, ensure_ascii=False) in excerpt
        assert pin in text


@given(st.binary() | st.text(string.printable).map(str.encode))
def test_any_bytes_are_a_lock_file_or_an_error_with_a_place(data: bytes) -> None:
    try:
        lock = parse_lock(data, path="img.lock")
    except LockError as error:
        where = str(error)
    else:
        where = f"img.lock: {lock}"
    assert where.startswith("img.lock:")


def test_a_name_is_looked_up_in_its_sections() -> None:
    assert LOCK.image(Reference.parse("alpine:3.20")) == DIGEST
    assert LOCK.image(Reference.parse("busybox:1")) == DIGEST
    assert LOCK.image(Reference.parse("alpine:3.21")) == ""
    assert LOCK.git("https://user:secret@example.com/app.git", "main") == COMMIT
    assert LOCK.http("https://example.com/file") == DIGEST
    assert LOCK.http("https://example.com/file?v=2") == ""


def test_a_name_holds_no_secret() -> None:
    name = http_name("https://user:secret@example.com/file?token=secret")
    assert name.startswith("https://example.com/file?")
    assert "secret" not in name
    assert name != http_name("https://example.com/file?token=other")
    assert git_name("https://user:secret@example.com/app.git", "") == "https://example.com/app.git#HEAD"


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"images": {"a": "sha256:12"}}, "a is pinned to 'sha256:12', which is not sha256: and 64"),
        ({"git": {"a#b": DIGEST}}, "which is not a whole commit hash"),
        ({"images": {"a": 1}}, "a is pinned to 1"),
        ({"images": ["a"]}, "images is no object of names and digests"),
        ({"image": {}}, "'image' is no section"),
        ({"version": "1"}, "it has the version '1'"),
        ({"version": True}, "it has the version True"),
    ],
)
def test_what_makes_no_sense_is_refused(section: dict[str, object], reason: str) -> None:
    data = json.dumps({"version": 1, **section}, indent=2).encode()
    with pytest.raises(LockError, match=r"img\.lock:[2-4]: ") as caught:
        parse_lock(data, path="img.lock")
    assert reason in str(caught.value)


def test_what_a_merge_leaves_twice_is_refused_with_its_line() -> None:
    text = LOCK.text().replace(f'"{GIT.text}"', f'"{GIT.text}": "{"c" * 40}",\n    "{GIT.text}"')
    with pytest.raises(LockError, match=r"img\.lock:\d+: https://example.com/app.git#main is in it twice"):
        parse_lock(text.encode(), path="img.lock")


def test_only_what_nothing_asks_for_is_stale() -> None:
    assert stale(LOCK, {GIT, HTTP}, {ALPINE.text, TRIGGER.text}, complete=True) == []
    assert stale(LOCK, {HTTP}, {TRIGGER.text}, complete=True) == [GIT, ALPINE]
    assert stale(LOCK, set(), set(), complete=False) == [ALPINE]


def test_an_entry_is_found_by_what_people_write() -> None:
    assert matching(LOCK.pins, "alpine:3.20") == [ALPINE]
    assert matching(LOCK.pins, "https://example.com/app.git") == [GIT]
    assert matching(LOCK.pins, GIT.text) == [GIT]
    query = Name(kind="http", text=http_name("https://example.com/other?token=x"))
    assert matching([HTTP, query], "https://example.com/other") == [query]
    assert matching(LOCK.pins, "nothing") == []
