"""How the text after a keyword falls into words: flags, JSON lists, blanks, quoted words, `<<NAME`.

Pure functions over one joined line; `source` and `grammar` call them. Nothing is expanded here and
quotes are kept (`expand` takes them off), except in flags, which have no expansion of quotes later.
Source: Dockerfile reference, "Shell and exec form", "Here-Documents", and each instruction's forms.
"""

from __future__ import annotations

import json
import re
from functools import cache

from img import regex
from img.values import dataclass

GO_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
GO_SPACES += "\u2028\u2029\u202f\u205f\u3000"
"""What Go's `unicode.IsSpace` takes for a blank (Python's `str.isspace` takes four more)."""

BLANKS = regex.compile(r"[\t\v\f\r ]+")
_MARK = regex.compile(r"(\d*)<<(-?)[\t\r ]*([^<]*)", re.DOTALL)
_SPACES = regex.compile(f"[{GO_SPACES}]+")
_SURROGATE = regex.compile("[\ud800-\udfff]")
_QUOTES = "\"'"


class NotStrings(ValueError):
    """A JSON list holds something that is not a string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeredocMark:
    """A word `[fd]<<[-]NAME`. `expand` is False where any of the name was quoted."""

    name: str
    expand: bool
    chomp: bool
    fd: int


def split_flags(text: str) -> tuple[tuple[str, ...], str]:
    """Takes the leading `--name[=value]` words off.

    A lone `--` ends the flags. Quotes and backslashes in a flag are taken off at once; the escape
    directive does not reach here.

    Returns:
        The flags with their dashes, and what follows them.
    """
    flags: list[str] = []
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in GO_SPACES:
            position += 1
        if not text.startswith("--", position):
            return tuple(flags), text[position:].strip(GO_SPACES)
        word, position = _flag_word(text, position)
        if word == "--":
            return tuple(flags), text[position:].strip(GO_SPACES)
        flags.append(word)


_PLAIN = regex.compile(rf"[^{GO_SPACES}\"'\\]+")


def _flag_word(text: str, position: int) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    end = len(text)
    while position < end:
        char = text[position]
        plain = None if quote else _PLAIN.match(text, position)
        if plain:
            word.append(plain.group())
            position = plain.end()
            continue
        if char == "\\":
            position += 1
            word.append(text[position : position + 1])
        elif quote:
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif char in GO_SPACES:
            break
        else:
            quote = char
        position += 1
    return "".join(word), min(position, end)


def json_words(text: str) -> tuple[str, ...] | None:
    """Reads the exec form.

    Returns:
        The list's strings, or None where the text is no JSON list (it is the shell form then).
    Raises:
        NotStrings: it is a JSON list, but not of strings alone.
    """
    if "[" not in text or not text.lstrip(GO_SPACES).startswith("["):
        return None
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise NotStrings("a list in JSON form may hold strings only")
    return tuple(_SURROGATE.sub("\ufffd", value) for value in values)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def blank_words(text: str) -> tuple[str, ...]:
    """Splits at blanks alone: quotes and escapes do not bind (FROM, COPY, ADD, EXPOSE, VOLUME)."""
    return tuple(word for word in BLANKS.split(text) if word)


def quoted_words(text: str, escape: str) -> tuple[str, ...]:
    """Splits at blanks that are neither quoted nor escaped; quotes and escapes stay (ENV, LABEL, ARG).

    An escape that ends the text is dropped; a quote that is never closed takes the rest.
    """
    if escape not in text and '"' not in text and "'" not in text:
        return tuple(word for word in _SPACES.split(text) if word)
    words: list[str] = []
    word: list[str] = []
    quote = ""
    position, end = 0, len(text)
    while position < end:
        char = text[position]
        position += 1
        if char == escape and quote != "'":
            if position < end:
                word.append(char + text[position])
                position += 1
        elif quote:
            word.append(char)
            quote = "" if char == quote else quote
        elif char in GO_SPACES:
            if word:
                words.append("".join(word))
                word = []
        else:
            word.append(char)
            quote = char if char in _QUOTES else ""
    if word:
        words.append("".join(word))
    return tuple(words)


def heredoc_mark(word: str) -> HeredocMark | None:
    """Reads a word as the start of a here-document, or gives None where it is none."""
    match = _MARK.fullmatch(word) if "<<" in word else None
    if match is None:
        return None
    fd, dash, rest = match.groups()
    name = _bare(rest)
    if not name:
        return None
    return HeredocMark(name=name, expand=name == rest, chomp=bool(dash), fd=int(fd[-9:] or 0))


def heredoc_marks(line: str) -> tuple[HeredocMark, ...]:
    """Finds every here-document that a joined line starts, in order.

    A line whose quotes do not close has none: its `<<` is the shell's business.
    """
    marks = (heredoc_mark(word) for word in _shell_words(line))
    return tuple(mark for mark in marks if mark is not None)


def file_words(text: str) -> tuple[str, ...]:
    """`blank_words`, but with each here-document's mark in one piece (COPY and ADD that have some)."""
    words: list[str] = []
    for word in _shell_words(text):
        words.extend((word,) if heredoc_mark(word) else blank_words(word))
    return tuple(words)


def _shell_words(line: str) -> tuple[str, ...]:
    """Parts a line as a shell would, quotes kept, a `<<` and its name together; none if a quote is open."""
    words: list[str] = []
    word = ""
    for piece in _piece().finditer(line):
        if piece.lastgroup == "open":
            return ()
        if piece.lastgroup == "blank":
            words.append(word)
            word = ""
        else:
            word += piece.group()
    return tuple(word for word in (*words, word) if word)


@cache
def _piece() -> re.Pattern[str]:
    """What words are made of; compiled where a here-document is, which takes two milliseconds."""
    # Arithmetic is one piece, so that the shift in $((1 << 2)) is no mark.
    return re.compile(
        rf"""(?P<blank> [{GO_SPACES}]+ )
    | '(?P<single> [^']* )'
    | "(?P<double> (?: [^"\\] | \\. )* )"
    | (?P<open> ["'] )
    | \\(?P<escaped> .? )
    | (?P<plain> << [\t\r ]*
        | \$\(\( (?: [^()"'\\] | \( [^()"'\\]* \) ){{0,1000}} \)\)
        | [<$]
        | [^{GO_SPACES}"'\\<$]+ )""",
        re.VERBOSE | re.DOTALL,
    )


def _bare(text: str) -> str:
    """A here-document's word without its quotes and escapes; empty where it is not one whole word."""
    bare = ""
    for piece in _piece().finditer(text):
        kind = piece.lastgroup
        if kind in ("blank", "open", None):
            return ""
        inner = piece.group(kind)
        bare += re.sub(r'\\(["$\\])', r"\1", inner) if kind == "double" else inner
    return bare
