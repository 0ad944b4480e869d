"""`ActionsCache`: a shared cache in the cache service of GitHub's Actions, or of a server like it.

Entries are written once there. A blob is `img-1-blob-<digest>`; each document is a further entry
`img-1-index-<scope>-<branch>#<number>`, and the newest one is read. What a branch wrote is read by it and by
those who start from it: its own document is asked for first, then those of the branches that the token may
read. Source: BuildKit's documentation, "GitHub Actions cache", for names of attributes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from img.cache.actions import Entry, Service, VersionOne, VersionTwo
from img.cache.attributes import choice, seconds
from img.cache.backend import Reach, Sink
from img.cache.patience import MAX_INDEX_BYTES, Limits, Patience
from img.cache.spec import CacheSpec
from img.cache.web import Web
from img.errors import UsageError
from img.oci import Descriptor, sha256
from img.values import replace

DEFAULT_SCOPE = "img"
_BLOB = "img-1-blob-"
_INDEX = "img-1-index-"
_MOST_TRIES = 20
_MAX_SCOPE = 300
_API = "https://api.github.com"
_MOST_PAGES = 100
_PAGE = 100
_WRITE = 2
_HOW = (
    "the runner gives it to actions, not to scripts: an earlier step with actions/github-script must export "
    "ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL (docs/sharing.md), or give {attributes}"
)


def open_backend(spec: CacheSpec, reach: Reach, limits: Limits | None = None) -> ActionsCache:
    """Makes the cache; speaks to nothing yet.

    Raises:
        UsageError: an attribute makes no sense, or there is no token or no address.
    """
    return ActionsCache(spec, reach, limits or Limits())


class ActionsCache:
    """One cache in a cache service."""

    def __init__(self, spec: CacheSpec, reach: Reach, limits: Limits) -> None:
        """As `open_backend`."""
        attributes, variables = spec.attributes, reach.variables
        self._scope = _scope(spec)
        limits = replace(limits, whole_seconds=seconds(spec, "timeout", 600))
        token = attributes.get("token") or variables.get("ACTIONS_RUNTIME_TOKEN", "")
        if not token:
            raise _missing(spec, "a token (ACTIONS_RUNTIME_TOKEN)", "token=… and url_v2=…")
        self._ghtoken = attributes.get("ghtoken", "")
        self._repository = attributes.get("repository") or variables.get("GITHUB_REPOSITORY", "")
        if self._ghtoken and not self._repository:
            raise UsageError(
                f"--cache-{spec.use} type=gha: ghtoken needs repository", hint="repository=OWNER/NAME"
            )
        self._api = variables.get("GITHUB_API_URL", _API).rstrip("/")
        self._patience = Patience(str(spec), limits)
        self._web = Web(self._patience, reach, limits, (token, self._ghtoken))
        self._service = _service(spec, variables, token, self._patience, self._web)
        self._branches = _branches(token, variables)
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._there: set[str] = set()
        self._listed: frozenset[str] | None = None

    def read(self) -> bytes | None:
        """Reads the newest document, of the first branch that has one. As `CacheBackend.read`."""
        for branch in self._branches:
            prefix = self._prefix(branch)
            entry = self._service.find(prefix, prefix=True)
            if entry is not None and _number(entry.key, prefix):
                return self._download(entry)
        return None

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        """Writes a further document; it is the newest. As `CacheBackend.write`."""
        with self._lock:
            stale = [blob for blob in blobs if blob.digest not in self._there]
        self._patience.each(self.has, stale)
        prefix = self._prefix(self._branches[0])
        newest = self._service.find(prefix, prefix=True)
        last = _number(newest.key, prefix) if newest else 0
        for number in range(last + 1, last + 1 + _MOST_TRIES):
            key = f"{prefix}{number}"
            place = self._service.reserve(key)
            if place is not None:
                blob = Descriptor(media_type="application/json", digest=sha256(document), size=len(document))
                self._service.upload(place, key, blob, lambda: BytesIO(document))
                return
        raise self._patience.error(f"{prefix}: too many others write this document just now")

    def has(self, blob: Descriptor) -> bool:
        """Looks a blob up. As `CacheBackend.has`."""
        key = _BLOB + blob.digest
        if self._ghtoken:
            with self._lock:
                noted = blob.digest in self._there
            found = noted or key in self._list()
        else:
            found = self._service.find(key) is not None
        if found:
            self._noted(blob)
        return found

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Stores a blob, unless somebody has it or sends it just now. As `CacheBackend.put`."""
        if self.has(blob):
            return
        key = _BLOB + blob.digest
        place = self._service.reserve(key)
        if place is not None:
            self._service.upload(place, key, blob, open_blob)
        self._noted(blob)

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        """Reads a blob into a sink. As `CacheBackend.fetch`."""
        key = _BLOB + blob.digest
        # Asked for anew with each connection: the address is good for some minutes.
        self._patience.pour(
            key, blob, sink, lambda offset: self._web.pieces(key, self._url(key), offset, blob.size)
        )

    def stop(self) -> None:
        """Ends all transfers soon, from any thread."""
        self._patience.stop()

    def close(self) -> None:
        """Lets go of connections; safe to call twice."""
        self._web.close()

    def _prefix(self, branch: str) -> str:
        """How the keys of a branch's documents begin. A branch may be called anything, so it is hashed."""
        return f"{_INDEX}{self._scope}-{hashlib.sha256(branch.encode()).hexdigest()[:8]}#"

    def _url(self, key: str) -> str:
        entry = self._service.find(key)
        if entry is None:
            raise self._patience.error(f"{key}: there is no such entry")
        return entry.url

    def _download(self, entry: Entry) -> bytes:
        key = entry.key
        urls = [entry.url]

        def attempt() -> bytes:
            pieces: list[bytes] = []
            total = 0
            for piece in self._web.pieces(key, urls.pop() if urls else self._url(key), 0, None):
                pieces.append(piece)
                total += len(piece)
                if total > MAX_INDEX_BYTES:
                    raise self._patience.error(f"{key}: longer than {MAX_INDEX_BYTES} bytes")
            return b"".join(pieces)

        return self._patience.run(key, attempt)

    def _list(self) -> frozenset[str]:
        """The keys of all blobs, as GitHub's REST API lists them: one request for a hundred lookups.

        Source: GitHub REST API, "List GitHub Actions caches for a repository".
        """
        with self._listing:
            if self._listed is None:
                found: set[str] = set()
                for branch in self._branches:
                    found.update(self._pages(branch))
                self._listed = frozenset(found)
            return self._listed

    def _pages(self, branch: str) -> set[str]:
        found: set[str] = set()
        headers = {"Authorization": f"Bearer {self._ghtoken}", "Accept": "application/vnd.github+json"}
        ref = {"ref": branch} if branch else {}
        for page in range(1, _MOST_PAGES + 1):
            query = urlencode({"key": _BLOB, "per_page": _PAGE, "page": page, **ref})
            url = f"{self._api}/repos/{quote(self._repository)}/actions/caches?{query}"

            def attempt(url: str = url) -> dict[str, Any]:
                reply = self._web.ask("the list of entries", "GET", url, ok=(200,), headers=headers)
                return self._web.json("the list of entries", reply)

            entries = self._patience.run("the list of entries", attempt).get("actions_caches")
            if not isinstance(entries, list) or not entries:
                break
            found.update(str(entry.get("key")) for entry in entries if isinstance(entry, dict))
            if len(entries) < _PAGE:
                break
        return found

    def _noted(self, blob: Descriptor) -> None:
        with self._lock:
            self._there.add(blob.digest)


def _service(
    spec: CacheSpec, variables: Mapping[str, str], token: str, patience: Patience, web: Web
) -> Service:
    """The protocol and the address that attributes and variables name.

    Raises:
        UsageError: there is no address, or it is none.
    """
    attributes = spec.attributes
    told = choice(spec, "version", ("1", "2"))
    if not told and attributes.get("url") and not attributes.get("url_v2"):
        told = "1"
    if not told and not attributes.get("url_v2"):
        new = variables.get("ACTIONS_CACHE_SERVICE_V2", "").lower() in ("true", "1")
        told = "1" if not new and variables.get("ACTIONS_CACHE_URL") else "2"
    results = variables.get("ACTIONS_RESULTS_URL", "")
    if told == "1":
        base = attributes.get("url") or variables.get("ACTIONS_CACHE_URL") or results
        missing, attribute = "ACTIONS_CACHE_URL", "url"
    else:
        base = attributes.get("url_v2") or results
        missing, attribute = "ACTIONS_RESULTS_URL", "url_v2"
    if not base:
        raise _missing(spec, f"an address ({missing})", f"{attribute}=…")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--cache-{spec.use} type=gha: its address is no http(s) URL", hint=f"{attribute}=https://…"
        )
    made = VersionOne if told == "1" else VersionTwo
    return made(base, token, patience, web)


def _missing(spec: CacheSpec, what: str, attributes: str) -> UsageError:
    return UsageError(f"--cache-{spec.use} type=gha lacks {what}", hint=_HOW.format(attributes=attributes))


def _scope(spec: CacheSpec) -> str:
    scope = spec.attributes.get("scope") or DEFAULT_SCOPE
    if "," in scope or "#" in scope or len(scope) > _MAX_SCOPE or not scope.isprintable():
        raise UsageError(
            f"--cache-{spec.use} type=gha: a scope has at most {_MAX_SCOPE} characters, and no comma or #",
            hint="scope=NAME",
        )
    return scope


def _branches(token: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """The branches that may be read, the one that is written first.

    The token says them (it is a JSON web token, whose claim `ac` lists scopes); other servers' tokens say
    nothing, and then the variables of the job do.
    """
    scopes = _claimed(token)
    if scopes:
        own = [name for name, permission in scopes if permission & _WRITE]
        return tuple(dict.fromkeys([*own, *(name for name, _ in scopes)]))
    base = variables.get("GITHUB_BASE_REF", "")
    told = [variables.get("GITHUB_REF", ""), f"refs/heads/{base}" if base else ""]
    return tuple(dict.fromkeys(filter(None, told))) or ("",)


def _claimed(token: str) -> list[tuple[str, int]]:
    """Scopes and permissions of a token; none where it is of another kind. Only the server verifies it."""
    parts = token.split(".")
    if len(parts) != 3:
        return []
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        scopes = json.loads(payload["ac"])
        return [(str(scope["Scope"]), int(scope["Permission"])) for scope in scopes]
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return []


def _number(key: str, prefix: str) -> int:
    """The number of a document's entry; 0 where it is none."""
    text = key[len(prefix) :] if key.startswith(prefix) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
