"""The cache service of GitHub's Actions on loopback: both versions of its protocol, and its storage.

Entries are written once, found once they are ended, and looked up by key or by how their key begins, the
newest first. Bytes go to what stands for Azure's storage. Owes nothing to the program under test.
Source: the package `cache` of github.com/actions/toolkit; Azure Storage REST API.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote

SIGNATURE = "sig=s1gned"
_RPC = "/twirp/github.actions.results.api.v1.CacheService/"
_V1 = "/_apis/artifactcache/"


def token(*scopes: tuple[str, int]) -> str:
    """A token as the runner gives it: its claim `ac` lists branches and permissions (1 reads, 2 writes)."""
    ac = json.dumps([{"Scope": name, "Permission": permission} for name, permission in scopes])
    payload = base64.urlsafe_b64encode(json.dumps({"ac": ac}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.c2lnbmF0dXJl"


@dataclass(kw_only=True)
class Stored:
    """One entry."""

    number: int
    key: str
    version: str
    data: bytes = b""
    done: bool = False
    blocks: dict[str, bytes] = field(default_factory=dict)
    ranges: dict[int, bytes] = field(default_factory=dict)


class Actions:
    """The service; a context manager.

    Attributes:
        token: What it takes.
        entries: By number, in the order in which they were begun.
        read_only: Refuses new entries.
        modern: Knows version 2; else only version 1.
    """

    def __init__(self, *, accepts: str) -> None:
        """Starts nothing yet."""
        self.token = accepts
        self.entries: dict[int, Stored] = {}
        self.read_only = False
        self.modern = True
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Actions:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def found(self) -> list[str]:
        """The keys of all entries that can be found, sorted."""
        return sorted(entry.key for entry in self.entries.values() if entry.done)

    def begin(self, key: str, version: str) -> Stored | None:
        """Begins an entry; None where there is one."""
        with self._lock:
            if any((entry.key, entry.version) == (key, version) for entry in self.entries.values()):
                return None
            number = len(self.entries) + 1
            self.entries[number] = Stored(number=number, key=key, version=version)
            return self.entries[number]

    def find(self, keys: list[str], prefixes: list[str], version: str) -> Stored | None:
        """Looks an entry up."""
        done = [entry for entry in self.entries.values() if entry.done and entry.version == version]
        for key in keys:
            for entry in done:
                if entry.key == key:
                    return entry
        for prefix in prefixes:
            for entry in reversed(done):
                if entry.key.startswith(prefix):
                    return entry
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                _Call(service, self, body).carry_out()

            do_GET = do_PUT = do_POST = do_PATCH = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class _Call:
    """One request."""

    def __init__(self, service: Actions, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.service = service
        self.handler = handler
        self.method = handler.command
        self.path, _, query = handler.path.partition("?")
        self.query = parse_qs(query, keep_blank_values=True)
        self.raw_query = query
        self.headers = handler.headers
        self.body = body
        self.base = f"http://{handler.headers['Host']}"

    def carry_out(self) -> None:
        if self.path.startswith("/storage/"):
            self.storage()
        elif self.headers.get("Authorization") != f"Bearer {self.service.token}":
            self.say(401, {"code": "unauthenticated", "msg": "who is asking?"})
        elif self.path.startswith(_RPC) and self.service.modern:
            self.version_two(self.path.removeprefix(_RPC))
        elif self.path.startswith(_V1):
            self.version_one(self.path.removeprefix(_V1))
        elif self.path.startswith("/repos/"):
            self.listing()
        else:
            self.send(404, b"<html>no such page</html>", {"Content-Type": "text/html"})

    # ---- version 2 -----------------------------------------------------------------------------

    def version_two(self, method: str) -> None:
        asked = json.loads(self.body)
        assert self.headers["Content-Type"] == "application/json"
        key, version = asked["key"], asked["version"]
        assert re.fullmatch("[0-9a-f]{64}", version) and len(key) <= 512 and "," not in key
        if method == "CreateCacheEntry":
            if self.service.read_only:
                self.say(200, {"ok": False, "message": "cache write denied: token has no writable scopes"})
                return
            begun = self.service.begin(key, version)
            if begun is None:
                self.say(409, {"code": "already_exists", "msg": "cache entry already exists"})
            else:
                self.say(200, {"ok": True, "signed_upload_url": self.signed(begun)})
        elif method == "FinalizeCacheEntryUpload":
            entry = next(e for e in self.service.entries.values() if (e.key, e.version) == (key, version))
            entry.done = len(entry.data) == int(asked["size_bytes"])
            self.say(200, {"ok": entry.done, "entry_id": str(entry.number)})
        else:
            assert method == "GetCacheEntryDownloadURL"
            found = self.service.find([key], asked["restore_keys"], version)
            if found is None:
                self.say(200, {"ok": False, "signed_download_url": "", "matched_key": ""})
            else:
                answer = {"ok": True, "signed_download_url": self.signed(found), "matched_key": found.key}
                self.say(200, answer)

    def signed(self, entry: Stored) -> str:
        return f"{self.base}/storage/{entry.number}?sv=2024-01-01&{SIGNATURE}"

    # ---- version 1 -----------------------------------------------------------------------------

    def version_one(self, rest: str) -> None:
        assert "api-version=6.0-preview.1" in self.headers["Accept"]
        if self.method == "GET" and rest == "cache":
            keys = self.query["keys"][0].split(",")
            found = self.service.find(keys[:1], keys, self.query["version"][0])
            if found is None:
                self.send(204, b"", {})
            else:
                self.say(200, {"cacheKey": found.key, "archiveLocation": self.signed(found), "scope": "x"})
        elif self.method == "POST" and rest == "caches":
            asked = json.loads(self.body)
            begun = self.service.begin(asked["key"], asked["version"])
            if begun is None:
                self.say(
                    409, {"message": "Cache already exists.", "typeKey": "ArtifactCacheItemAlreadyExists"}
                )
            else:
                self.say(201, {"cacheId": begun.number})
        elif self.method == "PATCH":
            match = re.fullmatch(r"bytes (\d+)-(\d+)/\*", self.headers["Content-Range"])
            assert match and int(match[2]) - int(match[1]) + 1 == len(self.body)
            self.entry(rest).ranges[int(match[1])] = self.body
            self.send(204, b"", {})
        else:
            entry = self.entry(rest)
            for start in sorted(entry.ranges):
                assert start == len(entry.data), "the ranges have a hole"
                entry.data += entry.ranges[start]
            entry.done = len(entry.data) == json.loads(self.body)["size"]
            self.send(204 if entry.done else 400, b"", {})

    def entry(self, rest: str) -> Stored:
        return self.service.entries[int(rest.removeprefix("caches/"))]

    # ---- the storage ---------------------------------------------------------------------------

    def storage(self) -> None:
        assert "Authorization" not in self.headers, "the token went to the storage"
        if SIGNATURE not in self.raw_query:
            self.send(403, b"", {"x-ms-error-code": "AuthenticationFailed"})
            return
        entry = self.service.entries[int(self.path.removeprefix("/storage/"))]
        if self.method == "GET":
            self.download(entry)
        elif self.query.get("comp") == ["block"]:
            entry.blocks[unquote(self.query["blockid"][0])] = self.body
            self.send(201, b"", {})
        elif self.query.get("comp") == ["blocklist"]:
            names = re.findall("<Latest>(.*?)</Latest>", self.body.decode())
            entry.data = b"".join(entry.blocks[name] for name in names)
            self.send(201, b"", {})
        else:
            assert self.headers["x-ms-blob-type"] == "BlockBlob"
            entry.data = self.body
            self.send(201, b"", {})

    def download(self, entry: Stored) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            self.send(200, entry.data, {})
            return
        start = int(match[1])
        size = len(entry.data)
        self.send(206, entry.data[start:], {"Content-Range": f"bytes {start}-{size - 1}/{size}"})

    # ---- GitHub's REST API ---------------------------------------------------------------------

    def listing(self) -> None:
        page, count = int(self.query["page"][0]), int(self.query["per_page"][0])
        keys = [key for key in self.service.found() if key.startswith(self.query["key"][0])]
        shown = keys[(page - 1) * count : page * count]
        self.say(200, {"total_count": len(keys), "actions_caches": [{"key": key} for key in shown]})

    # ---- answers -------------------------------------------------------------------------------

    def say(self, status: int, data: Any) -> None:
        self.send(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.handler.send_response_only(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        if status != 204:
            self.handler.send_header("Content-Length", str(len(data)))
        self.handler.end_headers()
        self.handler.wfile.write(data)
