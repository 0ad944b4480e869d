"""`Service`: the cache of GitHub's Actions, as its two protocols have it: entries that are written once.

`VersionTwo` speaks JSON over twirp, and sends bytes to Azure's storage; `VersionOne` is what older servers
have. `gha` calls them. Source: the package `cache` of github.com/actions/toolkit; twirp, "Routing and
Serialization".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlencode

from img.cache.azure import AzureBlob
from img.cache.parts import part_bytes
from img.cache.patience import Patience
from img.cache.web import Web
from img.oci import Descriptor
from img.values import dataclass, field

ENTRY_VERSION = hashlib.sha256(b"img shared cache 1").hexdigest()
"""Keeps our entries apart from those of other programs: only a lookup with the same one finds them."""

_RPC = "twirp/github.actions.results.api.v1.CacheService/"
_TAKEN = ("already exists", "already_exists", "conflict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry that was found: its key, and where it may be downloaded for a while. The URL is a secret."""

    key: str
    url: str = field(repr=False)


class Service(Protocol):
    """One cache service. Every method may be called from several threads.

    Raises:
        CacheError: the service refused or failed.
    """

    def find(self, key: str, *, prefix: bool = False) -> Entry | None:
        """Looks an entry up, by its key or by how its key begins: then it is the newest one."""

    def reserve(self, key: str) -> str | None:
        """Begins an entry; gives what `upload` wants, or None where somebody else has begun it."""

    def upload(self, place: str, key: str, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Sends the bytes of an entry and ends it; only then it can be found."""


class VersionTwo:
    """The service that GitHub runs."""

    def __init__(self, base: str, token: str, patience: Patience, web: Web) -> None:
        """Prepares. `base` is the address that `twirp/…` is below of."""
        self._base = base.rstrip("/") + "/"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._patience = patience
        self._web = web

    def find(self, key: str, *, prefix: bool = False) -> Entry | None:
        """As `Service.find`."""
        asked = {"key": key, "restore_keys": [key] if prefix else [], "version": ENTRY_VERSION}
        answer = self._call("GetCacheEntryDownloadURL", key, asked)
        url, matched = _word(answer, "signed_download_url"), _word(answer, "matched_key")
        if not answer.get("ok") or not url:
            return None
        if not (matched.startswith(key) if prefix else matched in ("", key)):
            return None
        return Entry(key=matched, url=self._web.checked(key, url, beside=self._base))

    def reserve(self, key: str) -> str | None:
        """As `Service.reserve`: the signed URL of a blob in Azure's storage."""
        answer = self._call("CreateCacheEntry", key, {"key": key, "version": ENTRY_VERSION})
        if answer.get("ok"):
            return self._web.checked(key, _word(answer, "signed_upload_url"), beside=self._base)
        said = _word(answer, "message")
        if said and not any(word in said.lower() for word in _TAKEN):
            raise self._patience.error(f"{key}: not begun: {self._web.quoted(said)}")
        return None

    def upload(self, place: str, key: str, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """As `Service.upload`."""
        AzureBlob(key, place, self._patience, self._web).write(blob, open_blob)
        # proto3's JSON has 64-bit numbers as text
        asked = {"key": key, "size_bytes": str(blob.size), "version": ENTRY_VERSION}
        if not self._call("FinalizeCacheEntryUpload", key, asked).get("ok"):
            raise self._patience.error(f"{key}: the service did not take the entry")

    def _call(self, method: str, what: str, asked: Mapping[str, object]) -> dict[str, Any]:
        """Calls a method; an entry that there is none of, or is one already, is an answer that is not ok."""
        body = json.dumps(asked).encode()

        def attempt() -> dict[str, Any]:
            url = f"{self._base}{_RPC}{method}"
            reply = self._web.ask(what, "POST", url, ok=(200, 404, 409), headers=self._headers, body=body)
            if reply.status == 200:
                return self._web.json(what, reply)
            with reply:
                kind = reply.headers.get("Content-Type", "")
            if reply.status == 404 and "json" not in kind:
                raise self._patience.error(
                    f"{what}: the server has no {method}", hint="it may know version=1 only"
                )
            return {}

        return self._patience.run(what, attempt)


class VersionOne:
    """The service of older servers, and of other people's."""

    def __init__(self, base: str, token: str, patience: Patience, web: Web) -> None:
        """Prepares. `base` is the address that `_apis/artifactcache/…` is below of."""
        self._base = base.rstrip("/") + "/_apis/artifactcache/"
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json;api-version=6.0-preview.1",
        }
        self._patience = patience
        self._web = web

    def find(self, key: str, *, prefix: bool = False) -> Entry | None:
        """As `Service.find`. The server takes every key for a beginning."""
        url = f"{self._base}cache?{urlencode({'keys': key, 'version': ENTRY_VERSION})}"

        def attempt() -> dict[str, Any]:
            reply = self._web.ask(key, "GET", url, ok=(200, 204, 404), headers=self._headers)
            if reply.status != 200:
                reply.close()
                return {}
            return self._web.json(key, reply)

        answer = self._patience.run(key, attempt)
        matched, place = _word(answer, "cacheKey"), _word(answer, "archiveLocation")
        if not place or not (matched.startswith(key) if prefix else matched == key):
            return None
        return Entry(key=matched, url=self._web.checked(key, place, beside=self._base))

    def reserve(self, key: str) -> str | None:
        """As `Service.reserve`: the number of the entry."""
        body = {"key": key, "version": ENTRY_VERSION}

        def attempt() -> str | None:
            reply = self._post("caches", key, body, ok=(200, 201, 409))
            if reply.status == 409:
                reply.close()
                return None
            answer = self._web.json(key, reply)
            number = answer.get("cacheId", answer.get("cacheID"))
            if not isinstance(number, int) or number <= 0:
                raise self._patience.error(f"{key}: the answer names no entry")
            return str(number)

        return self._patience.run(key, attempt)

    def upload(self, place: str, key: str, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """As `Service.upload`."""
        part = part_bytes(blob.size)

        def send(number: int, data: bytes) -> None:
            if not data:
                return  # an empty range has no form
            start = number * part
            headers = {
                **self._headers,
                "Content-Type": "application/octet-stream",
                "Content-Range": f"bytes {start}-{start + len(data) - 1}/*",
            }
            url = f"{self._base}caches/{place}"
            self._web.ask(key, "PATCH", url, ok=(200, 201, 204), headers=headers, body=data).close()

        self._patience.send_parts(key, blob, open_blob, send)
        self._patience.run(
            key,
            lambda: self._post(f"caches/{place}", key, {"size": blob.size}, ok=(200, 201, 204)).close(),
        )

    def _post(self, path: str, what: str, body: Mapping[str, object], ok: tuple[int, ...]) -> Any:
        headers = {**self._headers, "Content-Type": "application/json"}
        url = self._base + path
        return self._web.ask(what, "POST", url, ok=ok, headers=headers, body=json.dumps(body).encode())


def _word(answer: Mapping[str, Any], name: str) -> str:
    """A field that is text, under its name in protocol buffers or as JSON has it; empty where it is none."""
    first, *rest = name.split("_")
    value = answer.get(name) or answer.get(first + "".join(word.capitalize() for word in rest)) or ""
    return value if isinstance(value, str) else ""
