"""Lines of a Dockerfile, against a second joiner written from the reference and sharing no code."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from img.dockerfile.source import parse_source
from img.errors import DockerfileError

BLANKS = b" \t"


Found = list[tuple[int, bytes, list[bytes]]]


def continues(row: bytes, escape: bytes) -> bool:
    bare = row.rstrip(BLANKS)
    return bare[-1:] == escape and bare[-2:-1] != escape


def is_text(row: bytes) -> bool:
    return row.strip(BLANKS)[:1] not in (b"", b"#")


def begins(text: bytes) -> list[tuple[bytes, bytes]]:
    """The dash and the name of each here-document; quotes anywhere else are beyond this joiner."""
    words = text.split()
    if words[0] not in (b"RUN", b"copy") and words[:2] != [b"ONBUILD", b"RUN"]:
        return []
    marks = [re.fullmatch(rb'\d*<<(-?)("E"|[^<"\\]+)', word) for word in words]
    assume(all(mark or not {*b'"\\'} & {*word} for mark, word in zip(marks, words, strict=True)))
    return [(mark[1], mark[2].strip(b'"')) for mark in marks if mark]


def joined(data: bytes) -> Found:
    """Start line, joined text and here-document bodies of each instruction; ValueError for a mistake.

    Works on bytes and line by line, as the reference tells it. It knows only what `documents` below
    generates: blanks are spaces and tabs, and a here-document's word is plain or wholly quoted.
    """
    rows = data.removesuffix(b"\n").split(b"\n")
    escape = b"`" if rows[0] == b"# escape=`" else b"\\"
    found: Found = []
    todo = list(enumerate(rows, 1))
    while todo:
        start, row = todo.pop(0)
        if not is_text(row):
            continue
        text, row = b"", row.lstrip(BLANKS)
        while continues(row, escape):
            text += row.rstrip(BLANKS)[:-1]
            while todo and not is_text(todo[0][1]):
                todo.pop(0)
            row = todo.pop(0)[1] if todo else b""
        text = (text + row).strip(BLANKS)
        if not text:
            raise ValueError("continues nothing")
        found.append((start, text, [body(todo, *mark) for mark in begins(text)]))
    return found


def body(todo: list[tuple[int, bytes]], dash: bytes, name: bytes) -> bytes:
    text = b""
    while todo:
        row = todo.pop(0)[1]
        row = row.lstrip(b"\t") if dash else row
        if row == name:
            return text
        text += row + b"\n"
    raise ValueError("does not end")


SPICE = """RUN copy ONBUILD ENV x E # \\ \\\\ ` `` <<E <<-"E" a=b $ \udcff"""
pieces = st.sampled_from([*SPICE.split(), " ", "  ", "\t", "# c", "\x1cq", "\u3000y", "z\u2028"])
rows = st.lists(pieces, max_size=5).map("".join) | st.lists(pieces, max_size=5).map(" ".join)
documents = st.builds(
    lambda first, body, last: "\n".join([*first, *body]) + last,
    st.sampled_from([[], ["# escape=`"], ["FROM a"]]),
    st.lists(rows | st.sampled_from(["E", "\tE", "", "\\", "RUN \\", "RUN <<E"]), max_size=12),
    st.sampled_from(["", "\n"]),
)


@settings(max_examples=400, deadline=None)
@given(documents)
@example("RUN\\\n\\\n\\\n  x \\")
@example("# escape=`\nRUN a\\\nRUN b``\nRUN c`\n# d\n\n")
def test_lines_are_those_that_a_second_joiner_finds(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    try:
        expected = joined(data)
    except ValueError:
        with pytest.raises(DockerfileError):
            parse_source(data, "Dockerfile")
        return
    lines = parse_source(data, "Dockerfile").lines

    def encoded(text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")

    odd = "\u3000\u2028"  # blanks at the ends by Go's rules, which the second joiner does not know
    assert [
        (line.span.start, encoded(line.original), [encoded(doc.content) for doc in line.heredocs])
        for line in lines
    ] == [
        (start, encoded(text.decode("utf-8", "surrogateescape").strip(odd + " \t")), docs)
        for start, text, docs in expected
    ]
    for line in lines:
        assert line.original.upper().startswith(line.keyword)
        assert line.original.endswith(line.value)


def test_nothing_is_read_from_the_disk_and_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM wrong\n")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    before = os.stat(tmp_path / "Dockerfile")
    (line,) = parse_source(b"FROM right\n", "Dockerfile").lines
    assert line.value == "right"
    assert os.stat(tmp_path / "Dockerfile") == before
    assert caplog.records == []


def test_a_span_holds_the_lines_as_they_were_written() -> None:
    first, second = parse_source(b"FROM a\r\n\r\nRUN x <<E \\\r\n # c\r\n y\r\nz\r\nE\r\n", "d/File").lines
    assert first.span.where == "d/File:1"
    assert (second.span.start, second.span.end) == (3, 7)
    assert second.span.text == "RUN x <<E \\\n # c\n y\nz\nE"
