"""`AzureBlob`: writes one block blob of Azure's storage, through a URL that is allowed to.

Source: Azure Storage REST API, "Put Blob", "Put Block" and "Put Block List".
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote

from img.cache.parts import in_one_part
from img.cache.patience import Patience
from img.cache.web import Web
from img.oci import Descriptor

_VERSION = {"x-ms-version": "2020-04-08"}


class AzureBlob:
    """One blob behind a signed URL."""

    def __init__(self, what: str, url: str, patience: Patience, web: Web) -> None:
        """Prepares. `what` names it in errors; the URL holds a secret in its query."""
        self._what = what
        self._url = url
        self._patience = patience
        self._web = web

    def write(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Stores the bytes: with one request where they are few, else block by block, several at once.

        Raises:
            CacheError: the service refused, or no attempt is left; nothing can be read then.
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
        self._put(f"{self._url}{self._joint}comp=block&blockid={quote(name, safe='')}", data, {})
        return name

    def _list(self, names: list[str]) -> None:
        lines = "".join(f"<Latest>{name}</Latest>" for name in names)
        text = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{lines}</BlockList>'
        headers = {"Content-Type": "application/xml"}
        self._put(f"{self._url}{self._joint}comp=blocklist", text.encode(), headers)

    @property
    def _joint(self) -> str:
        return "&" if "?" in self._url else "?"

    def _put(self, url: str, data: bytes, headers: dict[str, str]) -> None:
        sent = {"Content-Type": "application/octet-stream", **_VERSION, **headers}
        self._web.ask(self._what, "PUT", url, ok=(200, 201), headers=sent, body=data).close()
