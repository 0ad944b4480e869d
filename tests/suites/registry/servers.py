"""Servers on loopback: Debian's docker-registry, and a registry that errs as told."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from img.oci import Index, Manifest, sha256

USER, PASSWORD = "ali", "open sesame"
# The password, hashed with bcrypt at its lowest cost.
HTPASSWD = f"{USER}:$2b$04$VI3hoehx4mKMBVB/jDnVfeKnUck.5WxPzjgvVjKHETUK.VLYBdb3O"


class Call:
    """One request as a server saw it, and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.method = handler.command
        self.path, _, self.query = handler.path.partition("?")
        self.headers = handler.headers
        length = int(handler.headers.get("Content-Length", 0))
        self.body = handler.rfile.read(length)
        if len(self.body) < length:
            raise ConnectionResetError("the client gave up in the middle of its body")

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")

    @property
    def fields(self) -> dict[str, list[str]]:
        """The query, and a form in the body."""
        return parse_qs(self.query + "&" + (self.body.decode() if "form" in self._kind else ""))

    @property
    def _kind(self) -> str:
        return self.headers.get("Content-Type", "")

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answers in whole."""
        self.begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.method != "HEAD":
            self.send(body)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Answers as far as the empty line."""
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        self._handler.wfile.write(data)

    def hang_up(self) -> None:
        """Ends the connection after this request."""
        self._handler.close_connection = True


class _Six(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class Server:
    """An HTTP server that answers with `serve`, and remembers what it was asked."""

    def __init__(self, certificate: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        server = self
        self.calls: list[Call] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_any(self) -> None:
                try:
                    call = Call(self)
                    server.calls.append(call)
                    server.serve(call)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client had enough

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        kind = _Six if ":" in address else ThreadingHTTPServer
        self._httpd = kind((address, 0), Handler)
        self._httpd.daemon_threads = True
        self._httpd.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate:
            self._httpd.socket = certificate.wrap_socket(
                self._httpd.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"{f'[{address}]' if ':' in address else address}:{self._httpd.server_port}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def serve(self, call: Call) -> None:
        raise NotImplementedError

    def seen(self, method: str, ending: str = "") -> list[Call]:
        """The requests of a method whose path ends so."""
        return [c for c in self.calls if c.method == method and c.path.endswith(ending)]


Fault = Callable[["FaultyRegistry", Call], None]


class FaultyRegistry(Server):
    """A registry that can be read, with faults in store for a path: each is used for one request."""

    def __init__(self, certificate: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        super().__init__(certificate, address)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.ranges = True

    def add(
        self, document: Manifest | Index, blobs: Mapping[str, bytes] | None = None, tag: str = ""
    ) -> None:
        """Offers a document under its digest and a tag, and blobs."""
        self.blobs.update(blobs or {})
        for name in filter(None, (document.digest, tag)):
            self.manifests[name] = (document.media_type, document.raw)

    def fail(self, name: str, *faults: Fault) -> None:
        """Has faults in store for a blob's digest, a manifest's tag or digest."""
        self.faults[name].extend(faults)

    def serve(self, call: Call) -> None:
        name = call.path.rpartition("/")[2]
        if self.faults[name]:
            self.faults[name].popleft()(self, call)
        elif name in self.manifests:
            kind, raw = self.manifests[name]
            call.answer(200, raw, {"Content-Type": kind, "Docker-Content-Digest": sha256(raw)})
        elif name in self.blobs:
            self.serve_blob(call, self.blobs[name])
        else:
            error = {"errors": [{"code": "UNKNOWN", "message": f"no {name} here"}]}
            call.answer(404, json.dumps(error).encode(), {"Content-Type": "application/json"})

    def serve_blob(self, call: Call, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", call.headers.get("Range", ""))
        if asked and self.ranges:
            start, end = int(asked[1]), int(asked[2])
            call.answer(
                206, content[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
            )
        else:
            call.answer(200, content)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answers with a status."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda server, call: call.answer(code, body, given)


def cut(after: int) -> Fault:
    """Sends some bytes of the blob (of the part that was asked for) and breaks the connection."""

    def fault(server: FaultyRegistry, call: Call) -> None:
        content = server.blobs[call.path.rpartition("/")[2]]
        asked = re.fullmatch(r"bytes=(\d+)-\d+", call.headers.get("Range", ""))
        start = int(asked[1]) if asked and server.ranges else 0
        headers = {"Content-Length": str(len(content) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        call.begin(206 if start else 200, headers)
        call.send(content[start : start + after])
        call.hang_up()

    return fault


def stall(after: int, started: threading.Event, until: threading.Event) -> Fault:
    """Sends some bytes of the blob and then nothing, until it is let go."""

    def fault(server: FaultyRegistry, call: Call) -> None:
        content = server.blobs[call.path.rpartition("/")[2]]
        call.begin(200, {"Content-Length": str(len(content))})
        call.send(content[:after])
        started.set()
        until.wait(120)
        call.hang_up()

    return fault


def endless(server: FaultyRegistry, call: Call) -> None:
    """Sends a body that never ends and does not say how long it is."""
    call.begin(200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
    call.hang_up()
    while True:
        call.send(b" " * 65536)


class Guard(FaultyRegistry):
    """A registry that wants a token, and the server that sells it, in one."""

    def __init__(self, *, expires_in: float | None = 300, field: str = "token") -> None:
        super().__init__()
        self.realm = f"http://{self.host}/token"
        self.expires_in = expires_in
        self.field = field
        self.sold: list[str] = []

    def serve(self, call: Call) -> None:
        if call.path == "/token":
            if self.faults["token"]:
                self.faults["token"].popleft()(self, call)
                return
            self.sold.append(f"token-{len(self.sold)}")
            paper = {self.field: self.sold[-1], "expires_in": self.expires_in}
            call.answer(200, json.dumps(paper).encode())
        elif call.authorization.removeprefix("Bearer ") in self.sold:
            super().serve(call)
        else:
            scope = f"repository:{call.path.split('/')[2]}:pull"
            asks = f'Bearer realm="{self.realm}",service="a, quoted service",scope="{scope}"'
            call.answer(401, b"", {"WWW-Authenticate": asks})


class DockerRegistry:
    """Debian's docker-registry on a free port of loopback, with its data in `folder`."""

    def __init__(self, folder: Path, auth: Mapping[str, object] | None = None) -> None:
        self._config = folder / "config.json"
        config = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": "127.0.0.1:0"},
        }
        self._config.write_text(json.dumps({**config, **({"auth": auth} if auth else {})}))

    def __enter__(self) -> DockerRegistry:
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        )
        log = self._process.stderr
        assert log is not None
        lines = []
        for line in log:
            lines.append(line)
            if found := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
                self.host = found[1]
                self._reader = threading.Thread(target=log.read, daemon=True)
                self._reader.start()
                return self
        raise RuntimeError("docker-registry did not start:\n" + "".join(lines))

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
