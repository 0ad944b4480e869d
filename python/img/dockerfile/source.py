"""`parse_source`: from a Dockerfile's bytes to its `Line`s, one for each instruction.

dockerfile-parse is the tokenizer, and this is the only file that knows it. It has no here-documents,
no `check` directive, and other ideas than BuildKit of blank lines in continuations, of `\\\\` at a
line's end and of the file's end. So the text is first rewritten, line for line, into one that both
read alike, and its answers are taken back through the same rewriting. Nothing touches the disk.
Source: Dockerfile reference, "Format", "Parser directives", "Here-Documents".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from io import StringIO

from img import regex
from img.dockerfile.checks.rules import finding
from img.dockerfile.faults import fault
from img.dockerfile.findings import Finding
from img.dockerfile.instructions import Heredoc, Span
from img.dockerfile.words import BLANKS, GO_SPACES, NotStrings, heredoc_marks, json_words, split_flags
from img.errors import DockerfileError
from img.values import dataclass, field

_DIRECTIVE = regex.compile(rf"(#|//)[{GO_SPACES}]*([a-zA-Z][a-zA-Z0-9]*)[\t\f\r ]*=(.*)", re.DOTALL)
_DIRECTIVES = ("syntax", "escape", "check")
_WITH_HEREDOC = ("RUN", "COPY", "ADD")

# Code points that decoded UTF-8 never holds (surrogateescape uses U+DC80 to U+DCFF only).
_GUARD = "\ud800"
_ODD_BLANKS = "\x1c\x1d\x1e\x1f" + "".join(c for c in GO_SPACES if c > "\x7f")
_HIDE = {ord(char): chr(0xD801 + n) for n, char in enumerate(_ODD_BLANKS)}
_SHOW = {ord(hidden): chr(char) for char, hidden in _HIDE.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instruction, its lines joined.

    Attributes:
        keyword: Upper-case.
        value: What follows the keyword, flags included, without blanks at its ends.
        original: Keyword and value as written, on one line.
        span: Its physical lines, bodies of here-documents included.
        escape: The escape character in force.
    """

    keyword: str
    value: str
    original: str
    span: Span
    escape: str
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Dockerfile as lines, with its directives (empty where not given).

    Attributes:
        spans: Where each directive that was given stands.
        comments: The comments right above an instruction, by its first line.
    """

    path: str
    lines: tuple[Line, ...]
    escape: str = "\\"
    syntax: str = ""
    check: str = ""
    spans: Mapping[str, Span] = field(default_factory=dict)
    comments: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[Finding, ...] = ()


def parse_source(data: bytes, path: str, *, on_syntax: Callable[[str, Span], object] | None = None) -> Source:
    """Splits a Dockerfile into instructions.

    Args:
        data: The file. Bytes that are not UTF-8 pass through as surrogate escapes.
        path: Its name, for errors.
        on_syntax: Called with the syntax directive before anything else is read: what is written in
            another language need not be lines of this one.
    Returns:
        Its instructions in order; none for a file that has none.
    Raises:
        DockerfileError: a directive is wrong or given twice, a here-document does not end, or a
            continuation continues nothing.
    """
    rewriting = _Rewriting(_decode(data, path), path)
    rewriting.run(on_syntax)
    lines = tuple(_tokenize(rewriting))
    if len(lines) != len(rewriting.statements):  # never silently build less than was written
        raise DockerfileError("an instruction was lost while reading", path=path)
    return Source(
        path=path,
        lines=lines,
        escape=rewriting.escape,
        syntax=rewriting.directives.get("syntax", ""),
        check=rewriting.directives.get("check", ""),
        spans=rewriting.spans,
        comments=rewriting.comments,
        warnings=tuple(rewriting.warnings),
    )


def _decode(data: bytes, path: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DockerfileError("the file is UTF-16", path=path, hint="save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


@dataclass(slots=True, kw_only=True)
class _Statement:
    """Where one instruction stands, by line number from 0, and what was found on the way."""

    start: int
    end: int
    head: str
    heredocs: tuple[Heredoc, ...] = ()


class _Rewriting:
    """Goes over the lines once and writes, for each, the line that dockerfile-parse shall see."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.lines = text.split("\n")
        if not self.lines[-1]:
            self.lines.pop()  # what follows the last line end is no line
        self.rewritten = ["#"] * len(self.lines)
        self.statements: dict[int, _Statement] = {}
        self.directives: dict[str, str] = {}
        self.spans: dict[str, Span] = {}
        self.comments: dict[int, tuple[str, ...]] = {}
        self.warnings: list[Finding] = []
        self.escape = "\\"
        self.continues = _continuation(self.escape)

    def run(self, on_syntax: Callable[[str, Span], object] | None) -> None:
        """Fills `rewritten`, `statements`, `directives` and `warnings`."""
        position = self._read_directives()
        if not self.spans:
            self._read_foreign_directives()
        if on_syntax and "syntax" in self.directives:
            on_syntax(self.directives["syntax"], self.spans["syntax"])
        self.continues = _continuation(self.escape)
        above: list[str] = []
        while position < len(self.lines):
            line = self.lines[position].lstrip(GO_SPACES)
            if line.startswith("#"):
                above.append(line[1:].strip(GO_SPACES))
                position += 1
                continue
            if not line:
                position += 1
            else:
                if above:
                    self.comments[position + 1] = tuple(above)
                position = self._statement(position)
            above = []

    def _read_directives(self) -> int:
        """Reads the directives at the top; gives the number of the first line after them.

        Docker looks for `syntax` and `check` before the lines' own blanks are taken off: from the
        first line on that has some, they say nothing.
        """
        flush = True
        for number, line in enumerate(self.lines):
            bare = line.lstrip(GO_SPACES).rstrip("\r")
            mark, name, value = _directive(bare)
            if mark != "#":
                return number
            span = self._span(number, number)
            if name in self.spans:
                first = self.spans[name]
                message = f"only one {name} directive can be used"
                raise fault(span, message, at=bare, hint="keep one of them", also=(first,))
            self.spans[name] = span
            flush = flush and line.startswith("#")
            if flush or name == "escape":
                self.directives[name] = value
            if name == "escape":
                if value not in ("\\", "`"):
                    hint = "write # escape=` or # escape=\\"
                    raise fault(span, f"the escape character cannot be {value!r}", at=value, hint=hint)
                self.escape = value
            self.rewritten[number] = f"# escape={value}" if name == "escape" else "# syntax=_"
        return len(self.lines)

    def _read_foreign_directives(self) -> None:
        """Reads `syntax` and `check` where other languages have them: after `#!`, after `//`, in JSON.

        A file that has them so is no Dockerfile unless its first line is `#!`, a comment.
        """
        start = 1 if self.lines and self.lines[0].startswith("#!") else 0
        for mark in ("#", "//") if start else ("//",):
            for number, line in enumerate(self.lines[start:], start):
                found, name, value = _directive(line.rstrip("\r"))
                if found != mark or name in self.directives:
                    break
                if name == "syntax" or (name == "check" and mark == "#"):
                    self.directives[name] = value
                    self.spans[name] = self._span(number, number)
        if "syntax" not in self.directives and self.lines[start:] and self.lines[start].startswith("{"):
            self._read_json_syntax(start)

    def _read_json_syntax(self, start: int) -> None:
        try:
            data = json.loads("\n".join(self.lines[start:]))
        except (ValueError, RecursionError):
            return
        if isinstance(data, dict) and isinstance(data.get("syntax"), str):
            self.directives["syntax"] = data["syntax"]
            self.spans["syntax"] = self._span(start, start)

    def _statement(self, start: int) -> int:
        """Takes the instruction that starts on a line; gives the number of the line after it."""
        parts, position = self._join(start)
        self._write(parts)
        statement = _Statement(start=start, end=position - 1, head=self.rewritten[start])
        joined = "".join(text for _, text in parts).strip(GO_SPACES)
        if not joined:
            span = self._span(start, position - 1)
            raise fault(span, "a line continuation with no instruction", hint="remove the line")
        if "<<" in joined and _can_have_heredoc(joined):
            statement.heredocs, position = self._heredocs(joined, start, position)
            statement.end = position - 1
        self.statements[start] = statement
        return position

    def _join(self, start: int) -> tuple[list[tuple[int, str]], int]:
        """Gives the parts of a logical line, each with its line number, and the next line's number."""
        parts: list[tuple[int, str]] = []
        blank = False
        position = start
        going = True
        while going and position < len(self.lines):
            line = self.lines[position].rstrip("\r")
            number = position
            position += 1
            bare = line.lstrip(GO_SPACES)
            if number == start:
                line = bare
            elif not bare or bare.startswith("#"):
                blank = blank or not bare
                continue
            match = self.continues.search(line)
            going = match is not None
            parts.append((number, line[: match.start()] if match else line))
        if blank:
            self.warnings.append(self._empty_line(start, position))
        return parts, position

    def _empty_line(self, start: int, end: int) -> Finding:
        """The finding, at the last line of what is continued: there BuildKit notices."""
        span = self._span(start, end - 1)
        text = "an empty line inside a continued instruction"
        return finding("NoEmptyContinuation", span, text, line=end)

    def _write(self, parts: list[tuple[int, str]]) -> None:
        """Writes a logical line's parts, so guarded that the tokenizer strips and joins as wanted."""
        first, begun = parts[0][0], parts[0][1].lstrip(GO_SPACES)
        words = [begun]
        used = 1
        # The keyword and the blank after it must stand on one line.
        while used < len(parts) and not BLANKS.search(words[-1]):
            words.append(parts[used][1] if begun else parts[used][1].lstrip(GO_SPACES))
            begun = begun or words[-1]
            used += 1
        head = _hide("".join(words))
        if not BLANKS.search(head):
            head += " "
        rows = [(first, head), *((number, _hide(text)) for number, text in parts[used:])]
        for index, (number, row) in enumerate(rows):
            end = self.escape if index < len(rows) - 1 else ""
            self.rewritten[number] = row + _GUARD + end

    def _heredocs(self, joined: str, start: int, position: int) -> tuple[tuple[Heredoc, ...], int]:
        """Takes the bodies that a logical line asks for; gives them and the next line's number."""
        found: list[Heredoc] = []
        for mark in heredoc_marks(joined):
            body: list[str] = []
            while True:
                if position >= len(self.lines):
                    span = self._span(start, start)
                    hint = f"end it with a line that holds {mark.name} and nothing else"
                    message = f"the here-document {mark.name} does not end"
                    raise fault(span, message, at="<<", hint=hint)
                line = self.lines[position] + "\n"
                position += 1
                line = line.lstrip("\t") if mark.chomp else line
                if line.rstrip("\r\n") == mark.name:
                    break
                body.append(line)
            content = "".join(body)
            found.append(
                Heredoc(name=mark.name, content=content, expand=mark.expand, chomp=mark.chomp, fd=mark.fd)
            )
        return tuple(found), position

    def _span(self, start: int, end: int) -> Span:
        text = "\n".join(self.lines[start : end + 1])
        if "\r" in text:
            text = "\n".join(line.rstrip("\r") for line in text.split("\n"))
        return Span(path=self.path, start=start + 1, end=end + 1, text=text)

    def span(self, statement: _Statement) -> Span:
        """Where a statement stands, here-documents included."""
        return self._span(statement.start, statement.end)


def _directive(line: str) -> tuple[str, str, str]:
    """The mark, the name and the value of a directive; all empty where a line is none."""
    match = _DIRECTIVE.fullmatch(line)
    mark, name, value = match.groups() if match else ("", "", "")
    value = value.strip("\t\f\r ")
    return (mark, name.lower(), value) if value and name.lower() in _DIRECTIVES else ("", "", "")


def _hide(text: str) -> str:
    """Gives blanks that only one of Go and Python takes for such a shape that neither does."""
    return text if text.isascii() and text.isprintable() else text.translate(_HIDE)


def _show(text: str) -> str:
    """Takes the guards out, and `_hide` back."""
    text = text.replace(_GUARD, "")
    return text if text.isascii() else text.translate(_SHOW)


def _continuation(escape: str) -> re.Pattern[str]:
    """Matches the escape that continues a line: one at its end that is not itself escaped."""
    char = re.escape(escape)
    return re.compile(rf"(?<!{char}){char}[ \t]*\Z")


def _can_have_heredoc(joined: str) -> bool:
    keyword, _, value = _cut(joined)
    if keyword.upper() == "ONBUILD":
        keyword, _, value = _cut(split_flags(value)[1])
    if keyword.upper() not in _WITH_HEREDOC:
        return False
    try:
        return json_words(split_flags(value)[1]) is None
    except NotStrings:
        return False


def _cut(text: str) -> tuple[str, str, str]:
    """A line's keyword, the blanks after it, and the rest."""
    match = BLANKS.search(text)
    if match is None:
        return text, "", ""
    return text[: match.start()], match.group(), text[match.end() :]


def _tokenize(rewriting: _Rewriting) -> Iterator[Line]:
    """Has dockerfile-parse read the rewritten lines, and gives its instructions as ours."""
    from dockerfile_parse import DockerfileParser  # costs some milliseconds: not for `img version`

    text = "\n".join(rewriting.rewritten) + "\n"
    for found in DockerfileParser(fileobj=StringIO(text), env_replace=False).structure:
        statement = rewriting.statements.get(found["startline"])
        if statement is None:
            continue  # a comment, or a line blanked out above
        keyword, blanks, _ = _cut(_show(statement.head))
        value = _show(found["value"])
        yield Line(
            keyword=keyword.strip(GO_SPACES).upper(),
            value=value.strip(GO_SPACES),
            original=(keyword + blanks + value).strip(GO_SPACES),
            span=rewriting.span(statement),
            escape=rewriting.escape,
            heredocs=statement.heredocs,
        )
