"""`AzureBlob`: one block blob of Azure's storage, behind a URL, and what allows a request to it.

`actions` writes to URLs that are signed; `azblob` signs each request with the account's key (`SharedKey`).
Source: Azure Storage REST API, "Put Blob", "Put Block", "Put Block List", "Authorize with Shared Key".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, urlsplit

from img.cache.parts import in_one_part
from img.cache.patience import Patience
from img.cache.web import Sign, Web
from img.oci import Descriptor

VERSION = {"x-ms-version": "2020-04-08"}


def unsigned(method: str, url: str, headers: Mapping[str, str], length: int) -> dict[str, str]:
    """The signer of a URL that is allowed to by itself."""
    return {**VERSION, **headers}


class SharedKey:
    """Signs with the key of a storage account."""

    def __init__(self, account: str, key: bytes) -> None:
        self._account = account
        self._key = key

    def __call__(self, method: str, url: str, headers: Mapping[str, str], length: int) -> dict[str, str]:
        """Gives all headers of a request; `length` is its body's."""
        sent = {**VERSION, **headers, "x-ms-date": formatdate(usegmt=True)}
        low = {name.lower(): value.strip() for name, value in sent.items()}
        own = sorted(name for name in low if name.startswith("x-ms-"))
        parts = urlsplit(url)
        query = sorted(
            (name.lower(), value) for name, value in parse_qsl(parts.query, keep_blank_values=True)
        )
        lines = [
            method,
            low.get("content-encoding", ""),
            low.get("content-language", ""),
            str(length) if length else "",
            low.get("content-md5", ""),
            low.get("content-type", ""),
            "",  # x-ms-date is there instead of Date
            low.get("if-modified-since", ""),
            low.get("if-match", ""),
            low.get("if-none-match", ""),
            low.get("if-unmodified-since", ""),
            low.get("range", ""),
            *(f"{name}:{low[name]}" for name in own),
            f"/{self._account}{parts.path}",
            *(f"{name}:{value}" for name, value in query),
        ]
        made = hmac.new(self._key, "\n".join(lines).encode(), hashlib.sha256).digest()
        return {**sent, "Authorization": f"SharedKey {self._account}:{base64.b64encode(made).decode()}"}


class AzureBlob:
    """One blob."""

    def __init__(self, what: str, url: str, patience: Patience, web: Web, sign: Sign = unsigned) -> None:
        """Prepares. `what` names it in errors; the URL may hold a secret in its query."""
        self._what = what
        self._url = url
        self._patience = patience
        self._web = web
        self._sign = sign

    def write(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Stores the bytes: with one request where they are few, else block by block, several at once.

        Raises:
            CacheError: the service refused, or no attempt is left; what was there before stands.
        """
        if in_one_part(blob.size):
            self._patience.send_parts(self._what, blob, open_blob, lambda _, data: self._whole(data))
            return
        names = self._patience.send_parts(self._what, blob, open_blob, self._block)
        self._patience.run(self._what, lambda: self._list(names))

    def _whole(self, data: bytes) -> None:
        self._put(self._url, data, {"x-ms-blob-type": "BlockBlob"})

    def _block(self, number: int, data: bytes) -> str:
        """Sends one block; gives its name. All names of a blob have one length."""
        name = base64.b64encode(f"{number:06d}".encode()).decode()
        self._put(with_query(self._url, f"comp=block&blockid={quote(name, safe='')}"), data, {})
        return name

    def _list(self, names: list[str]) -> None:
        lines = "".join(f"<Latest>{name}</Latest>" for name in names)
        text = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{lines}</BlockList>'
        url = with_query(self._url, "comp=blocklist")
        self._put(url, text.encode(), {"Content-Type": "application/xml"})

    def _put(self, url: str, data: bytes, headers: dict[str, str]) -> None:
        sent = self._sign("PUT", url, {"Content-Type": "application/octet-stream", **headers}, len(data))
        self._web.ask(self._what, "PUT", url, ok=(200, 201), headers=sent, body=data).close()


def with_query(url: str, words: str) -> str:
    """A URL with further words in its query."""
    return f"{url}{'&' if '?' in url else '?'}{words}"
