"""Every error that `img` raises, as types with fields; the text for people is made from them.

    ImgError
    ├── InvalidReference(reference, reason, at)
    ├── UsageError(message)
    ├── InvalidDocument(document, reason)
    ├── DockerfileError(path, line, column, excerpt, hint, before, after, also)
    │   └── LockError
    ├── BuildError(step, exit_code_of_step, log_tail, where, line, excerpt)
    ├── CopyError(path, reason, not_found)
    ├── FetchError(url, reason)
    ├── CacheError(cache, reason)
    ├── RegistryError(method, url, status, codes)
    │   ├── Unauthorized
    │   ├── NotFound
    │   ├── NotOffered
    │   ├── TooManyRequests
    │   └── RegistryBlocked(reference, prefix, source)
    ├── StoreError(message)
    │   ├── BlobNotFound(digest)
    │   ├── ImageNotFound(reference, near)
    │   ├── DigestMismatch(what, expected, actual, by)
    │   ├── SizeMismatch(expected, actual)
    │   ├── DiskFull(path)
    │   └── StoreVersionError(found, known, path)
    ├── LayerError(entry, reason)
    ├── SandboxError(missing, how_to_fix)
    └── Unsupported(feature, where)

`exit_code_of` gives the process exit code that belongs to each (DESIGN section 6).
"""

from __future__ import annotations

__all__ = [
    "BlobNotFound",
    "BuildError",
    "CacheError",
    "CopyError",
    "DigestMismatch",
    "DiskFull",
    "DockerfileError",
    "FetchError",
    "ImageNotFound",
    "ImgError",
    "InvalidDocument",
    "InvalidReference",
    "LayerError",
    "LockError",
    "NotFound",
    "NotOffered",
    "RegistryBlocked",
    "RegistryError",
    "SandboxError",
    "SizeMismatch",
    "StoreError",
    "StoreVersionError",
    "TooManyRequests",
    "Unauthorized",
    "Unsupported",
    "UsageError",
    "exit_code_of",
    "from_fields",
    "to_fields",
]


_MOST_LINES = 12
"""Lines of one instruction that an error shows."""

_MOST_COLUMNS = 160
"""A longer name is not shown again for a caret."""


class ImgError(Exception):
    """The root of all errors of `img`. `hint` says what to do next, or is empty."""

    exit_code = 1
    fields: tuple[str, ...] = ()

    def __init__(self, *args: object, hint: str = "") -> None:
        super().__init__(*args)
        self.hint = hint


class UsageError(ImgError):
    """The caller asked for something that makes no sense."""

    exit_code = 2
    fields = ("message", "hint")

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.message = message


class InvalidReference(ImgError):
    """A name is not a valid image reference. Source: distribution-spec v1.1, "Pulling manifests".

    Attributes:
        reference: The name, without the password that somebody wrote into it.
        at: Where in the name the mistake is, from 0; -1 where it is in no one place.
    """

    exit_code = 2
    fields = ("reference", "reason", "at", "hint")

    def __init__(self, reference: str, reason: str, at: int = -1, hint: str = "") -> None:
        safe = without_password(reference)
        super().__init__(f"invalid reference {safe!r}: {reason}", hint=hint)
        self.reference = safe
        self.reason = reason
        self.at = at if safe == reference else min(at, 0)

    def __str__(self) -> str:
        text = str(self.args[0])
        if self.at < 0 or not self.reference.isprintable() or len(self.reference) > _MOST_COLUMNS:
            return text
        return f"{text}\n  {self.reference}\n  {' ' * self.at}^"


def without_password(text: str) -> str:
    """A name or an address as it may be shown: `https://me:secret@host/x` is `https://me:***@host/x`."""
    name, at, digest = text.rpartition("@")
    algorithm = digest.partition(":")[0]
    if at and algorithm[:3] == "sha" and algorithm[3:].isdecimal():
        digest = at + digest
    else:
        name, digest = text, ""
    before, at, host = name.rpartition("@")
    scheme, slashes, rest = before.partition("//")
    user, colon, password = (rest if slashes else before).partition(":")
    # Without a scheme it is a password only where a repository is behind it, and no port before it.
    alike = bool(slashes) or (bool(user) and "/" not in password and "/" in host)
    if not (at and colon and password and "/" not in user and alike):
        return text
    return f"{scheme + slashes if slashes else ''}{user}:***@{host}{digest}"


class DockerfileError(ImgError):
    """Something in a Dockerfile cannot be built.

    Attributes:
        path: The Dockerfile's name as given.
        line: First line of the instruction, from 1.
        column: Where the caret stands, from 1; 0 marks the whole line.
        excerpt: The line's text, without its line end.
        before: The instruction's line above it, where there is one; `after` the one below.
        also: Other places that have a part in it, each `path:line: text`.
    """

    exit_code = 2
    fields = ("message", "path", "line", "column", "excerpt", "hint", "before", "after", "also")

    def __init__(
        self,
        message: str,
        *,
        path: str = "Dockerfile",
        line: int = 0,
        column: int = 0,
        excerpt: str = "",
        hint: str = "",
        before: str = "",
        after: str = "",
        also: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        self.excerpt = excerpt
        self.before = before
        self.after = after
        self.also = also

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        text = where + self.message
        if self.excerpt:
            width = len(self.excerpt.strip()) if not self.column else 1
            column = self.column or 1 + len(self.excerpt) - len(self.excerpt.lstrip())
            pad = "".join("\t" if c == "\t" else " " for c in self.excerpt[: column - 1])
            rows = [(str(self.line), self.excerpt), ("", pad + "^" * max(1, width))]
            if self.before:
                rows.insert(0, (str(self.line - 1), self.before))
            if self.after:
                rows.append((str(self.line + 1), self.after))
            text += "".join(f"\n{number:>5} | {row}" for number, row in rows)
        return text + "".join(f"\n  also {place}" for place in self.also)


class LockError(DockerfileError):
    """A lock file and a Dockerfile do not agree, or the lock file is none. The place is in either."""


class BuildError(ImgError):
    """A step of the build failed.

    Attributes:
        step: The instruction as shown.
        exit_code_of_step: What the step's process returned.
        log_tail: The last lines that it wrote.
        where: `path:line` of the instruction.
        line: Its first line, from 1.
        excerpt: Its lines as the Dockerfile has them.
    """

    exit_code = 1
    fields = ("step", "exit_code_of_step", "log_tail", "where", "line", "excerpt")

    def __init__(
        self,
        step: str,
        exit_code_of_step: int,
        log_tail: tuple[str, ...] = (),
        where: str = "",
        line: int = 0,
        excerpt: str = "",
    ) -> None:
        super().__init__(step, exit_code_of_step)
        self.step = step
        self.exit_code_of_step = exit_code_of_step
        self.log_tail = tuple(log_tail)
        self.where = where
        self.line = line
        self.excerpt = excerpt

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        text = f"{place}the step failed with exit code {self.exit_code_of_step}: {self.step}"
        if self.excerpt:
            text += "".join(f"\n{row}" for row in _numbered(self.line, self.excerpt.split("\n")))
        if self.log_tail:
            text += "\nlast lines of its output:\n" + "\n".join(f"  {line}" for line in self.log_tail)
        return text


def _numbered(first: int, lines: list[str]) -> list[str]:
    """Lines of a Dockerfile with their numbers; of many, those at both ends."""
    rows = [f"{number:>5} | {line}".rstrip() for number, line in enumerate(lines, first)]
    return rows if len(rows) <= _MOST_LINES else [*rows[: _MOST_LINES - 3], f"{'':>5} | …", *rows[-2:]]


class CopyError(ImgError):
    """COPY or ADD cannot do what it was asked. `not_found`: the source names nothing."""

    exit_code = 1
    fields = ("path", "reason", "not_found")

    def __init__(self, path: str, reason: str, not_found: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.not_found = not_found


class FetchError(ImgError):
    """A URL or git repository that a build reads cannot be had, or is not what was promised.

    Attributes:
        url: What was fetched, without user, password and query.
        text: The whole message, where an instruction asked for it: with place and excerpt.
    """

    exit_code = 3
    fields = ("url", "reason", "hint", "text")

    def __init__(self, url: str, reason: str, hint: str = "", text: str = "") -> None:
        super().__init__(text or f"{url}: {reason}", hint=hint)
        self.url = url
        self.reason = reason
        self.text = text


class CacheError(ImgError):
    """A shared cache cannot be read or written. `cache` names it, without credentials."""

    exit_code = 3
    fields = ("cache", "reason", "hint")

    def __init__(self, cache: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{cache}: {reason}", hint=hint)
        self.cache = cache
        self.reason = reason


class InvalidDocument(ImgError):
    """An OCI document is not what its specification says. `document` names it, `reason` says why."""

    exit_code = 3
    fields = ("document", "reason")

    def __init__(self, document: str, reason: str) -> None:
        super().__init__(f"bad {document}: {reason}")
        self.document = document
        self.reason = reason


class RegistryError(ImgError):
    """A registry refused, failed, or could not be reached.

    Attributes:
        status: HTTP status, 0 where no answer came.
        codes: Error codes of the answer's body. Source: distribution-spec v1.1, "Error Codes".
    """

    exit_code = 3
    fields: tuple[str, ...] = ("message", "method", "url", "status", "codes", "hint")

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        url: str = "",
        status: int = 0,
        codes: tuple[str, ...] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.message = message
        self.method = method
        self.url = url
        self.status = status
        self.codes = tuple(codes)

    def __str__(self) -> str:
        text, newline, excerpt = self.message.partition("\n")  # lines of a Dockerfile come last
        details = [f"{self.method} {self.url}".strip()] if self.url else []
        if self.status:
            details.append(f"HTTP {self.status}")
        details.extend(self.codes)
        return (f"{text} ({', '.join(details)})" if details else text) + newline + excerpt


class Unauthorized(RegistryError):
    """The registry wants other credentials (401 or 403)."""


class NotFound(RegistryError):
    """The registry has no such repository, tag, manifest or blob (404)."""


class NotOffered(RegistryError):
    """The registry does not do what it was asked (405, or its code is UNSUPPORTED), such as deletion."""


class TooManyRequests(RegistryError):
    """The registry's rate limit is reached (429)."""


class RegistryBlocked(RegistryError):
    """A rule forbids to ask for this at all. `source`: the file that has the rule, and the line."""

    fields = ("reference", "prefix", "source")

    def __init__(self, reference: str, prefix: str, source: str) -> None:
        super().__init__(
            f"{reference} is not asked for: {source} blocks {prefix}",
            hint="take the rule out of the file, or use another name",
        )
        self.reference = reference
        self.prefix = prefix
        self.source = source


class StoreError(ImgError):
    """The local store cannot do what it was asked."""

    exit_code = 5
    fields: tuple[str, ...] = ("message", "hint")

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.message = message


class BlobNotFound(StoreError):
    """A blob is not in the store."""

    fields = ("digest",)

    def __init__(self, digest: str) -> None:
        super().__init__(f"the store has no blob {digest}")
        self.digest = digest


class ImageNotFound(StoreError):
    """No image of this name or id is in the store; `near` holds names like it."""

    fields = ("reference", "near")

    def __init__(self, reference: str, near: tuple[str, ...] = ()) -> None:
        hint = f"did you mean {near[0]}?" if near else "img images lists what is here; img pull fetches"
        super().__init__(f"no such image: {reference}", hint=hint)
        self.reference = reference
        self.near = tuple(near)


class DigestMismatch(StoreError):
    """Bytes did not hash to what their descriptor promised. `what`: `blob` or `diff ID`.

    `by`: the registry that was sent what is expected, and says that it stored something else; else empty.
    """

    fields = ("what", "expected", "actual", "by")

    def __init__(self, what: str, expected: str, actual: str, by: str = "") -> None:
        said = f"{by} was sent the {what} as {expected}, and says that it stored {actual}"
        super().__init__(
            f"wrong bytes: {said if by else f'the {what} should be {expected}, but is {actual}'}"
        )
        self.what = what
        self.expected = expected
        self.actual = actual
        self.by = by


class SizeMismatch(StoreError):
    """A blob was longer or shorter, in bytes, than its descriptor says."""

    fields = ("expected", "actual")

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"wrong size: {expected} bytes expected, {actual} came")
        self.expected = expected
        self.actual = actual


class DiskFull(StoreError):
    """The file system of the store has no space (or no quota) left."""

    fields = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__(
            f"no space left on the disk while writing {path}",
            hint="img du shows what the store holds, img prune frees what nothing needs",
        )
        self.path = path


class StoreVersionError(StoreError):
    """The store was written by a newer version, or under another id mapping."""

    fields = ("found", "known", "path")

    def __init__(self, found: str, known: str, path: str) -> None:
        super().__init__(
            f"the store at {path} has {found}; this img knows {known}",
            hint="use the img that wrote it, or another store with --state DIR",
        )
        self.found = found
        self.known = known
        self.path = path


class LayerError(ImgError):
    """A layer's tar is malformed, or an entry of it is hostile. `entry` is its path as found."""

    exit_code = 5
    fields = ("entry", "reason")

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(f"bad layer at {entry!r}: {reason}")
        self.entry = entry
        self.reason = reason

    def of_archive(self, where: str) -> InvalidDocument:
        """The same, said of an archive that holds images and is no layer itself."""
        entry = self.entry if self.entry.isprintable() else repr(self.entry)
        return InvalidDocument(where, f"{entry}: {self.reason}")


class SandboxError(ImgError):
    """This machine refuses something that a build needs; `how_to_fix` says how to get it."""

    exit_code = 4
    fields = ("missing", "how_to_fix")

    def __init__(self, missing: str, how_to_fix: str = "") -> None:
        super().__init__(missing, hint=how_to_fix)
        self.missing = missing
        self.how_to_fix = how_to_fix


class Unsupported(ImgError):
    """Something that this version does not do."""

    exit_code = 2
    fields = ("feature", "where")

    def __init__(self, feature: str, where: str = "", hint: str = "") -> None:
        super().__init__(f"{feature} is not supported" + (f" ({where})" if where else ""), hint=hint)
        self.feature = feature
        self.where = where


def exit_code_of(error: BaseException) -> int:
    """Gives the process exit code that belongs to an error: 130 for an interrupt, 1 if unknown."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, ImgError):
        return error.exit_code
    return 5 if isinstance(error, OSError) else 1


def to_fields(error: ImgError) -> dict[str, object]:
    """Gives an error as plain data (`kind` and its fields), for JSON."""
    data: dict[str, object] = {"kind": type(error).__name__}
    for name in error.fields:
        data[name] = getattr(error, name)
    data["text"] = str(error)
    return data


def from_fields(data: dict[str, object]) -> ImgError:
    """Makes the error again from `to_fields`' data; an unknown kind becomes a plain `ImgError`."""
    kind = globals().get(str(data.get("kind")))
    if not (isinstance(kind, type) and issubclass(kind, ImgError)) or not kind.fields:
        return ImgError(str(data.get("text", "")))
    values = {
        name: tuple(value) if isinstance(value := data.get(name), list) else value for name in kind.fields
    }
    return kind(**values)  # type: ignore[arg-type]
