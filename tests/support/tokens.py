"""`TokenServer`: sells the signed tokens that Debian's docker-registry takes, on loopback.

    with TokenServer(folder, users={"ali": "sesame"}) as tokens:
        with Registry(folder / "registry", auth=tokens.auth) as registry:
            ...

Source: the distribution project's token authentication and OAuth2 token specifications.
"""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

SERVICE, ISSUER = "the registry", "the token server"
ANYBODY = ""
"""Whose rights everybody has, whom the server does not know included."""

Rights = Mapping[str, Mapping[str, Iterable[str]]]
"""Actions by pattern of repositories (`team/*`), by user."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request for a token, as the server took it.

    Attributes:
        user: Who showed that they are that; empty for nobody.
        grant: `basic` for a GET, else the form's `grant_type`: `password` or `refresh_token`.
        scopes: What it was for, as written: `repository:a/b:pull,push` each.
        offline: A refresh token was asked for.
        status: What was answered.
    """

    user: str
    grant: str
    scopes: tuple[str, ...]
    offline: bool
    account: str
    client: str
    status: int


class TokenServer:
    """A token server with its own key; a context manager. What it does may be changed while it runs.

    Attributes:
        host: `127.0.0.1:<port>`.
        users: Passwords by user.
        rights: Who may do what: by default, anybody may pull, and users may do anything.
        refresh_tokens: Users by the refresh tokens that were given to them, and are taken from them.
        gives_refresh: A refresh token is given where one is asked for.
        lenient: Wrong credentials are taken for none, as some servers do, and not refused.
        expires_in: Seconds that a token is said to be good for.
        lifetime: Seconds that it is good for; below -60 the registry refuses it at once.
        requests: All that was asked, in order.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str],
        rights: Rights | None = None,
        gives_refresh: bool = False,
        lenient: bool = False,
        expires_in: float = 300,
        lifetime: float | None = None,
        certificate: ssl.SSLContext | None = None,
    ) -> None:
        """Makes a key, and writes the certificate that the registry is to trust into `folder`.

        Args:
            certificate: TLS is spoken with it.
        """
        self.users = dict(users)
        self.rights = rights if rights is not None else _usual(users)
        self.gives_refresh = gives_refresh
        self.lenient = lenient
        self.expires_in = expires_in
        self.lifetime = lifetime
        self.refresh_tokens: dict[str, str] = {}
        self.requests: list[Request] = []
        self._failures: list[int] = []
        self._lock = threading.Lock()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        made = _certificate(self._key)
        self._der = made.public_bytes(serialization.Encoding.DER)
        folder.mkdir(parents=True, exist_ok=True)
        self._bundle = folder / "tokens.pem"
        self._bundle.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._httpd.daemon_threads = True
        self._scheme = "https" if certificate else "http"
        if certificate:
            self._httpd.socket = certificate.wrap_socket(
                self._httpd.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self._httpd.server_port}"

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    @property
    def realm(self) -> str:
        """The address at which tokens are sold."""
        return f"{self._scheme}://{self.host}/token"

    @property
    def auth(self) -> dict[str, object]:
        """The `auth` section of docker-registry's configuration."""
        bundle = str(self._bundle)
        token = {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}
        return {"token": token}

    @property
    def scopes(self) -> Counter[str]:
        """How often each scope was asked for."""
        return Counter(scope for request in self.requests for scope in request.scopes)

    def fail(self, *statuses: int) -> None:
        """Answers the next requests with these statuses, one each."""
        with self._lock:
            self._failures.extend(statuses)

    def answer(
        self, method: str, fields: Mapping[str, list[str]], authorization: str
    ) -> tuple[int, dict[str, object]]:
        """Answers one request: a status, and a document."""

        def one(name: str) -> str:
            return fields.get(name, [""])[0]

        grant = one("grant_type") if method == "POST" else "basic"
        user = self._who(grant, one, authorization)
        scopes = tuple(word for text in fields.get("scope", []) for word in text.split())
        offline = one("offline_token") == "true" or one("access_type") == "offline"
        with self._lock:
            failed = self._failures.pop(0) if self._failures else 0
            status = failed or (401 if user is None and not self.lenient else 200)
            self.requests.append(
                Request(
                    user=user or "", grant=grant, scopes=scopes, offline=offline, account=one("account"),
                    client=one("client_id"), status=status,
                )
            )  # fmt: skip
            if status != 200:
                return status, {"errors": [{"code": "UNAUTHORIZED", "message": "no token for you"}]}
            text = self._sign(user or "", [self._granted(user or "", scope) for scope in scopes])
            paper: dict[str, object] = {"token": text, "access_token": text, "expires_in": self.expires_in}
            if offline and user and self.gives_refresh:
                paper["refresh_token"] = f"refresh-{user}-{len(self.refresh_tokens)}"
                self.refresh_tokens[str(paper["refresh_token"])] = user
            return 200, paper

    def _who(self, grant: str, one: object, authorization: str) -> str | None:
        """The user, empty for nobody; None for one who says what is not true."""
        assert callable(one)
        if grant == "refresh_token":
            return self.refresh_tokens.get(one("refresh_token"))
        if grant == "password":
            user, password = one("username"), one("password")
        elif not authorization:
            return ANYBODY
        else:
            pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            user, _, password = pair.partition(":")
        return user if self.users.get(user) == password else None

    def _granted(self, user: str, scope: str) -> dict[str, object]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        allowed = {
            action
            for who in {user, ANYBODY}
            for pattern, granted in self.rights.get(who, {}).items()
            if fnmatchcase(name, pattern)
            for action in granted
        }
        return {"type": kind, "name": name, "actions": sorted(allowed & set(actions.split(",")))}

    def _sign(self, user: str, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        until = now + int(self.expires_in if self.lifetime is None else self.lifetime)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._der).decode()]}
        claims: dict[str, object] = {"iss": ISSUER, "sub": user, "aud": SERVICE, "access": access}
        claims |= {"exp": until, "nbf": min(now, until) - 60, "iat": now - 60, "jti": str(len(self.requests))}
        signed = b".".join(_unpadded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _unpadded(signature)).decode()


def _handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def handle_any(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            fields = parse_qs(f"{query}&{body}", keep_blank_values=True)
            given = self.headers.get("Authorization", "")
            known = path == "/token"
            status, paper = server.answer(self.command, fields, given) if known else (404, {})
            raw = json.dumps(paper).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = handle_any

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _usual(users: Iterable[str]) -> Rights:
    everything = {"*": ("pull", "push", "delete", "*")}
    return {ANYBODY: {"*": ("pull",)}, **dict.fromkeys(users, everything)}


def _certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())


def _unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
