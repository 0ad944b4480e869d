"""A proxy on loopback that stands between a client and a real server, and spoils what it is told to.

Owes nothing to the program under test.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "expect"})


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with some requests.

    Attributes:
        method, path: Which ones: those of this method whose path and query have this part; empty for any.
        bodiless: Only those that have no body.
        skip: How many of them are spared first.
        times: How many of them, then.
        status: Answers with this status, and asks nobody.
        headers, body: Of that answer.
        cut: Bytes of the real answer's body after which the connection breaks.
        flip: Changes the first byte of the real answer's body.
        hang: Answers nothing until the proxy is closed.
        hang_up: Breaks the connection in the middle of the request's body.
        drip: Sends the real answer's head and nothing more until the proxy is closed.
    """

    method: str = ""
    path: str = ""
    bodiless: bool = False
    skip: int = 0
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    flip: bool = False
    hang: bool = False
    hang_up: bool = False
    drip: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request that came by, and the status of its answer (0: none)."""

    method: str
    path: str
    headers: Mapping[str, str]
    body_bytes: int
    status: int


class Between:
    """The proxy; a context manager.

    Attributes:
        faults: What goes wrong; the first that fits is taken.
        seen: What came by, in order.
        target: The real server's port.
        waiting: Set once a request hangs or drips.
    """

    def __init__(self, port: int) -> None:
        """Starts nothing yet. `port`: the real server's, on loopback."""
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.waiting = threading.Event()
        self.target = port
        self._closing = threading.Event()
        self._lock = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Between:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def spoil(self, **fault: object) -> None:
        """Adds a fault."""
        self.faults.append(Fault(**fault))  # type: ignore[arg-type]

    def count(self, method: str, path: str = "") -> int:
        """How many requests of a kind came by."""
        return sum(1 for seen in self.seen if seen.method == method and path in seen.path)

    def wait_for(self, method: str, path: str = "") -> None:
        """Waits until a request of a kind came by, and was answered by the real server."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.count(method, path), timeout=120)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def answer(self) -> None:
                between.answer(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        fault = self._fault(request)
        length = int(request.headers.get("Content-Length", 0))
        body = request.rfile.read(length // 2 if fault.hang_up else length)
        if fault.hang_up:
            self._note(request, body, 0)
            request.close_connection = True
            return
        if fault.hang:
            self._note(request, body, 0)
            request.close_connection = True
            self._wait()
            return
        if fault.status:
            self._note(request, body, fault.status)
            self._send(request, fault.status, fault.headers, fault.body, fault)
            return
        status, headers, data = self._ask(request, body)
        self._note(request, body, status)
        if fault.flip and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        self._send(request, status, headers, data, fault)

    def _fault(self, request: BaseHTTPRequestHandler) -> Fault:
        with self._lock:
            for fault in self.faults:
                fits = fault.method in ("", request.command) and fault.path in request.path
                if fault.bodiless and request.headers.get("Content-Length", "0") != "0":
                    fits = False
                if fits and fault.skip:
                    fault.skip -= 1
                elif fits and fault.times:
                    fault.times -= 1
                    return fault
        return Fault()

    def _note(self, request: BaseHTTPRequestHandler, body: bytes, status: int) -> None:
        with self._lock:
            self.seen.append(
                Seen(
                    method=request.command,
                    path=request.path,
                    headers=dict(request.headers),
                    body_bytes=len(body),
                    status=status,
                )
            )
            self._lock.notify_all()

    def _wait(self) -> None:
        self.waiting.set()
        self._closing.wait(120)

    def _ask(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
            connection.request(request.command, request.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = dict(answer.getheaders())
            if request.command != "HEAD":
                kept["Content-Length"] = str(len(data))
            return answer.status, kept, data
        finally:
            connection.close()

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: Mapping[str, str],
        data: bytes,
        fault: Fault,
    ) -> None:
        request.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            if name.lower() not in _HOP or name == "Content-Length":
                request.send_header(name, value)
        request.end_headers()
        if fault.drip:
            request.wfile.flush()
            request.close_connection = True
            self._wait()
            return
        if fault.cut is not None:
            request.close_connection = True
            data = data[: fault.cut]
        if request.command != "HEAD":
            request.wfile.write(data)
