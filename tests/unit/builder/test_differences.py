"""How two keys differ, in words: each field, what is clipped, and what is never shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img.builder.differences import clip, compare, equal_fields, file_difference, files_clause

KEY: dict[str, Any] = {"v": 2, "op": "run", "below": "stack:x", "args": ["sh", "-c", "make"]}


def texts(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [one.text for one in compare({**KEY, **old}, {**KEY, **new})]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"env": [["V", "1"]]}, {"env": [["V", "2"]]}, ["env V: 1 -> 2"]),
        ({"env": [["V", "1"], ["W", "1"]]}, {"env": [["W", "1"]]}, ["env V removed"]),
        ({}, {"env": [["V", ""]]}, ["env V added: "]),
        ({"env": [["V", ""]]}, {"env": [["V", "1"]]}, ["env V: empty -> 1"]),
        ({"env": [["V", "1"], ["W", "1"]]}, {"env": [["W", "1"], ["V", "1"]]}, ["env: another order"]),
        ({"env": [["API_TOKEN", "1"]]}, {"env": [["API_TOKEN", "2"]]}, ["env API_TOKEN changed"]),
        ({}, {"env": [["PASSWORD", "1"]]}, ["env PASSWORD added"]),
        ({}, {"args": ["sh", "-c", "true"]}, ["args changed"]),
        ({}, {"user": "app"}, ["user: root -> app"]),
        ({"cwd": "/a"}, {"cwd": "/b"}, ["cwd: /a -> /b"]),
        ({"network": "none"}, {}, ["network: none -> default"]),
        ({}, {"security": "insecure"}, ["security: sandbox -> insecure"]),
        ({"platform": "linux/amd64"}, {"platform": "linux/arm64"}, ["platform: linux/amd64 -> linux/arm64"]),
        ({}, {"epoch": 0}, ["SOURCE_DATE_EPOCH: none -> 0"]),
        ({}, {"link": True}, ["--link added"]),
        ({"exclude": ["a"]}, {"exclude": ["b"]}, ["--exclude changed"]),
        ({"inline": [["E", "1"]]}, {"inline": [["E", "2"]]}, ["E changed"]),
        ({"secrets": [["k", "a"]]}, {"secrets": [["k", "b"]]}, ["the secret k changed"]),
        ({"dest": "/a"}, {"dest": "/b"}, ["destination: /a -> /b"]),
        ({"hosts": ["a"]}, {"hosts": ["a", "b"]}, ["hosts: a -> a b"]),
        ({}, {"mounts": [{"type": "ssh", "target": "/s", "id": "d"}]}, ["mount /s added"]),
        (
            {"mounts": [{"type": "tmpfs", "target": "/t"}]},
            {"mounts": [{"type": "tmpfs", "target": "/t", "size": 1}]},
            ["mount /t: size none -> 1"],
        ),
        ({"v": 1, "env": [["V", "1"]]}, {}, ["img changed how it computes keys"]),
        ({"parts": [["stack:y", "a"]]}, {"parts": [["stack:z", "a"]]}, []),
        (
            {"content": ["1"], "below": "stack:y"},
            {"content": ["2"], "args": ["x"]},
            ["args changed", "the files changed", "what is below changed"],
        ),
    ],
)
def test_each_field_has_its_words(old: dict[str, Any], new: dict[str, Any], said: list[str]) -> None:
    assert texts(old, new) == said


def test_a_long_value_is_clipped_to_where_it_differs() -> None:
    (text,) = texts({"env": [["V", "a" * 500 + "1"]]}, {"env": [["V", "a" * 500 + "2"]]})
    assert text == "env V: …aaaaaaaa1 -> …aaaaaaaa2"
    assert len(clip("x" * 500)) == 40


def test_passwords_and_the_values_that_stand_for_secrets_are_not_shown() -> None:
    old = {
        "env": [["U", "https://me:old@h/"]],
        "secrets": [["k", "0123"]],
        "args": ["git", "https://me:old@h/"],
    }
    new = {"env": [["U", "https://me:new@h/x"]], "secrets": [["k", "4567"]], "args": ["https://me:new@h/"]}
    told = repr(compare({**KEY, **old}, {**KEY, **new}))
    for word in ("me:", "old@", "new@", "0123", "4567"):
        assert word not in told


def test_nothing_that_moves_a_cursor_is_shown() -> None:
    assert texts({"env": [["V", "\x1b[2J"]]}, {"env": [["V", "1"]]}) == ["env V: \ufffd[2J -> 1"]


values = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
fields = st.sampled_from(["env", "args", "mounts", "inline", "secrets", "user", "content", "below", "new"])
keys = st.dictionaries(fields, values, max_size=5)


@given(keys, keys)
def test_records_of_any_form_can_be_compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    for one in compare(old, new):
        assert one.text
        assert all(isinstance(value, str) for value in one.as_data().values())
    assert compare(new, new) == []
    assert equal_fields(new, new) == len(new)


@pytest.mark.parametrize(
    ("path", "change", "old", "new", "said"),
    [
        ("app/run.sh", "mode", "644", "664", "mode 644 -> 664 app/run.sh"),
        ("app/x.py", "content", "120", "133", "app/x.py changed (120 -> 133 bytes)"),
        ("app/x.py", "content", "120", "120", "app/x.py changed (120 bytes)"),
        ("l", "target", "a", "b", "link l: a -> b"),
        ("f", "owner", "0:0", "1:1", "owner 0:0 -> 1:1 f"),
        ("f", "type", "file", "link", "type file -> link f"),
        ("f", "xattrs", "", "", "extended attributes of f"),
        ("d/", "added", "", "7", "d/ added with 7 more in it"),
        ("d/", "removed", "", "", "d/ removed"),
    ],
)
def test_each_change_of_a_file_has_its_words(path: str, change: str, old: str, new: str, said: str) -> None:
    assert file_difference(path, change, old, new).text == said


def test_many_files_are_one_clause() -> None:
    added = [file_difference(name, "added", "", "") for name in "abcd"]
    clause = files_clause(added, total=4, added=4, removed=0, changed=0)
    assert clause == "4 files added: a, b, c, …"
    clause = files_clause(added[:2], total=2, added=2, removed=0, changed=0)
    assert clause == "2 files added: a, b"
    clause = files_clause(added[:1], total=5, added=4, removed=1, changed=0)
    assert clause == "a added and 4 more"
    folder = [file_difference("d/", "added", "", "3")]
    assert files_clause(folder, total=1, added=4, removed=0, changed=0) == "d/ added with 3 more in it"
    both = [file_difference("f", "mode", "644", "600"), file_difference("f", "content", "1", "2")]
    assert files_clause(both, total=2, added=0, removed=0, changed=1) == "mode 644 -> 600 f"
