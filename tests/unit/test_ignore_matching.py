"""The ignore matcher against a slow one that is written from its rules, and against a table.

The slow one makes a regular expression of each pattern, as the reference matcher does, and asks every
pattern about a path and each of its parents; the last that matches decides.
Source: Dockerfile reference, ".dockerignore file"; Go's `filepath.Match`.
"""

from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from img import _core
from img.context import Context
from img.errors import CopyError, DockerfileError


def expression(pattern: str) -> str:
    """The regular expression of a cleaned pattern."""
    made, rest = "", pattern
    while rest:
        if rest.startswith("**"):
            rest = rest[2:].removeprefix("/")
            made += "(.*/)?" if rest else ".*"
        elif rest[0] == "*":
            made, rest = made + "[^/]*", rest[1:]
        elif rest[0] == "?":
            made, rest = made + "[^/]", rest[1:]
        elif rest[0] == "\\":
            made, rest = made + rest[:2], rest[2:]
        else:
            made, rest = made + ("\\" + rest[0] if rest[0] in ".+()|{}$" else rest[0]), rest[1:]
    return made


def cleaned(pattern: str) -> str:
    """A pattern as the matcher compares it: no empty names, no dots, no slash at either end."""
    path = posixpath.normpath(pattern)
    return path if path.strip("/") == "" else path.lstrip("/")


def matches(pattern: str, path: str) -> bool:
    """Does one cleaned pattern match one path?"""
    if not set(pattern) & set("*?[]\\"):
        return pattern == path
    plain = re.sub(r"\*\*/?", "", pattern)
    if not set(plain) & set("*?[]\\") and pattern.count("**") == 1:
        if pattern.startswith("**"):
            tail = pattern[2:]
            return path.endswith(tail) or (tail[:1] == "/" and path == tail[1:])
        if pattern.endswith("**"):
            return path.startswith(pattern[:-2])
    return re.fullmatch(expression(pattern), path, re.ASCII) is not None


def slowly(lines: list[str], path: str) -> bool:
    """Is the path taken out?"""
    out = False
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in lines:
        body = line.strip()
        exception = body.startswith("!")
        pattern = cleaned(body[1:].strip() if exception else body)
        if not exception:  # read once more, blanks and all
            pattern = cleaned(pattern.strip()) if body and pattern.strip() else ""
        if pattern and any(matches(pattern, name) for name in above):
            out = not exception
    return out


def quickly(lines: list[str], path: str) -> bool:
    return _core.IgnoreRules(lines).excluding(path) is not None


PIECES = [
    "a",
    "b",
    "ab",
    ".",
    "..",
    "/",
    "/",
    "*",
    "*",
    "**",
    "**/",
    "/**",
    "?",
    "[ab]",
    "[^a]",
    "\\.",
    "\\*",
    "+",
    " ",
]
patterns = st.builds(
    lambda mark, pieces: mark + "".join(pieces),
    st.sampled_from(["", "", "", "!", "/"]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
)
paths = st.lists(
    st.text("ab.*+", min_size=1, max_size=3).filter(lambda n: n not in (".", "..")), min_size=1, max_size=4
).map("/".join)


def nothing_follows(line: str) -> bool:
    """A `!` and nothing, or the root: the one mistake that can be made of `PIECES`."""
    body = line.strip()
    return body.startswith("!") and re.sub(r"/+", "/", posixpath.normpath(body[1:].strip() or "/")) == "/"


@given(st.lists(patterns, max_size=6), paths)
def test_the_matcher_and_the_slow_one_agree(lines: list[str], path: str) -> None:
    try:
        out = quickly(lines, path)
    except CopyError:
        assert any(nothing_follows(line) for line in lines)
        return
    assert out == slowly(lines, path)


TABLE = """
foo | foo foo/bar | bar/foo foobar
/foo | foo foo/x | a/foo
./foo/ | foo foo/x | a/foo
foo/bar | foo/bar foo/bar/x | foo foo/baz bar
foo//bar/../baz | foo/baz | foo/bar
../foo | | foo
/../foo | foo | a/foo
. | | foo
/ | | foo
* | foo foo/bar .x |
*.go | a.go .go a.go/x | d/a.go a.g
*/*.go | d/a.go | a.go d/e/a.go
a* | a ab ab/c | ba b/a
a*c | ac abc | a/c abcd
*/foo | a/foo a/foo/x | foo a/b/foo
??? | abc | ab abcd
a?b | axb | a/b ab
? | é | éx
** | a a/b |
**/*.go | a.go x/y/a.go | a.g
**/foo | foo a/foo a/b/foo/c | a/xfoo foox
**foo | foo xfoo a/xfoo | foox/y
foo** | foo foobar foo/x foobar/x | xfoo
foo/** | foo/x foo/x/y | foo foox
foo/**/bar | foo/bar foo/x/bar foo/x/y/bar/z | foobar foo/xbar
a**b | ab ax/b | axb
**/a/** | a/x x/a/y | a x/a
**/.git | .git a/.git/config | a.git
**/x* | x1 a/x/b | ax
a/***/b | a/x/y/b | a/b/c
[a-c]x | ax cx | dx x
[^a-c]x | dx | ax
[\\]a]x | ]x ax | bx
[a\\-c] | a - c | b
[*] | [] | *
[?] | ^] | ?
[[:alpha:]]x | ax | :x
\\*.txt | *.txt | a.txt
a\\?b | a?b | axb
a\\d | a7 | ad
a.c | a.c | abc
a+(b)|{c}$ | a+(b)|{c}$ | ab
foo bar | foo bar | foo
* !foo | bar foo2 | foo foo/x
foo !foo/bar | foo foo/baz | foo/bar foo/bar/x
foo !foo/bar foo/bar/x | foo/bar/x foo/bar/x/y | foo/bar/y
!foo foo | foo |
!foo | | foo
*.md !README*.md README-secret.md | a.md README-secret.md | README.md README-x.md
*.md README-secret.md !README*.md | a.md | README-secret.md
** !**/keep | a a/b | keep a/keep a/keep/b
** !a/b/c | a a/b a/d | a/b/c a/b/c/d
docs/* !docs/*.md | docs/a docs/d/e.md | docs docs/x.md
* !*/keep | a a/b keep | a/keep
/a/b !/a/b/c !a/b | | a/b a/b/c
**/node_modules !web/node_modules/keep | a/node_modules web/node_modules/x | web/node_modules/keep/y
"""


def rows() -> list[tuple[list[str], str, bool]]:
    found = []
    for row in TABLE.strip().splitlines():
        lines, out, kept = (part.strip() for part in f"{row} ".rsplit("| ", 2))
        words = [lines] if lines == "foo bar" else lines.split()
        paths = {True: [out] if lines == "foo bar" else out.split(), False: kept.split()}
        found += [(words, path.strip(), state) for state, names in paths.items() for path in names]
    return found


def test_the_table_holds() -> None:
    assert len(rows()) >= 140
    for lines, path, out in rows():
        lines = [line.replace("\\\\", "\\") for line in lines]
        assert quickly(lines, path) == out, (lines, path)
        if not any("[" in line or "\\" in line for line in lines):
            assert slowly(lines, path) == out, (lines, path)


@pytest.mark.parametrize(
    "line", ["[a", "[]", "[-x]", "a\\", "!", "!/", "[a-]", "[z-a]", "a\\q", "x\\b", "[[:no:]]"]
)
def test_a_pattern_that_is_none_is_named_with_its_place(line: str, tmp_path: object) -> None:
    with pytest.raises(DockerfileError) as caught:
        Context.ignoring(tmp_path, ".", f"# no\n\n{line}\n".encode(), "x.dockerignore")  # type: ignore[arg-type]
    assert (caught.value.path, caught.value.line, caught.value.excerpt) == ("x.dockerignore", 3, line)


def test_the_line_that_takes_a_path_out_is_told(tmp_path: object) -> None:
    data = b"# first\n*.md\n\n!a.md\ndocs\n"
    context = Context.ignoring(tmp_path, ".", data, ".dockerignore")  # type: ignore[arg-type]
    told = {path: context.ignored_by(path) for path in ("b.md", "/a.md", "./docs/../docs/x", "src")}
    assert told == {"b.md": ".dockerignore:2", "/a.md": "", "./docs/../docs/x": ".dockerignore:5", "src": ""}
