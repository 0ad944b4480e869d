"""`refusal`: turns an answer that is not what was hoped for into a typed error; `absent`: one that is none.

Called by the wire. The body's codes and messages are read within bounds and cleaned: they come from outside.
Source: distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urlsplit

from img.errors import (
    InvalidDocument,
    NotFound,
    NotOffered,
    RegistryError,
    TooManyRequests,
    Unauthorized,
)
from img.registry.endpoint import shown
from img.registry.retry import Retriable, retry_after

if TYPE_CHECKING:
    from img.oci.reference import Reference
    from img.registry.transport import Reply

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be different the next time."""

_WRITING = ("POST", "PUT", "PATCH")
_SAYING = ("error_description", "message", "details", "error")
_STORAGE_HINT = "the registry itself allowed it: a proxy on the way may not, or a clock is wrong"
_MAX_BODY_BYTES = 64 << 10
_MAX_TEXT = 300
_MAX_CODE = 60
_LEAST_SECRET = 6
_OPEN_FIELDS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope", "account", "client_id"}
)
"""Fields of addresses that the specifications have, in which there are no secrets."""
_KINDS: dict[int, type[RegistryError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    405: NotOffered,
    429: TooManyRequests,
}


def absent(ref: Reference) -> NotFound:
    """The error for a name that stands for nothing in its registry."""
    return NotFound(f"{ref.registry} has no image {ref.familiar}", hint=lookup_hint(ref))


def lookup_hint(ref: Reference) -> str:
    """Says what to do about a name that its registry does not know."""
    if ref.digest:
        return "check the spelling of the repository, and the digest: the image may have been deleted"
    return f"check the spelling; img tags {ref.familiar_name} lists the tags that there are"


def refusal(
    reply: Reply,
    method: str,
    what: str,
    *,
    host: str,
    secret: str = "",
    hint: str = "",
    storage: bool = False,
) -> Exception:
    """Makes the error for an answer; closes the answer.

    Args:
        what: What was asked for, e.g. `image alpine:3`.
        host: The registry as people name it.
        secret: The Authorization header that was sent: an answer that repeats it is not quoted, nor one that
            repeats what an address was signed with.
        hint: What to do about refused credentials, or about what is not there.
        storage: It is the answer of another host, which the registry sent to.
    Returns:
        A `RegistryError`, or a `Retriable` around one where the status may pass.
    """
    codes, text = _body(reply, method)
    secrets = [*secrets_of(secret), *_secrets_in(reply.url)]
    if any(value in part for value in secrets for part in (text, *codes)):
        codes, text = (), ""
    codes, text = tuple(code[:_MAX_CODE] for code in codes), text[:_MAX_TEXT]
    asked = retry_after(reply.headers.get("Retry-After"))
    says = f"; it says: {text}" if text else ""
    kind = _KINDS.get(reply.status, NotOffered if "UNSUPPORTED" in codes else RegistryError)
    if storage:
        host = f"{urlsplit(shown(reply.url)).netloc}, where {host} sends to,"
        hint = _STORAGE_HINT if reply.status in (401, 403) else hint
    error = kind(
        _sentence(reply.status, method, what, host) + says,
        method=method,
        url=shown(reply.url),
        status=reply.status,
        codes=codes,
        hint=_hint(reply.status, method, "" if "NAME_UNKNOWN" in codes else hint, asked),
    )
    if reply.status in PASSING:
        return Retriable(error, after_seconds=asked)
    return error


def secrets_of(authorization: str) -> list[str]:
    """What of an Authorization header must not be repeated: all of it, and the password in it."""
    scheme, _, value = authorization.partition(" ")
    found = [value]
    if scheme.lower() == "basic":
        try:
            found.append(base64.b64decode(value).decode().partition(":")[2])
        except ValueError:
            pass  # whatever it is, it is refused as a whole
    return list(filter(None, found))


def _secrets_in(url: str) -> list[str]:
    """What of an address must not be repeated: storage is signed for there, and uploads have their state."""
    fields = [field.partition("=")[::2] for field in urlsplit(url).query.split("&")]
    values = [value for name, value in fields if name not in _OPEN_FIELDS and len(value) >= _LEAST_SECRET]
    return [*values, *map(unquote_plus, values)]


def _sentence(status: int, method: str, what: str, host: str) -> str:
    if status in (401, 403):
        return f"{host} refuses access to {what}"
    if status == 404:
        return f"{host} has no place for {what}" if method in _WRITING else f"{host} has no {what}"
    if status == 413:
        return f"{host} finds too long what is sent: {what}"
    if status == 429:
        return f"{host} says: too many requests, for {what}"
    if status >= 500:
        return f"{host} fails for {what}"
    return f"{host} refuses the request for {what}"


def _hint(status: int, method: str, known: str, asked: float | None) -> str:
    if status in (401, 403):
        return known
    if status == 405 and method in _WRITING:
        return "the registry is read-only, or a cache of another one: push to that"
    if status == 404 and method in _WRITING:
        return "check the spelling of the repository; some registries want it created there before a push"
    if status == 404:
        return known or "check the spelling of the repository"
    if status == 405:
        return "the registry allows no such thing: it may be read-only, or a mirror"
    if status == 413:
        return "the registry, or a proxy before it, has a limit (nginx: client_max_body_size) to be raised"
    if status == 429:
        wait = f"wait {asked:.0f} seconds" if asked else "wait a while"
        return f"{wait}, or log in: a registry allows more to those it knows"
    return "the registry has trouble; try again later" if status >= 500 else ""


def _body(reply: Reply, method: str) -> tuple[tuple[str, ...], str]:
    """Codes and messages of an error body, uncut; nothing where it is none."""
    if method == "HEAD":
        reply.close()
        return (), ""
    try:
        raw = reply.document(_MAX_BODY_BYTES, "error body")
        if reply.headers.get("Content-Type", "").lower().startswith("text/plain") and raw[:1] != b"{":
            return (), clean(raw.decode("utf-8", "replace").strip().partition("\n")[0])
        data = json.loads(raw)
    except (InvalidDocument, Retriable, ValueError, RecursionError):
        return (), ""
    finally:
        reply.close()
    if not isinstance(data, dict):
        return (), ""
    errors = data.get("errors")
    entries = [entry for entry in errors if isinstance(entry, dict)] if isinstance(errors, list) else []
    codes = tuple(clean(str(entry.get("code") or "")) for entry in entries[:8])
    # Token servers have forms of their own, of OAuth (RFC 6749, section 5.2) and other.
    said = [entry.get("message") for entry in entries[:8]] or [data.get(name) for name in _SAYING]
    texts = [clean(text) for text in said if isinstance(text, str)]
    return tuple(filter(None, codes)), "; ".join(dict.fromkeys(filter(None, texts)))


def clean(text: str) -> str:
    """Text from outside, without line ends and control characters that could fool a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
