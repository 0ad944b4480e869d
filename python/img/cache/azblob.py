"""`AzureCache`: a shared cache in a container of Azure's blob storage.

Blobs are `{prefix}{blobs_prefix}{digest}`, the document is `{prefix}{manifests_prefix}{name}`, as in a bucket
of S3. Requests are allowed by the account's key or by a shared access signature. Source: Azure Storage REST
API; BuildKit's documentation, "Azure Blob Storage cache", for names of attributes.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qs, quote, urlsplit

from img.cache.azure import AzureBlob, SharedKey, unsigned, with_query
from img.cache.backend import Reach, Sink
from img.cache.patience import MAX_INDEX_BYTES, Limits, Patience
from img.cache.spec import CacheSpec
from img.cache.web import Sign, Web
from img.errors import UsageError
from img.oci import Descriptor, sha256

if TYPE_CHECKING:
    from img.registry.transport import Reply

DEFAULT_NAME = "img"
DEFAULT_CONTAINER = "img-cache"
_REFRESH_SECONDS = 24 * 3600
_HOW = "secret_access_key=…, or AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN in the environment"


def open_backend(spec: CacheSpec, reach: Reach, limits: Limits | None = None) -> AzureCache:
    """Makes the cache; speaks to nothing yet.

    Raises:
        UsageError: an attribute makes no sense, or there is no account or no key.
    """
    return AzureCache(spec, reach, limits or Limits())


class AzureCache:
    """One cache in a container."""

    def __init__(self, spec: CacheSpec, reach: Reach, limits: Limits) -> None:
        """As `open_backend`."""
        attributes = spec.attributes
        prefix = attributes.get("prefix", "")
        self._blobs = prefix + attributes.get("blobs_prefix", "blobs/")
        self._manifests = prefix + attributes.get("manifests_prefix", "manifests/")
        self._names = tuple(n for n in attributes.get("name", "").split(";") if n) or (DEFAULT_NAME,)
        self._base, self._query, self._sign, secrets = _access(spec, reach)
        self._patience = Patience(str(spec), limits)
        self._web = Web(self._patience, reach, limits, secrets)
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._made = False
        self._fresh: set[str] = set()

    def read(self) -> bytes | None:
        """Reads the document: of the first name that has one. As `CacheBackend.read`."""
        for name in self._names:
            key = self._manifests + name
            found = self._patience.run(key, lambda key=key: self._document(key))  # type: ignore[misc]
            if found is not None:
                return bytes(found)
        return None

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        """Writes the document under every name. As `CacheBackend.write`."""
        with self._lock:
            stale = [blob for blob in blobs if blob.digest not in self._fresh]
        self._patience.each(self.has, stale)
        self._make_container()
        blob = Descriptor(media_type="application/json", digest=sha256(document), size=len(document))
        for name in self._names:
            self._blob(self._manifests + name).write(blob, lambda: BytesIO(document))

    def has(self, blob: Descriptor) -> bool:
        """Asks for a blob, and makes it young again where it is old. As `CacheBackend.has`."""
        key = self._blobs + blob.digest

        def ask() -> bool:
            with self._ask(key, "HEAD", self._url(key), (200, 404)) as reply:
                if reply.status == 404 or reply.length != blob.size:
                    return False
                age = _age(reply.headers.get("Last-Modified", ""))
            if age >= _REFRESH_SECONDS:
                now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
                url = with_query(self._url(key), "comp=metadata")
                self._ask(key, "PUT", url, (200,), {"x-ms-meta-refreshed": now}).close()
            return True

        found = self._patience.run(key, ask)
        if found:
            self._used(blob)
        return found

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Stores a blob. As `CacheBackend.put`."""
        if self.has(blob):
            return
        self._make_container()
        self._blob(self._blobs + blob.digest).write(blob, open_blob)
        self._used(blob)

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        """Reads a blob into a sink. As `CacheBackend.fetch`."""
        key = self._blobs + blob.digest
        url = self._url(key)
        self._patience.pour(
            key, blob, sink, lambda offset: self._web.pieces(key, url, offset, blob.size, sign=self._sign)
        )

    def stop(self) -> None:
        """Ends all transfers soon, from any thread."""
        self._patience.stop()

    def close(self) -> None:
        """Lets go of connections; safe to call twice."""
        self._web.close()

    def _document(self, key: str) -> bytes | None:
        url = self._url(key)
        with self._ask(key, "HEAD", url, (200, 404)) as reply:
            if reply.status == 404:
                return None
            length = reply.length
        if (length or 0) > MAX_INDEX_BYTES:
            raise self._patience.error(f"{key}: longer than {MAX_INDEX_BYTES} bytes")
        return b"".join(self._web.pieces(key, url, 0, length, sign=self._sign))

    def _make_container(self) -> None:
        """Makes the container where there is none; a signature that may not ask for it is no error."""
        what = "the container"
        url = with_query(self._base + self._query, "restype=container")

        def ask() -> None:
            with self._ask(what, "HEAD", url, (200, 403, 404)) as reply:
                absent = reply.status == 404
            if absent:
                self._ask(what, "PUT", url, (201, 409)).close()

        with self._making:
            if not self._made:
                self._patience.run(what, ask)
                self._made = True

    def _ask(
        self,
        what: str,
        method: str,
        url: str,
        ok: tuple[int, ...],
        headers: dict[str, str] | None = None,
    ) -> Reply:
        sent = self._sign(method, url, headers or {}, 0)
        return self._web.ask(what, method, url, ok=ok, headers=sent)

    def _blob(self, key: str) -> AzureBlob:
        return AzureBlob(key, self._url(key), self._patience, self._web, self._sign)

    def _url(self, key: str) -> str:
        return f"{self._base}/{quote(key)}{self._query}"

    def _used(self, blob: Descriptor) -> None:
        with self._lock:
            self._fresh.add(blob.digest)


def _access(spec: CacheSpec, reach: Reach) -> tuple[str, str, Sign, tuple[str, ...]]:
    """The container's URL, the query of every request, what signs it, and what must be shown nowhere.

    Raises:
        UsageError: there is no account, or nothing that allows to use it.
    """
    attributes, variables = spec.attributes, reach.variables
    where = f"--cache-{spec.use} type=azblob"
    told = attributes.get("account_url") or variables.get("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", "")
    name = attributes.get("account_name") or variables.get("AZURE_STORAGE_ACCOUNT", "")
    if not told and name:
        told = f"https://{name}.blob.core.windows.net"
    parts = urlsplit(told)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = "account_url=https://ACCOUNT.blob.core.windows.net, or account_name=ACCOUNT"
        raise UsageError(
            f"{where} needs the account's URL" + (", which is no http(s) URL" if told else ""), hint=hint
        )
    # An emulator has the account in the path, not in the host's name.
    account = name or parts.path.strip("/").partition("/")[0] or parts.hostname.partition(".")[0]
    container = (
        attributes.get("container") or variables.get("BUILDKIT_AZURE_STORAGE_CONTAINER") or DEFAULT_CONTAINER
    )
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{quote(container)}"
    key = attributes.get("secret_access_key") or variables.get("AZURE_STORAGE_KEY", "")
    signature = parts.query or variables.get("AZURE_STORAGE_SAS_TOKEN", "").lstrip("?")
    if key and not parts.query:
        try:
            raw = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise UsageError(f"{where}: the key is no base64", hint="secret_access_key=KEY") from None
        return base, "", SharedKey(account, raw), (key,)
    if not signature:
        raise UsageError(f"{where} has no key", hint=_HOW)
    return base, f"?{signature}", unsigned, (signature, *parse_qs(signature).get("sig", ()))


def _age(modified: str) -> float:
    """Seconds since an HTTP date; 0 where it is none."""
    try:
        return (datetime.now(timezone.utc) - parsedate_to_datetime(modified)).total_seconds()
    except (TypeError, ValueError):
        return 0
