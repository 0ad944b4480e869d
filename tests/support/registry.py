"""A real registry on loopback, and ones that lie.

`Registry` is Debian's `docker-registry` on a free port. `Broken` serves one image layout over the
distribution protocol and can be told to damage what it serves.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

# bcrypt of "secret".
SECRET_HASH = "$2b$10$c2FsdHNhbHRzYWx0c2FsdOUx1cyUSgjxeu28He7/0ctoqWLbm4FUy"


class Registry:
    """One `docker-registry` process with its storage in `folder`; a context manager.

    Attributes:
        host: `127.0.0.1:<port>`, the registry part of references into it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        htpasswd: str = "",
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
        proxy: str = "",
        readonly: bool = False,
        address: str = "127.0.0.1",
        auth: Mapping[str, object] | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            htpasswd: Lines of user names and bcrypt hashes, or none.
            port: A free port, for a registry that is to be found again where it was; 0: any.
            tls: Its certificate and key, PEM files each.
            client_ca: Authorities of the certificates that it wants to be shown, a PEM file.
            proxy: URL of the registry whose pull-through mirror it is.
            readonly: It can only be pulled from.
            address: The loopback address that it listens on.
            auth: Its configuration's `auth`, such as a `TokenServer` has, in place of `htpasswd`.
        """
        self.folder = folder
        self.host = ""
        self._port = port
        self._htpasswd = htpasswd
        self._tls = tls
        self._client_ca = client_ca
        self._proxy = proxy
        self._readonly = readonly
        self._address = address
        self._auth = auth
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Registry:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(self._configuration()))
        process = subprocess.Popen(
            ["docker-registry", "serve", str(self.folder / "config.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        )
        self._process = process
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            if "listening on " in line:
                self.host = line.split("listening on ")[1].split('"')[0].split()[0].rstrip(",")
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return self
        raise RuntimeError("docker-registry did not start:\n" + "".join(log))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def push_layout(self, layout: Path, name: str, *, tag: str = "latest") -> str:
        """Copies an OCI layout into the registry; gives the reference to it."""
        reference = f"{self.host}/{name}:{tag}"
        copy(f"oci:{layout}:{tag}", f"docker://{reference}", "--all")
        return reference

    def _configuration(self) -> dict[str, object]:
        storage: dict[str, object] = {
            "filesystem": {"rootdirectory": str(self.folder / "data")},
            "delete": {"enabled": True},
        }
        http: dict[str, object] = {"addr": f"{self._address}:{self._port}"}
        configuration = {"version": 0.1, "log": {"level": "info"}, "storage": storage, "http": http}
        if self._readonly:
            storage["maintenance"] = {"readonly": {"enabled": True}}
        if self._proxy:
            configuration["proxy"] = {"remoteurl": self._proxy}
        if self._tls:
            certificate, key = self._tls
            client = {"clientcas": [str(self._client_ca)]} if self._client_ca else {}
            http["tls"] = {"certificate": str(certificate), "key": str(key), **client}
        if self._auth:
            configuration["auth"] = self._auth
        elif self._htpasswd:
            path = self.folder / "htpasswd"
            path.write_text(self._htpasswd)
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(path)}}
        return configuration


def copy(source: str, target: str, *options: str) -> None:
    """Copies an image with skopeo, which knows nothing of the program under test."""
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", *options]
    command += ["--src-tls-verify=false", "--dest-tls-verify=false", source, target]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": scratch, "XDG_RUNTIME_DIR": scratch, "TMPDIR": scratch},
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


class Broken:
    """Serves one image layout, damaged as told; a context manager.

    `damage` maps a blob's digest to what it does with the bytes: `truncate`, `flip`, `missing`,
    `error` (HTTP 500 for good), `flaky` (HTTP 503 once), `cut` (the connection ends half-way, once).
    Every request is counted in `requests`, as `GET /v2/…`.
    """

    def __init__(self, layout: Path, damage: dict[str, str] | None = None, *, delay: float = 0) -> None:
        """Starts nothing yet. `delay`: seconds that each blob takes, for tests that interrupt it."""
        self.layout = layout
        self.damage = dict(damage or {})
        self.delay = delay
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Broken:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        broken = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                broken.answer(self, body=True)

            def do_HEAD(self) -> None:
                broken.answer(self, body=False)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        """Answers one request of a pull."""
        self.requests.append(f"{request.command} {request.path}")
        parts = request.path.strip("/").split("/")
        if parts == ["v2"]:
            self._send(request, 200, b"{}", body=body)
        elif len(parts) < 4 or parts[-2] not in ("manifests", "blobs"):
            self._send(request, 404, b"{}", body=body)
        else:
            self._content(request, parts[-2], parts[-1], body=body)

    def _content(self, request: BaseHTTPRequestHandler, kind: str, name: str, *, body: bool) -> None:
        entry = json.loads((self.layout / "index.json").read_text())["manifests"][0]
        digest = name if name.startswith("sha256:") else entry["digest"]
        path = self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
        how = self.damage.get(digest, "")
        if how in ("flaky", "cut"):
            del self.damage[digest]
        if how == "missing" or not path.is_file():
            self._send(request, 404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"no"}]}', body=body)
        elif how in ("error", "flaky"):
            self._send(request, 500 if how == "error" else 503, b"{}", body=body)
        else:
            media = entry["mediaType"] if kind == "manifests" else "application/octet-stream"
            if kind == "blobs" and self.delay:
                time.sleep(self.delay)  # the server is slow: nothing here waits for it
            self._send(request, 200, path.read_bytes(), body=body, how=how, media=media, digest=digest)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        *,
        body: bool,
        how: str = "",
        media: str = "application/json",
        digest: str = "",
    ) -> None:
        if how == "flip":
            data = bytes([data[0]]) + bytes(b ^ 1 for b in data[1:])
        sent = data[: len(data) // 2] if how in ("truncate", "cut") else data
        request.send_response(status)
        request.send_header("Content-Type", media)
        request.send_header("Content-Length", str(len(sent) if how == "truncate" else len(data)))
        if digest:
            request.send_header("Docker-Content-Digest", digest)
        request.end_headers()
        if body:
            request.wfile.write(sent)
        if how == "cut":
            request.close_connection = True
