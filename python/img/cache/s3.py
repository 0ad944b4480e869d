"""`S3Cache`: a shared cache in a bucket of Amazon S3, or of another store that speaks its protocol.

Blobs are the objects `{prefix}{blobs_prefix}{digest}`, the document is `{prefix}{manifests_prefix}{name}`.
boto3 does the speaking (`aws`, loaded with the first request) and tries a request again by its own rules;
what becomes of a broken download, and how much of an upload is in memory, is `Patience`'s. Uploads are cut
here, not by boto3's transfer manager: its threads cannot be left behind, and would hold up a stopped build.
Source: Amazon S3 API Reference; BuildKit's documentation, "Amazon S3 cache", for names of attributes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO

from img.cache.attributes import choice, count, flag, seconds
from img.cache.backend import Reach, Sink
from img.cache.parts import in_one_part
from img.cache.patience import MAX_INDEX_BYTES, PIECE_BYTES, Limits, Passing, Patience, skipping
from img.cache.spec import CacheSpec
from img.errors import CacheError, SizeMismatch, UsageError
from img.oci import Descriptor
from img.values import replace

if TYPE_CHECKING:
    from img.cache.aws import Connection

RETRY_MODES = ("standard", "adaptive", "legacy")
DEFAULT_NAME = "img"
"""Not BuildKit's: its document has another form, and one would overwrite the other's."""
_LARGEST_COPY = 5 << 30
_COPY_PART_BYTES = 1 << 30
_MISSING = ("NoSuchKey", "NotFound", "404")
_MOST_TEXT = 200


def open_backend(spec: CacheSpec, reach: Reach, limits: Limits | None = None) -> S3Cache:
    """Makes the cache; speaks to nothing yet.

    Raises:
        UsageError: an attribute makes no sense, or boto3 is not installed.
    """
    if find_spec("boto3") is None:
        raise UsageError(
            f"--cache-{spec.use} type=s3 needs boto3, which is not installed", hint="pip install 'img[s3]'"
        )
    return S3Cache(spec, reach, limits or Limits())


class S3Cache:
    """One cache in a bucket."""

    def __init__(self, spec: CacheSpec, reach: Reach, limits: Limits) -> None:
        """Checks the attributes; as `open_backend`."""
        attributes = spec.attributes
        self._spec = spec
        self._reach = reach
        self._bucket = attributes["bucket"]
        prefix = attributes.get("prefix", "")
        self._blobs = prefix + attributes.get("blobs_prefix", "blobs/")
        self._manifests = prefix + attributes.get("manifests_prefix", "manifests/")
        self._names = tuple(n for n in attributes.get("name", "").split(";") if n) or (DEFAULT_NAME,)
        self._refresh_seconds = seconds(spec, "touch_refresh", 24 * 3600)
        flag(spec, "use_path_style")
        flag(spec, "disable_accept_encoding")
        choice(spec, "retry_mode", RETRY_MODES)
        given = [name for name in ("access_key_id", "secret_access_key") if attributes.get(name)]
        if len(given) == 1:
            raise UsageError(
                f"--cache-{spec.use} type=s3 has {given[0]} alone",
                hint="give access_key_id and secret_access_key, or neither",
            )
        self._limits = replace(
            limits,
            lanes=count(spec, "upload_parallelism", limits.lanes, least=1),
            attempts=count(spec, "retry_max_attempts", 0, least=0) or limits.attempts,
        )
        self._patience = Patience(str(spec), self._limits)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._fresh: set[str] = set()

    def read(self) -> bytes | None:
        """Reads the document: of the first name that has one. As `CacheBackend.read`."""
        for name in self._names:
            key = self._manifests + name
            found = self._patience.run(key, lambda key=key: self._get_small(key))  # type: ignore[misc]
            if found is not None:
                return bytes(found)
        return None

    def write(self, document: bytes, blobs: Sequence[Descriptor]) -> None:
        """Writes the document under every name. As `CacheBackend.write`."""
        with self._lock:
            stale = [blob for blob in blobs if blob.digest not in self._fresh]
        self._patience.each(self.has, stale)
        for name in self._names:
            key = self._manifests + name
            self._patience.run(
                key, lambda key=key: self._ask(key, "put_object", Key=key, Body=document)  # type: ignore[misc]
            )  # fmt: skip

    def has(self, blob: Descriptor) -> bool:
        """Asks for a blob, and makes it young again where it is old. As `CacheBackend.has`."""
        key = self._blobs + blob.digest

        def ask() -> bool:
            try:
                head = self._ask(key, "head_object", Key=key)
            except _Missing:
                return False
            if head["ContentLength"] != blob.size:
                return False  # a leftover that no reader would believe: it is written anew
            age = datetime.now(timezone.utc) - head["LastModified"]
            if age.total_seconds() >= self._refresh_seconds:
                self._touch(key, blob.size)
            return True

        found = self._patience.run(key, ask)
        if found:
            self._used(blob)
        return found

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Stores a blob, in parts where it is large. As `CacheBackend.put`."""
        key = self._blobs + blob.digest
        if self.has(blob):
            return
        if in_one_part(blob.size):
            self._patience.send_parts(
                key, blob, open_blob, lambda _, data: self._ask(key, "put_object", Key=key, Body=data)
            )
        else:
            self._put_parts(key, blob, open_blob)
        self._used(blob)

    def fetch(self, blob: Descriptor, sink: Sink) -> None:
        """Reads a blob into a sink. As `CacheBackend.fetch`."""
        key = self._blobs + blob.digest
        try:
            self._patience.pour(key, blob, sink, lambda offset: self._pieces(key, offset, blob.size))
        except _Missing:
            raise self._error(key, "there is no such object") from None

    def stop(self) -> None:
        """Ends all transfers soon, from any thread."""
        self._patience.stop()

    def close(self) -> None:
        """Lets go of connections; safe to call twice."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # ---- objects -------------------------------------------------------------------------------

    def _put_parts(self, key: str, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Uploads in parts; an upload that fails is given up, so that nobody pays for its parts."""
        upload: str = self._patience.run(
            key, lambda: self._ask(key, "create_multipart_upload", Key=key)["UploadId"]
        )
        where = {"Key": key, "UploadId": upload}
        try:
            tags = self._patience.send_parts(
                key,
                blob,
                open_blob,
                lambda number, data: self._ask(key, "upload_part", **where, PartNumber=number + 1, Body=data)[
                    "ETag"
                ],
            )
            self._complete(key, where, tags)
        except BaseException:
            self._give_up(where)
            raise

    def _complete(self, key: str, where: dict[str, str], tags: Sequence[str]) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self._patience.run(
            key,
            lambda: self._ask(key, "complete_multipart_upload", **where, MultipartUpload={"Parts": parts}),
        )

    def _give_up(self, where: dict[str, str]) -> None:
        """Has the parts of an upload removed, in a thread that nobody waits for: its error is known."""

        def abort() -> None:
            try:
                self._ask(where["Key"], "abort_multipart_upload", **where)
            except (CacheError, Passing, _Missing):
                pass  # a rule of the bucket for incomplete uploads is what remains

        threading.Thread(target=abort, daemon=True).start()

    def _touch(self, key: str, size: int) -> None:
        """Copies an object onto itself, which makes it young to the bucket's rules."""
        source = {"Bucket": self._bucket, "Key": key}
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if size <= _LARGEST_COPY:
            self._ask(
                key, "copy_object", Key=key, CopySource=source,
                MetadataDirective="REPLACE", Metadata={"refreshed": now},
            )  # fmt: skip
            return
        upload = self._ask(key, "create_multipart_upload", Key=key, Metadata={"refreshed": now})["UploadId"]
        where = {"Key": key, "UploadId": upload}
        try:
            tags = []
            for number, start in enumerate(range(0, size, _COPY_PART_BYTES), 1):
                end = min(size, start + _COPY_PART_BYTES) - 1
                part = self._ask(
                    key, "upload_part_copy", **where, PartNumber=number, CopySource=source,
                    CopySourceRange=f"bytes={start}-{end}",
                )  # fmt: skip
                tags.append(part["CopyPartResult"]["ETag"])
            self._complete(key, where, tags)
        except BaseException:
            self._give_up(where)
            raise

    def _get_small(self, key: str) -> bytes | None:
        try:
            answer = self._ask(key, "get_object", Key=key)
        except _Missing:
            return None
        with answer["Body"] as body:
            data = self._read(key, body, MAX_INDEX_BYTES + 1)
        if len(data) > MAX_INDEX_BYTES:
            raise self._error(key, f"longer than {MAX_INDEX_BYTES} bytes")
        return data

    def _pieces(self, key: str, offset: int, size: int) -> Iterator[bytes]:
        """The object's bytes from an offset on."""
        if offset and offset >= size:
            return
        ranged = {"Range": f"bytes={offset}-{size - 1}"} if offset else {}
        answer = self._ask(key, "get_object", Key=key, **ranged)
        with answer["Body"] as body:
            partial = offset if answer.get("ContentRange") else 0
            if answer["ContentLength"] + partial != size:
                raise SizeMismatch(size, answer["ContentLength"] + partial)
            pieces = iter(lambda: self._read(key, body, PIECE_BYTES), b"")
            yield from skipping(pieces, offset - partial)

    # ---- requests ------------------------------------------------------------------------------

    def _client(self) -> Any:
        with self._lock:
            if self._connection is None:
                from img.cache.aws import Connection

                self._connection = Connection(self._spec, self._reach, self._limits)
            return self._connection.client

    def _ask(self, key: str, method: str, **arguments: Any) -> Any:
        """Calls a method of boto3's client.

        Raises:
            _Missing: there is no such object.
            CacheError: it failed, after as many tries as boto3 made.
        """
        return self._guarded(key, lambda: getattr(self._client(), method)(Bucket=self._bucket, **arguments))

    def _guarded(self, key: str, work: Callable[[], Any]) -> Any:
        """Calls boto3, and says what went wrong without what it quotes.

        Raises:
            As `_ask`.
        """
        from botocore import exceptions as boto

        try:
            return work()
        except boto.ClientError as error:
            raise self._refusal(key, error.response) from None
        except boto.BotoCoreError as error:
            raise self._failure(key, error) from None

    def _read(self, key: str, body: Any, most: int) -> bytes:
        """Reads from an answer's body; raises Passing where it breaks off."""
        from botocore import exceptions as boto

        def read() -> bytes:
            try:
                data: bytes = body.read(most)
            except boto.ReadTimeoutError:
                raise Passing(self._error(key, f"silent for {self._limits.read_seconds:g} seconds")) from None
            except (boto.IncompleteReadError, boto.ResponseStreamingError):
                raise Passing(self._error(key, "the connection broke")) from None
            return data

        found: bytes = self._guarded(key, read)
        return found

    def _refusal(self, key: str, response: dict[str, Any]) -> Exception:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            return _Missing()
        said = self._clean(str(response.get("Error", {}).get("Message", "")))
        hint = ""
        if code == "NoSuchBucket":
            hint = "create the bucket, or mend its name or the region"
        elif status in (401, 403):
            hint = "check the credentials, and what they may do with this bucket"
        return self._error(
            key, f"refused with {status} {self._clean(code)}{': ' + said if said else ''}", hint
        )

    def _failure(self, key: str, error: Exception) -> CacheError:
        from botocore import exceptions as boto

        from img.cache.aws import shown_endpoint

        with self._lock:
            where = shown_endpoint(self._connection.client) if self._connection else "the store"
        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
            hint = "give access_key_id and secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            return self._error(key, "there are no credentials", hint)
        if isinstance(
            error, boto.CredentialRetrievalError | boto.MetadataRetrievalError | boto.TokenRetrievalError
        ):
            return self._error(
                key, "the credentials could not be fetched", "check the profile, or log in anew"
            )
        if isinstance(error, boto.SSLError):
            hint = "name a file with its authority's certificate in SSL_CERT_FILE"
            return self._error(key, f"TLS with {where} failed", hint)
        if isinstance(error, boto.ReadTimeoutError):
            return self._error(key, f"{where}: silent for {self._limits.read_seconds:g} seconds")
        if isinstance(error, boto.ConnectTimeoutError):
            return self._error(key, f"{where}: no connection within {self._limits.connect_seconds:g} seconds")
        if isinstance(error, boto.ProxyConnectionError):
            return self._error(key, "the proxy gave no connection", "check the proxy's address")
        if isinstance(error, boto.EndpointConnectionError | boto.HTTPClientError):
            return self._error(key, f"{where}: no connection", "check endpoint_url and region")
        return self._error(key, self._clean(str(error)))

    def _error(self, key: str, reason: str, hint: str = "") -> CacheError:
        return self._patience.error(f"{key}: {reason}", hint)

    def _clean(self, text: str) -> str:
        """Text from outside, without control characters and without the credentials."""
        from img.registry.faults import clean

        for name in ("secret_access_key", "session_token", "access_key_id"):
            for secret in (self._spec.attributes.get(name), self._reach.variables.get(f"AWS_{name.upper()}")):
                if secret:
                    text = text.replace(secret, "…")
        return clean(text)[:_MOST_TEXT]

    def _used(self, blob: Descriptor) -> None:
        with self._lock:
            self._fresh.add(blob.digest)


class _Missing(Exception):
    """There is no such object."""
