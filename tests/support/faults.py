"""A registry's bad day, on loopback: a proxy before a real registry that carries out a schedule of faults.

`FaultyWay` is the proxy, `Schedule` what goes wrong, `FAULTS` what can. A fault belongs to one kind of
request (`blob-get`, `upload-patch`, ...) and happens at its n-th, or at all from there on. Beside it stands
another host, which answers as the registry does and remembers whether anybody brought it credentials; and a
token server, where the schedule wants one. Owes nothing to the program under test.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "expect", "host"})
_PLACE = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs/uploads|blobs)/(?P<rest>[^?]*)(?P<query>.*)")
OTHER = "sha256:" + "0" * 64
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: The requests that it is about; their method stands at the end: `manifest-get`.
        name: A key of `FAULTS[kind]`.
        nth: Which request of the kind, from 0.
        on: All from that one on.
        at: Where in a body, from 0 to 1.
    """

    kind: str
    name: str
    nth: int = 0
    on: bool = False
    at: float = 0.5

    def __str__(self) -> str:
        when = f"{self.nth}+" if self.on else str(self.nth)
        return f"{self.kind}[{when}]: {self.name} at {self.at:.1f}"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What goes wrong with one pull or push; `guarded`: it needs a token."""

    faults: tuple[Fault, ...] = ()
    guarded: bool = False

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults)) + ("; guarded" if self.guarded else "")


@dataclass
class Exchange:
    """One request, and the means to answer it rightly or wrongly."""

    way: FaultyWay
    handler: BaseHTTPRequestHandler
    kind: str
    at: float
    length: int
    read: int = 0
    _body: bytes | None = None

    @property
    def body(self) -> bytes:
        """The whole body, once it was read."""
        if self._body is None:
            self._body = self.handler.rfile.read(self.length)
            if len(self._body) < self.length:
                raise ConnectionResetError("the client gave up in the middle of its body")
        return self._body

    def asked(self) -> tuple[int, http.client.HTTPMessage, bytes]:
        """What the real registry answers."""
        return self.way.ask(self.handler, self.body)

    def real(self) -> None:
        """Answers as the real registry does."""
        self.reply(*self.asked())

    def reply(self, status: int, headers: Any = (), body: bytes = b"", **more: str) -> None:
        """Answers in whole; `more` are headers that stand instead of the answer's own."""
        given = {**dict(headers.items() if hasattr(headers, "items") else headers)}
        given.update({name.replace("_", "-"): value for name, value in more.items()})
        self.head(status, given, len(body))
        if self.handler.command != "HEAD":
            self.handler.wfile.write(body)

    def head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        """Answers as far as the empty line."""
        lines = {name: value for name, value in headers.items() if name.lower() not in _HOP}
        given = next((v for name, v in headers.items() if name.lower() == "content-length"), None)
        if self.handler.command == "HEAD" and given is not None:
            lines["Content-Length"] = given
        elif length is not None and status != 204:
            lines["Content-Length"] = str(length)
        self.handler.send_response_only(status)
        for name, value in lines.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def end(self) -> None:
        """Closes the connection after this."""
        self.handler.close_connection = True

    def reset(self) -> None:
        """Breaks the connection, whatever is under way."""
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()

    def wait(self) -> None:
        """Says nothing until the client is gone."""
        self.end()
        self.handler.connection.settimeout(20)
        while self.handler.connection.recv(1 << 16):
            pass


Act = Callable[[Exchange], None]


# ---- anything ------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Act:
    """Answers with a status, and asks nobody."""

    def act(exchange: Exchange) -> None:
        _ = exchange.body
        exchange.reply(code, {"Content-Type": "application/json"}, body, **headers)

    return act


def _refused(exchange: Exchange) -> None:
    exchange.reset()


def _unanswered(exchange: Exchange) -> None:
    _ = exchange.body
    exchange.end()


def _lost(exchange: Exchange) -> None:
    exchange.asked()
    exchange.reset()


def _garbage(exchange: Exchange) -> None:
    _ = exchange.body
    exchange.handler.wfile.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n" * 9)
    exchange.end()


def _silent(exchange: Exchange) -> None:
    _ = exchange.body
    exchange.wait()


def _circle(exchange: Exchange) -> None:
    _ = exchange.body
    exchange.reply(307, Location=exchange.handler.path)


def _away(exchange: Exchange) -> None:
    """The other host has it. What is asked for there, it gives as the registry does."""
    _ = exchange.body
    exchange.reply(307, Location=f"http://{exchange.way.other}{exchange.handler.path}")


def _nowhere(exchange: Exchange) -> None:
    _ = exchange.body
    exchange.reply(307, Location="http://[")


def _revoked(exchange: Exchange) -> None:
    exchange.way.tokens.clear()
    _ = exchange.body
    exchange.way.challenge(exchange)


def _many_headers(exchange: Exchange) -> None:
    code, headers, body = exchange.asked()
    exchange.reply(code, {**dict(headers), **{f"X-{n}": "x" * 900 for n in range(200)}}, body)


_DENIED = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[31m " * 500}]}).encode()
ANY: dict[str, Act] = {
    "refused": _refused,
    "unanswered": _unanswered,
    "lost": _lost,
    "garbage": _garbage,
    "silent": _silent,
    "circle": _circle,
    "away": _away,
    "nowhere": _nowhere,
    "revoked": _revoked,
    "many-headers": _many_headers,
    "429": status(429),
    "429-at-once": status(429, Retry_After="0"),
    "429-tomorrow": status(429, Retry_After="86400"),
    "503-past": status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "503-nonsense": status(503, Retry_After="soon, very soon"),
    "500": status(500),
    "502": status(502, b"<html>" * 50_000),
    "403": status(403, _DENIED),
    "404": status(404),
    "418": status(418, b"[" * 50_000),
    "401-unexplained": status(401),
}


# ---- what is read --------------------------------------------------------------------------------


def _cut(exchange: Exchange) -> None:
    code, headers, body = exchange.asked()
    exchange.head(code, dict(headers), len(body))
    exchange.handler.wfile.write(body[: int(len(body) * exchange.at)])
    exchange.end()


def _broken(exchange: Exchange) -> None:
    _cut(exchange)
    exchange.reset()


def _said(change: int) -> Act:
    """Says another length than the body has, and ends with the body."""

    def act(exchange: Exchange) -> None:
        code, headers, body = exchange.asked()
        exchange.head(code, dict(headers), max(0, len(body) + change))
        exchange.handler.wfile.write(body)
        exchange.end()

    return act


def _whole(change: Callable[[bytes, int], bytes]) -> Act:
    """Sends other bytes, rightly announced."""

    def act(exchange: Exchange) -> None:
        code, headers, body = exchange.asked()
        exchange.reply(code, headers, change(body, int(len(body) * exchange.at)) if code < 300 else body)

    return act


def _flip(body: bytes, at: int) -> bytes:
    at = min(at, len(body) - 1)
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] if body else body


def _twice(body: bytes, at: int) -> bytes:
    """Some bytes stand there twice, and as many are missing at the end."""
    count = min(1000, at)
    return (body[:at] + body[at - count : at] + body[at:])[: len(body)]


def _stalled(exchange: Exchange) -> None:
    code, headers, body = exchange.asked()
    exchange.head(code, dict(headers), len(body))
    exchange.handler.wfile.write(body[: int(len(body) * exchange.at)])
    exchange.wait()


def _drip(exchange: Exchange) -> None:
    code, headers, body = exchange.asked()
    exchange.head(code, dict(headers), len(body))
    for start in range(0, min(len(body), 40)):
        exchange.handler.wfile.write(body[start : start + 1])
        exchange.way.ended.wait(0.002)
    exchange.handler.wfile.write(body[40:])


def _endless(exchange: Exchange) -> None:
    code, headers, _ = exchange.asked()
    exchange.head(code, dict(headers), None)
    exchange.end()
    while True:
        exchange.handler.wfile.write(b" " * 65536)


def _huge(exchange: Exchange) -> None:
    code, headers, body = exchange.asked()
    exchange.head(code, dict(headers), 100 << 20)
    exchange.handler.wfile.write(body)
    exchange.end()


def _unranged(exchange: Exchange) -> None:
    del exchange.handler.headers["Range"]
    exchange.real()


def _other_range(exchange: Exchange) -> None:
    _, headers, body = exchange.asked()
    total = headers.get("Content-Range", f"/{len(body)}").rpartition("/")[2]
    half = body[len(body) // 2 :]
    exchange.reply(206, headers, half, Content_Range=f"bytes 0-{len(half) - 1}/{total}")


def _lying_range(exchange: Exchange) -> None:
    """Says the range that was asked for, and gives the first bytes of the blob."""
    code, headers, body = exchange.asked()
    del exchange.handler.headers["Range"]
    _, _, whole = exchange.asked()
    exchange.reply(code, headers, whole[: len(body)])


def _answer(**more: str) -> Act:
    """The real answer with other headers."""

    def act(exchange: Exchange) -> None:
        code, headers, body = exchange.asked()
        exchange.reply(code, headers, body, **more)

    return act


def _circular(exchange: Exchange) -> None:
    """An index that has itself as a member, as far as its digest can say so."""
    name = exchange.handler.path.rpartition("/")[2]
    entry = {"mediaType": MANIFEST.replace("manifest", "index"), "digest": name, "size": 9}
    entry["digest"] = name if name.startswith("sha256:") else OTHER
    raw = json.dumps({"schemaVersion": 2, "mediaType": entry["mediaType"], "manifests": [entry] * 2})
    exchange.reply(200, {"Content-Type": str(entry["mediaType"])}, raw.encode())


BODY: dict[str, Act] = {
    "cut": _cut,
    "broken": _broken,
    "said-shorter": _said(-7),
    "said-longer": _said(7),
    "flipped": _whole(_flip),
    "doubled": _whole(_twice),
    "shorter": _whole(lambda body, at: body[:at]),
    "longer": _whole(lambda body, at: body + body[:100]),
    "empty": _whole(lambda body, at: b""),
    "stalled": _stalled,
    "drip": _drip,
    "endless": _endless,
    "huge": _huge,
    "other-type": _answer(Content_Type="text/html"),
    "encoded": _answer(Content_Encoding="gzip"),
}
BLOB: dict[str, Act] = {
    "unranged": _unranged,
    "other-range": _other_range,
    "lying-range": _lying_range,
    "416": status(416),
}
MANIFEST_GET: dict[str, Act] = {
    "other-digest": _answer(Docker_Content_Digest=OTHER),
    "circular": _circular,
    "no-manifest": status(200, b"<html>"),
    "schema-1": status(200, b'{"schemaVersion":1,"fsLayers":[]}'),
}


# ---- what is sent --------------------------------------------------------------------------------


def _half(exchange: Exchange) -> None:
    """The connection breaks in the middle of the client's body, and the registry has what came by."""
    count = int(exchange.length * exchange.at)
    data = exchange.handler.rfile.read(count)
    with socket.create_connection(exchange.way.target) as up:
        lines = [f"{exchange.handler.command} {exchange.handler.path} HTTP/1.1", "Host: registry"]
        lines += [f"{k}: {v}" for k, v in exchange.handler.headers.items() if k.lower() != "host"]
        up.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + data)
    exchange.reset()


def _forgotten(exchange: Exchange) -> None:
    """The registry has thrown the upload away, as it does with old ones."""
    _ = exchange.body
    path = exchange.handler.path
    exchange.way.ask_plainly("DELETE", path)
    exchange.reply(404, {"Content-Type": "application/json"}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')


def _ignored(exchange: Exchange) -> None:
    """Says that a part is there, and has thrown it away."""
    last = exchange.handler.headers.get("Content-Range", "0-0").rpartition("-")[2]
    _ = exchange.body
    exchange.reply(202, Location=exchange.handler.path, Range=f"0-{last}")


def _too_long(exchange: Exchange) -> None:
    """A proxy's limit: says so without reading on, as some do."""
    exchange.reply(413)
    exchange.end()


def _believed(exchange: Exchange) -> None:
    _ = exchange.body
    exchange.reply(201)


UPLOAD: dict[str, dict[str, Act]] = {
    "upload-post": {
        "no-location": status(202),
        "other-host": lambda e: _moved_to(e, e.way.other),
        "bad-location": status(202, Location="http://["),
        "long-parts": _answer(OCI_Chunk_Min_Length="100000000"),
        "no-number": _answer(OCI_Chunk_Min_Length="-5"),
        "mounted-lie": status(201),
    },
    "upload-patch": {
        "half": _half,
        "forgotten": _forgotten,
        "ignored": _ignored,
        "lies-less": _answer(Range="0-99"),
        "lies-more": _answer(Range="0-99999999999"),
        "lies-none": _answer(Range="none"),
        "413": status(413),
        "413-at-once": _too_long,
        "405": status(405),
        "416": status(416),
        "501": status(501),
        "other-host": lambda e: _moved_to(e, e.way.other),
    },
    "upload-get": {
        "lies-less": _answer(Range="0-9"),
        "lies-more": _answer(Range="0-99999999999"),
        "lies-none": _answer(Range=""),
        "forgotten": _forgotten,
        "405": status(405),
    },
    "upload-put": {
        "half": _half,
        "forgotten": _forgotten,
        "spoilt": status(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}'),
        "other-digest": _answer(Docker_Content_Digest=OTHER),
        "believed": _believed,
        "413": status(413),
    },
    "blob-head": {"says-there": status(200), "says-not-there": status(404)},
    "manifest-put": {
        "half": _half,
        "other-digest": _answer(Docker_Content_Digest=OTHER),
        "400": status(400, b'{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}'),
    },
    "upload-delete": {},
}


def _moved_to(exchange: Exchange, host: str) -> None:
    """Lets the upload go on at another host, which is the same registry."""
    code, headers, body = exchange.asked()
    location = headers.get("Location", "")
    exchange.reply(code, headers, body, Location=re.sub(r"^http://[^/]+", f"http://{host}", location))


FAULTS: dict[str, dict[str, Act]] = {
    "manifest-get": {**ANY, **BODY, **MANIFEST_GET},
    "manifest-head": {**ANY, "other-digest": _answer(Docker_Content_Digest=OTHER)},
    "blob-get": {**ANY, **BODY, **BLOB},
    **{kind: {**ANY, **own} for kind, own in UPLOAD.items()},
    "token": {**ANY, **BODY, "no-token": status(200, b"{}"), "two-lines": status(200, b'{"token":"a\\nb"}')},
}
PULLING = ("manifest-get", "blob-get", "blob-get", "blob-get", "token")
PUSHING = (
    "blob-head",
    "upload-post",
    "upload-patch",
    "upload-patch",
    "upload-get",
    "upload-put",
    "manifest-put",
    "token",
)


def random_schedule(seed: int, kinds: tuple[str, ...]) -> Schedule:
    """A schedule that is the same for a seed on every machine."""
    chance = random.Random(seed)
    guarded = chance.random() < 0.3
    offered = [kind for kind in kinds if guarded or kind != "token"]
    return Schedule(guarded=guarded, faults=tuple(_faults(chance, offered)))


def _faults(chance: random.Random, kinds: list[str]) -> Iterator[Fault]:
    for _ in range(chance.choice((1, 1, 2, 2, 3, 4, 6))):
        kind = chance.choice(kinds)
        own = [name for name in FAULTS[kind] if name not in ANY]
        name = chance.choice(own if own and chance.random() < 0.6 else list(ANY))
        yield Fault(
            kind=kind,
            name=name,
            nth=chance.choice((0, 0, 1, 1, 2, 3, 5)),
            on=chance.random() < 0.08,
            at=chance.randrange(11) / 10,
        )


# ---- the proxy -----------------------------------------------------------------------------------


@dataclass
class _Course:
    """One schedule while it is carried out."""

    schedule: Schedule
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, kind: str) -> Fault | None:
        with self.lock:
            nth = self.seen[kind]
            self.seen[kind] += 1
        for fault in self.schedule.faults:
            if fault.kind == kind and (fault.nth == nth or (fault.on and nth > fault.nth)):
                return fault
        return None


class FaultyWay:
    """The proxy, the host beside it and the token server; a context manager.

    Attributes:
        host, other: Where the two listen.
        strayed: Authorization headers that the other host was given: there should be none.
        log: The requests of the present schedule, each with what went wrong with it.
        tokens: Those that are good.
    """

    def __init__(self, registry: str) -> None:
        """Starts nothing yet. `registry`: the real one's `host:port`."""
        host, _, port = registry.partition(":")
        self.target = (host, int(port))
        self.strayed: list[str] = []
        self.log: list[str] = []
        self.tokens: set[str] = set()
        self.ended = threading.Event()
        self._sold = 0
        self._course = _Course(Schedule())
        self._servers = [_Server(self._handler(own)) for own in (True, False)]
        own, other = (f"127.0.0.1:{server.server_port}" for server in self._servers)
        self.host: str = own
        self.other: str = other

    def __enter__(self) -> FaultyWay:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def follow(self, schedule: Schedule) -> None:
        """Begins a schedule."""
        self.log, self.strayed, self._course = [], [], _Course(schedule)

    def seen(self, kind: str) -> int:
        """How many requests of a kind came by."""
        return self._course.seen[kind]

    def _handler(self, own: bool) -> type[BaseHTTPRequestHandler]:
        way = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16
            disable_nagle_algorithm = True

            def answer(self) -> None:
                try:
                    way.answer(self) if own else way.answer_there(self)
                    self.wfile.flush()
                except (OSError, http.client.HTTPException):
                    self.close_connection = True  # the client had enough, or the registry

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request, rightly or as the schedule says."""
        kind = kind_of(handler.command, handler.path)
        course = self._course
        length = int(handler.headers.get("Content-Length", 0))
        fault = course.fault(kind)
        exchange = Exchange(self, handler, kind, fault.at if fault else 0, length)
        self.log.append(f"{kind} {handler.path[-60:]}" + (f"  << {fault.name}" if fault else ""))
        if fault:
            FAULTS[kind][fault.name](exchange)
        elif course.schedule.guarded and kind != "token" and not self._knows(handler):
            _ = exchange.body
            self.challenge(exchange)
        else:
            exchange.real()

    def answer_there(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers as the other host: rightly."""
        self.strayed += [handler.headers["Authorization"]] if "Authorization" in handler.headers else []
        length = int(handler.headers.get("Content-Length", 0))
        exchange = Exchange(self, handler, "other", 0, length)
        exchange.real()

    def challenge(self, exchange: Exchange) -> None:
        """Asks for a token."""
        asks = f'Bearer realm="http://{self.host}/token",service="tests",scope="repository:x:pull,push"'
        exchange.reply(401, WWW_Authenticate=asks)

    def _knows(self, handler: BaseHTTPRequestHandler) -> bool:
        return handler.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    def ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any, bytes]:
        """Asks the real registry, or sells a token."""
        if kind_of(handler.command, handler.path) == "token":
            self._sold += 1
            self.tokens.add(f"token-{self._sold}")
            return 200, {}, json.dumps({"token": f"token-{self._sold}", "expires_in": 300}).encode()
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
        headers["Host"] = handler.headers.get("Host", "")
        return self.ask_plainly(handler.command, handler.path, body, headers)

    def ask_plainly(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, bytes]:
        """Sends a request to the real registry."""
        connection = http.client.HTTPConnection(*self.target, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, answer.headers, data
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def shutdown_request(self, request: Any) -> None:
        """Closes without a FIN of its own, so that a reset is one."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def kind_of(method: str, path: str) -> str:
    """Names a request: what it is about and its method."""
    if path.startswith("/token"):
        return "token"
    place = _PLACE.fullmatch(path)
    if not place:
        return f"other-{method.lower()}"
    what = {"manifests": "manifest", "blobs/uploads": "upload", "blobs": "blob"}[place["what"]]
    return f"{what}-{method.lower()}"
