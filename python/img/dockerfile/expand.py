"""`expand`: variables and quotes in a Dockerfile's words, as BuildKit's shell lexer has them.

The builder calls it with a stage's variables; the environment of this process is never read.
`$name`, `${name}` and the operators `- + ? # ## % %% / //`, the first three also after `:`.
Source: Dockerfile reference, "Environment replacement"; POSIX shell, section 2.6.2, for operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from img import regex
from img.dockerfile.faults import fault
from img.dockerfile.instructions import Span
from img.dockerfile.near import did_you_mean
from img.dockerfile.patterns import replace, trim
from img.dockerfile.words import GO_SPACES

_SPECIAL = "@*#?-$!"
_PLAIN = regex.compile(r"\$([^\W\d]\w*)|\$\{([^\W\d]\w*)\}")
_DEEPEST = 50


class ExpandError(ValueError):
    """A word cannot be expanded.

    Attributes:
        message: Why, in one clause.
        column: Where in the word, from 1.
        hint: What may help, or empty.
    """

    def __init__(self, message: str, column: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.hint = hint


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Expands variables and takes quotes and escapes off; what has no value becomes nothing.

    Args:
        word: A word, or a whole line, whose blanks are kept.
        variables: Every variable that has a value.
        escape: The Dockerfile's escape character.
    Raises:
        ExpandError: the word is malformed, or `${name:?why}` found no value.
    """
    if "'" not in word and '"' not in word and escape not in word:
        # Most words are as simple as this, and this is many times as fast.
        if "$" not in word:
            return word
        text, count = _PLAIN.subn(lambda found: variables.get(found[1] or found[2]) or "", word)
        if count == word.count("$"):
            return text
    return _Reader(word, variables, escape).read().text


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Expands like `expand`, then splits at blanks that were neither quoted nor escaped.

    Blanks inside a variable's value split too, unless the variable stands in double quotes.
    """
    return _Reader(text, variables, escape).read().words()


def expand_heredoc(content: str, variables: Mapping[str, str]) -> str:
    """Expands variables in the body of a here-document; quotes are plain characters there.

    A backslash protects the next character and vanishes, whatever the escape directive says.
    """
    return _Reader(content, variables, "\\", quotes="").read().text


def expand_at(span: Span, word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """`expand` for a word of an instruction.

    Raises:
        DockerfileError: where `expand` raises ExpandError, pointing into the instruction.
    """
    try:
        return expand(word, variables, escape)
    except ExpandError as error:
        offset = error.column - 1
        raise fault(span, error.message, at=word, offset=offset, hint=error.hint) from error


def near_variable(name: str, variables: Mapping[str, str]) -> str:
    """The hint `did you mean $NAME?` for a variable that has no value, or an empty one."""
    return did_you_mean(name, variables, mark="$")


def referenced(word: str, escape: str = "\\") -> tuple[str, ...]:
    """Names the variables that a word asks for, each once, in order; those of operands included.

    A malformed word gives the names before the mistake.
    """
    asked = _Asked()
    try:
        _Reader(word, asked, escape).read()
    except ExpandError:
        pass
    return tuple(asked.names)


def referenced_heredoc(content: str) -> tuple[str, ...]:
    """Names the variables that `expand_heredoc` would ask for."""
    asked = _Asked()
    try:
        _Reader(content, asked, "\\", quotes="").read()
    except ExpandError:
        pass
    return tuple(asked.names)


class _Asked(Mapping[str, str]):
    """Has a value for every name, and remembers the names."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        self.names[name] = None
        return "x"

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Output:
    """What a reading gave: the text, and which of its characters part words."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, bool]] = []

    def bound(self, text: str) -> None:
        """Adds text whose blanks part nothing (it was quoted or escaped)."""
        self.pieces.append((text, False))

    def free(self, text: str) -> None:
        """Adds text whose blanks part words."""
        self.pieces.append((text, True))

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(text for text, _ in self.pieces)

    def words(self) -> list[str]:
        """The words; empty ones, even quoted, are none."""
        words = [""]
        for text, free in self.pieces:
            if not free:
                words[-1] += text
                continue
            for index, part in enumerate(_SPACES.split(text)):
                if index:
                    words.append("")
                words[-1] += part
        return [word for word in words if word]


_SPACES = regex.compile(f"[{GO_SPACES}]")


class _Reader:
    """Reads one word from left to right. `position` is the next character."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, quotes: str = "\"'") -> None:
        self.text = text
        self.variables = variables
        self.escape = escape
        self.quotes = quotes
        self.special = f"${escape}}}/{quotes}"
        self.position = 0
        self.depth = 0

    def read(self) -> _Output:
        """Reads to the end of the text."""
        output = _Output()
        while self.position < len(self.text):
            self._piece(output, "")
        return output

    def _until(self, stop: str, keep_escapes: str = "") -> str:
        """Reads an operand up to the character `stop`, which is taken too."""
        start = self.position
        if self.depth == _DEEPEST:
            raise ExpandError(f"${{…}} nested more than {_DEEPEST} deep", start + 1)
        self.depth += 1
        output = _Output()
        while self.position < len(self.text):
            if self.text[self.position] == stop:
                self.position += 1
                self.depth -= 1
                return output.text
            self._piece(output, keep_escapes)
        raise ExpandError(f"${{ without its closing {stop!r}", start, "close it, or escape the $")

    def _piece(self, output: _Output, keep_escapes: str) -> None:
        """Reads one character, quoted text or variable. `keep_escapes` is what stands for an escape."""
        char = self.text[self.position]
        if char == "$":
            output.free(self._variable())
        elif char in self.quotes:
            output.bound(self._single() if char == "'" else self._double(keep_escapes))
        elif char == self.escape:
            following = self.text[self.position + 1 : self.position + 2]
            output.bound(keep_escapes + following)
            self.position += 2
        else:
            end = self.position + 1
            while end < len(self.text) and self.text[end] not in self.special:
                end += 1
            output.free(self.text[self.position : end])
            self.position = end

    def _single(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise self._open_quote("single", self.position)
        text = self.text[self.position + 1 : end]
        self.position = end + 1
        return text

    def _double(self, keep_escapes: str) -> str:
        start = self.position
        self.position += 1
        result = ""
        while self.position < len(self.text):
            char = self.text[self.position]
            following = self.text[self.position + 1 : self.position + 2]
            if char == '"':
                self.position += 1
                return result
            if char == "$":
                result += self._variable()
            elif char == self.escape:
                special = following in ('"', "$", self.escape)
                result += keep_escapes + (following if special else char if following else "")
                self.position += 2 if special else 1
            else:
                result += char
                self.position += 1
        raise self._open_quote("double", start)

    def _open_quote(self, kind: str, start: int) -> ExpandError:
        hint = "close it, escape it, or use the JSON form for a word with blanks"
        return ExpandError(f"a {kind} quote that is not closed", start + 1, hint)

    def _variable(self) -> str:
        start = self.position
        self.position += 1
        if not self.text.startswith("{", self.position):
            name = self._name()
            return self._value(name) or "" if name else "$"
        self.position += 1
        if self.text[self.position : self.position + 1] in ("{", "}", ":"):
            raise ExpandError("${ needs the name of a variable", start + 1, "escape a $ that is meant as one")
        name = self._name()
        operator = self._take()
        if operator == "}":
            return self._value(name) or ""
        empty_counts = operator == ":"
        if empty_counts:
            operator = self._take()
        return self._operate(name, operator, empty_counts, start)

    def _operate(self, name: str, operator: str, colon: bool, start: int) -> str:
        """Does what stands after a name. `colon`: an empty value counts as none."""
        if operator in ("-", "+", "?"):
            operand = self._until("}")
            value = self._value(name)
            missing = value is None or (colon and not value)
            if operator == "+":
                return "" if missing else operand
            if not missing:
                return value or ""
            if operator == "-":
                return operand
            why = operand or ("has no value" if value is None else "is empty")
            hint = "" if value is not None else near_variable(name, self.variables)
            hint = hint or f"give it with --build-arg {name}=…, ARG or ENV"
            raise ExpandError(f"{name}: {why}", start + 1, hint)
        if operator in ("#", "%") or (operator == "/" and not colon):
            return self._match(name, operator, start)
        if not operator:
            raise ExpandError("${ without its closing '}'", start + 1, "close it, or escape the $")
        shown = (":" if colon else "") + operator
        hint = "the operators are - + ? # ## % %% / //"
        raise ExpandError(f"${{{name}…}} knows no operator {shown!r}", start + 1, hint)

    def _match(self, name: str, operator: str, start: int) -> str:
        """Does what an operator with a pattern asks for."""
        count = 1
        if operator == "/" and self.text.startswith("/", self.position):
            self.position += 1
            count = 0
        glob = self._until("/" if operator == "/" else "}", self.escape)
        replacement = self._until("}", self.escape) if operator == "/" else ""
        value = self._value(name) or ""
        try:
            if operator == "/":
                return replace(value, glob, replacement, count=count)
            return trim(value, operator, glob)
        except ValueError as error:
            raise ExpandError(str(error), start + 1) from error

    def _take(self) -> str:
        char = self.text[self.position : self.position + 1]
        self.position += 1
        return char

    def _name(self) -> str:
        """Takes a name: letters, digits and `_`; or digits alone; or one special parameter."""
        match = _NAME.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return match.group() if match else ""

    def _value(self, name: str) -> str | None:
        try:
            return self.variables[name]
        except KeyError:
            return None


_NAME = regex.compile(rf"\d+|[{re.escape(_SPECIAL)}]|\w+")
