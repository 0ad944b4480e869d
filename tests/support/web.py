"""A web server on loopback that counts what it is asked, and can be told to misbehave.

`Web` serves pages from memory, plain or over TLS. Owes nothing to the program under test.
"""

from __future__ import annotations

import email.utils
import hashlib
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

MODIFIED = 1_500_000_000
"""The time of every page: 2017-07-14 02:40:00 UTC."""


@dataclass(kw_only=True)
class Page:
    """One path.

    Attributes:
        etag: Send an ETag, and answer 304 to those who know it.
        modified: Seconds of Last-Modified; 0 sends none.
        location: Redirects there.
        cut: Bytes after which the connection breaks, as often as there are entries.
        secret: The Authorization header without which it answers 401.
        sized: Send Content-Length; else the body ends with the connection.
        headers: What is sent besides.
    """

    data: bytes = b""
    status: int = 200
    etag: bool = True
    modified: int = MODIFIED
    location: str = ""
    cut: list[int] = field(default_factory=list)
    failures: int = 0
    secret: str = ""
    sized: bool = True
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, and the status of its answer."""

    path: str
    headers: dict[str, str]
    status: int


class Web:
    """The server; a context manager.

    Attributes:
        pages: What there is, by path.
        asked: What was asked for, in order.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """Starts nothing yet."""
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.scheme = "https" if tls is not None else "http"
        self.port = self._server.server_port

    def __enter__(self) -> Web:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, path: str, data: bytes | str, **options: object) -> str:
        """Serves a page; gives its URL."""
        body = data.encode() if isinstance(data, str) else data
        self.pages[path] = Page(data=body, **options)  # type: ignore[arg-type]
        return self.url(path)

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        """The URL of a path. `localhost` is another host than `127.0.0.1`, to those who compare names."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def statuses(self, path: str) -> list[int]:
        """The statuses of all answers for a path, in order."""
        return [asked.status for asked in self.asked if asked.path == path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.answer(self)

            def do_POST(self) -> None:
                web.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        path = request.path.partition("?")[0]
        page = self.pages.get(path, Page(status=404, data=b"no\n", etag=False))
        if page.secret and request.headers.get("Authorization") != page.secret:
            page = Page(status=401, data=b"who?\n", etag=False)
        elif page.failures:
            page.failures -= 1
            page = Page(status=503, etag=False)
        tag = f'"{hashlib.md5(page.data).hexdigest()}"'
        known = page.etag and request.headers.get("If-None-Match") == tag
        start = self._start(request, page, tag)
        status = 304 if known else 206 if start else page.status
        self.asked.append(Asked(path=path, headers=dict(request.headers), status=status))
        request.send_response(status)
        for name, value in page.headers.items():
            request.send_header(name, value)
        if page.location:
            request.send_header("Location", page.location)
        if page.etag:
            request.send_header("ETag", tag)
        if page.modified:
            request.send_header("Last-Modified", email.utils.formatdate(page.modified, usegmt=True))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(page.data) - 1}/{len(page.data)}")
        body = b"" if known else page.data[start:]
        if page.sized:
            request.send_header("Content-Length", str(len(body)))
        else:
            request.send_header("Connection", "close")
            request.close_connection = True
        request.end_headers()
        if page.cut and not known:
            request.close_connection = True
            body = body[: page.cut.pop(0)]
        request.wfile.write(body)

    def _start(self, request: BaseHTTPRequestHandler, page: Page, tag: str) -> int:
        """Where a resumed transfer goes on; 0 where it starts anew."""
        words = request.headers.get("Range", "")
        fits = page.etag and request.headers.get("If-Range") == tag
        return int(words.removeprefix("bytes=").rstrip("-")) if words and fits else 0
