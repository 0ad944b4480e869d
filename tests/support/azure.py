"""Azure's blob storage on loopback, as far as a cache needs it: containers, block blobs, signatures.

Owes nothing to the program under test. Source: Azure Storage REST API.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, unquote

ACCOUNT = "cachetests"
KEY = base64.b64encode(b"the key of the account of the tests").decode()
SIGNATURE = "sv=2024-01-01&sp=rcw&sig=s1gned%2Bsecret%3D"
_SIGNED = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
           "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")  # fmt: skip


@dataclass(kw_only=True)
class StoredBlob:
    """One blob, committed or not."""

    data: bytes | None = None
    modified: float = field(default_factory=time.time)
    metadata: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, bytes] = field(default_factory=dict)


class Azure:
    """The storage; a context manager. The account is the first part of each path, as in emulators.

    Attributes:
        blobs: By container and name.
        url: The account's.
    """

    def __init__(self) -> None:
        """Starts nothing yet."""
        self.containers: set[str] = set()
        self.blobs: dict[tuple[str, str], StoredBlob] = {}
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def __enter__(self) -> Azure:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def names(self) -> list[str]:
        """`container/blob` of all blobs that can be read, sorted."""
        return sorted("/".join(key) for key, blob in self.blobs.items() if blob.data is not None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        azure = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                _Call(azure, self, body).carry_out()

            do_GET = do_HEAD = do_PUT = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class _Call:
    """One request."""

    def __init__(self, azure: Azure, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.azure = azure
        self.handler = handler
        self.method = handler.command
        self.path, _, self.raw_query = handler.path.partition("?")
        self.query = parse_qs(self.raw_query, keep_blank_values=True)
        self.headers = handler.headers
        self.body = body

    def carry_out(self) -> None:
        account, container, *rest = self.path.lstrip("/").split("/", 2)
        assert account == ACCOUNT and self.headers["x-ms-version"]
        if not self.allowed():
            self.refuse(403, "AuthenticationFailed")
        elif self.query.get("restype") == ["container"]:
            self.container(container)
        elif container not in self.azure.containers:
            self.refuse(404, "ContainerNotFound")
        elif self.method == "PUT":
            self.put((container, unquote(rest[0])))
        else:
            self.get((container, unquote(rest[0])))

    def allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if not given:
            return SIGNATURE in self.raw_query
        values = [self.headers.get(name, "") for name in _SIGNED]
        if values[2] == "0":
            values[2] = ""
        own = sorted((n.lower(), v) for n, v in self.headers.items() if n.lower().startswith("x-ms-"))
        text = "\n".join([self.method, *values]) + "\n"
        text += "".join(f"{name}:{value}\n" for name, value in own)
        text += f"/{ACCOUNT}{self.path}"
        text += "".join(f"\n{name}:{','.join(value)}" for name, value in sorted(self.query.items()))
        mac = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        return given == f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"

    def container(self, name: str) -> None:
        with self.azure.lock:
            there = name in self.azure.containers
            if self.method == "PUT":
                self.azure.containers.add(name)
        if self.method == "PUT":
            self.refuse(409, "ContainerAlreadyExists") if there else self.send(201)
        else:
            self.send(200) if there else self.refuse(404, "ContainerNotFound")

    def put(self, key: tuple[str, str]) -> None:
        with self.azure.lock:
            blob = self.azure.blobs.setdefault(key, StoredBlob())
        comp = self.query.get("comp")
        if comp == ["block"]:
            blob.blocks[self.query["blockid"][0]] = self.body
        elif comp == ["metadata"]:
            own = {n.lower(): v for n, v in self.headers.items() if n.lower().startswith("x-ms-meta-")}
            blob.metadata, blob.modified = own, time.time()
        elif comp == ["blocklist"]:
            names = re.findall("<Latest>(.*?)</Latest>", self.body.decode())
            blob.data, blob.modified = b"".join(blob.blocks[name] for name in names), time.time()
        else:
            assert self.headers["x-ms-blob-type"] == "BlockBlob"
            blob.data, blob.modified = self.body, time.time()
        self.send(200 if comp == ["metadata"] else 201)

    def get(self, key: tuple[str, str]) -> None:
        blob = self.azure.blobs.get(key)
        if blob is None or blob.data is None:
            self.refuse(404, "BlobNotFound")
            return
        headers = {"Last-Modified": email.utils.formatdate(blob.modified, usegmt=True)}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            self.send(200, blob.data, headers)
            return
        start, size = int(match[1]), len(blob.data)
        self.send(206, blob.data[start:], {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"})

    def refuse(self, status: int, code: str) -> None:
        self.send(status, f"<Error><Code>{code}</Code></Error>".encode(), {"x-ms-error-code": code})

    def send(self, status: int, data: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.handler.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.method != "HEAD":
            self.handler.wfile.write(data)
