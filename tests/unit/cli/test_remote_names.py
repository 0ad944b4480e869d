"""The order of tags as people count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from img.cli.remote_names import chosen, version_key

IN_ORDER = [
    "edge", "latest", "1.0-alpha", "1.0-beta2", "1.0-rc1", "1.0-rc10", "1.0", "1.0-alpine", "1.0.1", "v1.1",
    "1.2", "1.9", "1.10", "2023.01", "20230101",
]  # fmt: skip


def test_versions_are_ordered_as_people_count() -> None:
    assert sorted(reversed(IN_ORDER), key=version_key) == IN_ORDER
    assert chosen(["1.10", "1.9"], (), "registry") == ["1.10", "1.9"]
    assert chosen(["1.10", "2.0", "1.9"], ("1.*",), "version") == ["1.9", "1.10"]


@given(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)))
def test_any_tags_have_one_order(tags: list[str]) -> None:
    assert chosen(chosen(tags, (), "version")[::-1], (), "version") == chosen(tags, (), "version")
