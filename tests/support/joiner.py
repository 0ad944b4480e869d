"""A second joiner of Dockerfile lines, to be compared with `img.dockerfile.source`.

Written from the rules of the Dockerfile reference ("Format", "Parser directives", "Here-documents"), one
physical line and one character after another, with no regular expression, no rewriting and no
dockerfile-parse, and sharing no code with what it checks. It says what the instructions are, not what is
wrong with them: a text that is refused raises `Refused`.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field

BLANKS = set("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | set(map(chr, range(0x2000, 0x200B)))
LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
PARTING = set("\t\v\f\r ")
DIRECTIVES = {"syntax", "escape", "check"}


class Refused(Exception):
    """The text is no Dockerfile."""


@dataclass(frozen=True)
class Body:
    """A here-document: its end word, whether the word was bare, its descriptor, and its text."""

    name: str
    bare: bool
    fd: str
    text: str


@dataclass(frozen=True)
class Joined:
    """An instruction: its first and last line, its text on one line, its here-documents."""

    first: int
    last: int
    text: str
    bodies: tuple[Body, ...] = ()


@dataclass
class Mark:
    """A `<<NAME` that a line holds."""

    fd: str = ""
    dash: bool = False
    name: str = ""
    bare: bool = True


@dataclass
class Joiner:
    """Takes lines off the front of `todo` until none is left. Line numbers count from 1."""

    todo: deque[tuple[int, str]]
    escape: str = "\\"
    found: list[Joined] = field(default_factory=list)

    def run(self) -> list[Joined]:
        """Gives the instructions."""
        self.directives()
        while self.todo:
            number, line = self.todo.popleft()
            line = strip_front(line.rstrip("\r"))
            if line and line[0] != "#":
                self.instruction(number, line)
        return self.found

    def directives(self) -> None:
        """Takes the directives at the top; only the escape matters here."""
        seen: set[str] = set()
        while self.todo:
            name, value = directive(self.todo[0][1].rstrip("\r"))
            if name not in DIRECTIVES:
                return
            if name in seen:
                raise Refused("twice")
            seen.add(name)
            if name == "escape":
                if value not in ("\\", "`"):
                    raise Refused("escape")
                self.escape = value
            self.todo.popleft()

    def instruction(self, first: int, line: str) -> None:
        """Takes one instruction, whose first line is off already."""
        last, text = first, ""
        while True:
            kept, goes_on = self.without_escape(line)
            text += kept
            while goes_on and self.todo and not strip_front(self.todo[0][1])[:1].strip("#\r"):
                last = self.todo.popleft()[0]  # an empty line or a comment
            if not goes_on or not self.todo:
                break
            last, line = self.todo.popleft()
            line = line.rstrip("\r")
        text = strip_back(strip_front(text))
        if not text:
            raise Refused("nothing")
        bodies = []
        for mark in marks(text) if may_have_bodies(text) else []:
            last, body = self.body(mark)
            bodies.append(Body(name=mark.name, bare=mark.bare, fd=mark.fd, text=body))
        self.found.append(Joined(first=first, last=last, text=text, bodies=tuple(bodies)))

    def without_escape(self, line: str) -> tuple[str, bool]:
        """A line without the escape that continues it, and whether it has one."""
        bare = line.rstrip(" \t")
        if bare.endswith(self.escape) and not bare.endswith(self.escape * 2):
            return bare[:-1], True
        return line, False

    def body(self, mark: Mark) -> tuple[int, str]:
        """Takes a here-document's lines, its last among them."""
        text = ""
        while self.todo:
            number, line = self.todo.popleft()
            while mark.dash and line.startswith("\t"):
                line = line[1:]
            if line.rstrip("\r\n") == mark.name:
                return number, text
            text += line + "\n"
        raise Refused("open")


def join(data: bytes) -> list[Joined]:
    """Gives the instructions of a Dockerfile.

    Raises:
        Refused: it is none.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Refused("UTF-16")
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    if not lines[-1]:
        del lines[-1]
    return Joiner(deque(enumerate(lines, 1))).run()


def strip_front(text: str) -> str:
    """Without the blanks before it."""
    start = 0
    while start < len(text) and text[start] in BLANKS:
        start += 1
    return text[start:]


def strip_back(text: str) -> str:
    """Without the blanks after it."""
    return strip_front(text[::-1])[::-1]


def directive(line: str) -> tuple[str, str]:
    """Name and value of `# name=value`; both empty where the line is none."""
    line = strip_front(line)
    if not line.startswith("#"):
        return "", ""
    name, equals, value = strip_front(line[1:]).partition("=")
    name, value = name.rstrip(" \t\f\r"), value.strip(" \t\f\r")
    letters = LETTERS | set("0123456789")
    if not (equals and value and name and name[0] in LETTERS and set(name) <= letters):
        return "", ""
    return name.lower(), value


def keyword(text: str) -> tuple[str, str]:
    """The first word, upper-case, and the rest."""
    for position, char in enumerate(text):
        if char in PARTING:
            return text[:position].upper(), text[position:].lstrip("".join(PARTING))
    return text.upper(), ""


def without_flags(text: str) -> str:
    """What follows `--flag` words; `--` alone ends them."""
    text = strip_front(text)
    while text.startswith("--"):
        position, quote = 0, ""
        while position < len(text) and (quote or text[position] not in BLANKS):
            char = text[position]
            if char == "\\":
                position += 1
            elif quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            position += 1
        word, text = text[:position], strip_front(text[position:])
        if word == "--":
            break
    return text


def may_have_bodies(text: str) -> bool:
    """Whether `<<` in this instruction starts here-documents."""
    name, rest = keyword(text)
    if name == "ONBUILD":
        name, rest = keyword(without_flags(rest))
    if name not in ("RUN", "COPY", "ADD"):
        return False
    try:
        return not isinstance(json.loads(without_flags(rest)), list)
    except (ValueError, RecursionError):
        return True


def marks(text: str) -> list[Mark]:
    """The here-documents that a line starts; none where a quote stays open, for then the shell decides."""
    words = shell_words(text)
    found = (mark(word) for word in words or [])
    return [one for one in found if one is not None]


def shell_words(text: str) -> list[str] | None:
    """Words with their quotes, `<<` and the word after it in one; None where a quote stays open."""
    words, word, position = [], "", 0
    while position < len(text):
        char = text[position]
        if char in "'\"":
            end = closing(text, position)
            if end < 0:
                return None
            word += text[position : end + 1]
            position = end
        elif char == "\\":
            word += text[position : position + 2]
            position += 1
        elif text.startswith("<<", position):
            word += "<<"
            position += 2
            while position < len(text) and text[position] in " \t\r":
                word += text[position]
                position += 1
            continue
        elif char in BLANKS:
            words.append(word)
            word = ""
        else:
            word += char
        position += 1
    return [word for word in [*words, word] if word]


def closing(text: str, start: int) -> int:
    """Where the quote that opens at `start` closes; -1 where it does not."""
    position = start + 1
    while position < len(text):
        if text[position] == "\\" and text[start] == '"':
            position += 1
            if position >= len(text):
                return -1
        elif text[position] == text[start]:
            return position
        position += 1
    return -1


def mark(word: str) -> Mark | None:
    """A word as the start of a here-document."""
    one = Mark()
    while word[:1].isdecimal():
        one.fd, word = one.fd + word[0], word[1:]
    if not word.startswith("<<"):
        return None
    word = word[2:]
    if word.startswith("-"):
        one.dash, word = True, word[1:]
    word = word.lstrip(" \t\r")
    if "<" in word:
        return None
    position = 0
    while position < len(word):
        char = word[position]
        if char in "'\"":
            end = closing(word, position)
            inside = word[position + 1 : end]
            one.name += unescaped(inside) if char == '"' else inside
            one.bare = False
            position = end
        elif char == "\\":
            position += 1
            one.name += word[position : position + 1]
            one.bare = False
        else:
            one.name += char
        position += 1
    return one if one.name else None


def unescaped(text: str) -> str:
    """The inside of double quotes: a backslash goes before a quote, a dollar sign and itself."""
    result, position = "", 0
    while position < len(text):
        if text[position] == "\\" and text[position + 1 : position + 2] in ('"', "$", "\\"):
            position += 1
        result += text[position]
        position += 1
    return result
