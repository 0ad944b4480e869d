"""Git repositories, and servers for them on loopback: `git http-backend` behind a web server, `git daemon`.

Everything that a repository holds is written with one name and one time, so hashes are the same anywhere.
"""

from __future__ import annotations

import socketserver
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType

from tests.support.web import Web

COMMITTED = 1_400_000_000
"""The time of every commit: 2014-05-13 16:53:20 UTC."""


def environment(home: Path) -> dict[str, str]:
    """What git needs to make the same commits anywhere."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in
           (("NAME", "Nobody"), ("EMAIL", "nobody@example.org"), ("DATE", f"{COMMITTED} +0000"))}  # fmt: skip
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", **who}


class Repository:
    """A bare repository in `root/<name>.git`, and the working folder whose commits it has."""

    def __init__(self, root: Path, name: str, *, hashes: str = "sha1") -> None:
        """Makes both; the branch is `main`."""
        kind = f"--object-format={hashes}"
        self.bare = root / f"{name}.git"
        self.work = root / f"{name}.work"
        root.mkdir(parents=True, exist_ok=True)
        self._home = root
        self.git("init", "--quiet", kind, "--bare", "-b", "main", str(self.bare), at=root)
        self.git("init", "--quiet", kind, "-b", "main", str(self.work), at=root)
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *words: str, at: Path | None = None) -> str:
        """Runs git in the working folder; gives what it printed."""
        done = subprocess.run(
            ["git", *words], cwd=at or self.work, env=environment(self._home), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"git {words}: {done.stderr}"
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | bytes | None], message: str = "change") -> str:
        """Writes files (None removes one), commits and publishes; gives the commit's hash."""
        for name, content in files.items():
            path = self.work / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.publish(message)

    def publish(self, message: str = "change") -> str:
        """Commits what lies there, and publishes it."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.push()
        return self.git("rev-parse", "HEAD")

    def push(self) -> None:
        """Publishes branches and tags."""
        self.git("push", "--quiet", "--force", "--all", "origin")
        self.git("push", "--quiet", "--force", "--tags", "origin")

    def submodule(self, path: str, url: str, commit: str) -> str:
        """Commits a submodule without fetching it; gives the commit's hash."""
        known = self.work / ".gitmodules"
        text = known.read_text() if known.exists() else ""
        known.write_text(f'{text}[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
        self.git("add", ".gitmodules")
        self.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self.git("commit", "--quiet", "-m", f"submodule {path}")
        self.push()
        return self.git("rev-parse", "HEAD")


class GitWeb(Web):
    """A web server that also serves the repositories below `root`, under `/git/`.

    Attributes:
        git_secret: The Authorization header that git must bring; empty for none.
        git_age: `old` speaks the first protocol alone, which gives no commit that no ref names; `plain`
            serves a repository's files as they lie there.
    """

    def __init__(self, root: Path) -> None:
        """Starts nothing yet."""
        super().__init__()
        self.root = root
        self.git_secret = ""
        self.git_age = ""
        self.git_seen: list[str] = []

    def __enter__(self) -> GitWeb:
        super().__enter__()
        return self

    def repository(self, name: str, *, host: str = "127.0.0.1") -> str:
        """The URL of a repository."""
        return self.url(f"/git/{name}.git", host=host)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request, by `git http-backend` where it is git's."""
        path, _, query = request.path.partition("?")
        if not path.startswith("/git/"):
            super().answer(request)
            return
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        self.git_seen.append(f"{request.command} {request.path}")
        if self.git_secret and request.headers.get("Authorization") != self.git_secret:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if self.git_age == "plain":
            self._plain(request, self.root / path.removeprefix("/git/"))
        else:
            self._backend(request, path.removeprefix("/git"), query, body)

    def _plain(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        data = file.read_bytes() if file.is_file() else None
        request.send_response(404 if data is None else 200)
        request.send_header("Content-Length", str(len(data or b"")))
        request.end_headers()
        request.wfile.write(data or b"")

    def _backend(self, request: BaseHTTPRequestHandler, path: str, query: str, body: bytes) -> None:
        env = {
            **environment(self.root),
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", "") if not self.git_age else "",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        request.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


class GitDaemon:
    """`git daemon` on loopback, one for each connection; a context manager that gives the URL of its root."""

    def __init__(self, root: Path) -> None:
        """Starts nothing yet."""

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                subprocess.run(
                    ["git", "daemon", "--inetd", "--export-all", f"--base-path={root}", str(root)],
                    env=environment(root), stdin=self.request, stdout=self.request,
                    stderr=subprocess.DEVNULL, check=False,
                )  # fmt: skip

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return f"git://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
