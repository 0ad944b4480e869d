"""Lines of a Dockerfile, against a second joiner written from the reference and sharing no code."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from img.dockerfile.source import parse_source
from img.errors import DockerfileError

from tests.support.joiner import Body, Joined, Refused, join

WORDS = (
    "RUN", "copy", "ADD", "ONBUILD", "ENV", "CMD", "from", "x", "a=b", "#", "# c", "\\", "\\\\", "`",
    "``", "--flag=1", "--f='a b'", "--", "<<E", "<<-E", "<<'E'", '<<-"E"', "3<<E", "<< E", "<<<E",
    "<<E'F'", "<<", "E", "[", '["a"]', '["a <<E"]', "'", '"', "'a b'", "$x", "\udcff", "\x1cq", "\u3000",
    "z\u2028", "\x85", "\v", "\r", "<", ">",
)  # fmt: skip
GAPS = ("", " ", "  ", "\t")
ENDS = ("", "", "\\", " \\", "\\ ", "\\ \t", "\\\\", "`", " ` ", "\r")
rows = st.builds(
    lambda words, gaps, end: "".join(w + g for w, g in zip(words, gaps, strict=False)) + end,
    st.lists(st.sampled_from(WORDS), max_size=5),
    st.lists(st.sampled_from(GAPS), min_size=5, max_size=5),
    st.sampled_from(ENDS),
)
whole = st.sampled_from([
    "RUN x", "RUN <<E", "RUN a <<E <<-F", "COPY <<'E F' /x", "ONBUILD RUN <<E", "E", "\tE", "F", "E F",
    "E\r", "", " ", "\\", "# c", "  # c \\", "RUN \\", "RUN\\", "FROM a", "RU\\", "N x", 'RUN ["a"] <<E',
    "RUN cat <<E \\",
])  # fmt: skip
heads = st.sampled_from([
    [], ["# escape=`"], ["FROM a"], ["#escape = `", "# check=x"],
    ["# syntax=docker/dockerfile:1", "# escape=\\"], ["# note", "# escape=`"], ["", "# escape=`"],
    ["# escape=^"], ["# check=a", "# check=b"], [" # ESCAPE=`\r"], ["\ufeffFROM a"],
    ["\ufeff# escape=`"], ["#!/x", "# escape=`"],
])  # fmt: skip
documents = st.builds(
    lambda head, body, end, last: end.join([*head, *body]) + last,
    heads,
    st.lists(rows | whole, max_size=14),
    st.sampled_from(["\n", "\n", "\r\n"]),
    st.sampled_from(["", "\n", "\r\n"]),
)


@settings(max_examples=600)
@given(documents)
@example("RUN\\\n\\\n\\\n  x \\")
@example("# escape=`\nRUN a\\\nRUN b``\nRUN c`\n# d\n\n")
@example("RUN cat <<E'F' \\\r\n # c\r\n\r\n y\r\nEF\r\nRUN z")
def test_lines_are_those_that_a_second_joiner_finds(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    try:
        expected = join(data)
    except Refused:
        with pytest.raises(DockerfileError):
            parse_source(data, "Dockerfile")
        return
    lines = parse_source(data, "Dockerfile").lines
    assert [
        Joined(
            first=line.span.start,
            last=line.span.end,
            text=line.original,
            bodies=tuple(
                Body(name=doc.name, bare=doc.expand, fd=str(doc.fd or ""), text=doc.content)
                for doc in line.heredocs
            ),
        )
        for line in lines
    ] == expected
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
