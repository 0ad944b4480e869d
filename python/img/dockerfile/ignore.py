"""`parse_ignore`: the patterns of a `.dockerignore` file. Matching them is not done here.

Source: Dockerfile reference and Docker's build context documentation, ".dockerignore files".
"""

from __future__ import annotations

from img.dockerfile.words import GO_SPACES


def numbered_ignore(data: bytes) -> tuple[tuple[int, str], ...]:
    """As `parse_ignore`, with the line of each pattern, from 1."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = enumerate(text.split("\n"), 1)
    found = ((number, line.strip(GO_SPACES)) for number, line in lines if not line.startswith("#"))
    return tuple((number, line) for number, line in found if line)


def parse_ignore(data: bytes) -> tuple[str, ...]:
    """Reads the patterns, in the file's order (the last that matches decides).

    Args:
        data: The file. Bytes that are not UTF-8 pass through as surrogate escapes.
    Returns:
        Patterns as written, `!` included, without blanks at their ends; comments (`#` as a line's
        very first character) and empty lines left out.
    """
    return tuple(line for _, line in numbered_ignore(data))


def ignore_names(dockerfile_name: str) -> tuple[str, ...]:
    """Where patterns may stand, first found first used: `<Dockerfile>.dockerignore`, then the common one.

    Args:
        dockerfile_name: The Dockerfile's path below the context; empty where it came by other ways.
    """
    own = (f"{dockerfile_name}.dockerignore",) if dockerfile_name else ()
    return (*own, ".dockerignore")
