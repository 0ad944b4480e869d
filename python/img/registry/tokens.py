"""`Authorizer`: turns a registry's challenge and a keychain's credentials into an Authorization header.

One for each registry, shared by all threads. It remembers the challenge and the tokens, so that only the
first request of a scope is refused; tokens are kept in memory only, until shortly before they expire. Threads
that need the same token wait for one of them to fetch it; those that have theirs do not wait.
Source: the distribution project's token and OAuth2 authentication specifications.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from img import regex
from img.errors import RegistryError, Unauthorized
from img.registry.auth import GIVEN, Chain, Credentials, Keychain, Trade
from img.registry.challenge import Challenge, Scopes, read_challenges, write_scopes
from img.registry.endpoint import is_insecure, is_loopback, named, origin, shown
from img.registry.options import Options
from img.values import dataclass

_USUAL_SECONDS = 60
_MOST_SECONDS = 24 * 3600
_UTC = regex.compile(r"(?:Z|\+00:00)$")
_VISIBLE = regex.compile(r"[\x21-\x7e]+")
_CLIENT_ID = "img"


class TokenRequest(Protocol):
    """Sends a request to a token server and gives its body, with retries."""

    def __call__(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    header: str
    until: float


class Authorizer:
    """What one registry wants to see, and what it was shown."""

    def __init__(
        self,
        registry: str,
        keychain: Keychain | None,
        options: Options,
        request: TokenRequest,
        *,
        insecure: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._keychain = keychain
        self._options = options
        self._request = request
        self._insecure = insecure
        self._clock = clock
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._words: str | None = None
        self._fetching: dict[tuple[str, Scopes], threading.Lock] = {}
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, Scopes], _Token] = {}

    def header(self, repository: str, scopes: Scopes) -> str:
        """Gives the Authorization header for a request; empty where none is known to be wanted.

        Raises:
            Unauthorized: the token server refuses the credentials.
            RegistryError: the token server cannot be reached, or does not answer as one.
        """
        with self._lock:
            challenge = self._challenge
        return self._header(challenge, repository, scopes) if challenge else ""

    def answer(self, challenges: str, repository: str, scopes: Scopes, *, refused: str) -> str:
        """Gives the header to try after a 401; empty where there is nothing better than `refused`.

        Args:
            challenges: The answer's WWW-Authenticate.
            refused: The Authorization header that was sent, or empty.
        Raises:
            As `header`.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(read_challenges(challenges))}
        challenge = offered.get("bearer") or offered.get("basic")
        if challenge is None and not offered:
            challenge = Challenge(scheme="basic")  # lost on its way: no other needs no words
        if challenge is None:
            return ""
        with self._lock:
            self._challenge = challenge
            self._tokens = {key: token for key, token in self._tokens.items() if token.header != refused}
        # A login needs no scope, and what a registry's base names may be no repository of this user's.
        header = self._header(challenge, repository, scopes | challenge.scopes if scopes else scopes)
        return "" if header == refused else header

    def words(self, repository: str, ask: Callable[[], str]) -> str:
        """What the registry's base asks for; empty where that is nothing, or where nobody could answer.

        Args:
            ask: Asks it; called once, and only where there are credentials.
        """
        with self._asking:
            if self._words is None and self.credentials(repository):
                self._words = ask()
            return self._words or ""

    def credentials(self, repository: str) -> Credentials | None:
        """What the keychain has for a repository."""
        return self._keychain.get(self._registry, repository) if self._keychain else None

    def hint(self, repository: str) -> str:
        """Says where credentials were looked for, and what to do."""
        source = str(getattr(self._keychain, "source", ""))
        if self.credentials(repository):
            if isinstance(self._keychain, Chain):
                source = self._keychain.source_of(self._registry, repository)
            if source == GIVEN:
                return f"the credentials given for {self._registry} do not open it: check them, and its name"
            inside = f" in {source}" if source else ""
            return (
                f"the credentials for {self._registry}{inside} do not open it; "
                f"log in again: img login {self._registry}"
            )
        inside = f" in {source}" if source else ""
        return (
            f"there are no credentials for {self._registry}{inside}; "
            f"log in (img login {self._registry}), or check the name: "
            "a registry may say the same of what does not exist"
        )

    def _header(self, challenge: Challenge, repository: str, scopes: Scopes) -> str:
        if challenge.scheme == "basic":
            found = self.credentials(repository)
            return found.basic if found else ""
        with self._lock:
            if known := self._known(repository, scopes):
                return known
            fetching = self._fetching.setdefault((repository, scopes), threading.Lock())
        with fetching:
            with self._lock:
                if known := self._known(repository, scopes):
                    return known  # another thread has fetched it meanwhile
            token = self._fetch(challenge, repository, scopes)
            with self._lock:
                self._tokens[repository, scopes] = token
                self._fetching.pop((repository, scopes), None)
            return token.header

    def _known(self, repository: str, scopes: Scopes) -> str:
        """A token that allows all of `scopes`, and perhaps more."""
        now = self._clock()
        # A token is not used for another repository: the keychain may hold other credentials for that.
        for (owner, granted), token in self._tokens.items():
            if owner == repository and scopes <= granted and now < token.until:
                return token.header
        return ""

    def _fetch(self, challenge: Challenge, repository: str, scopes: Scopes) -> _Token:
        realm, began = self._realm(challenge), self._clock()
        service = [("service", name)] if (name := challenge.parameters.get("service")) else []
        found = self.credentials(repository)
        try:
            raw = self._by_identity(realm, found, service, scopes) if found and found.identity_token else None
            if raw is None:
                raw = self._by_password(realm, found, service, scopes)
        except Unauthorized as error:
            # The wire does not know whose credentials these were.
            error.hint = self.hint(repository)
            raise
        return self._read(raw, realm, began)

    def _by_identity(
        self, realm: str, found: Credentials, service: list[tuple[str, str]], scopes: Scopes
    ) -> bytes | None:
        """Buys a token with an identity token; None where the older way is left.

        The server may know that alone, or refuse an identity token that stands beside a password.
        """
        fields = [*service, ("grant_type", "refresh_token"), ("refresh_token", found.identity_token)]
        fields += [("client_id", _CLIENT_ID)]
        fields += [("scope", " ".join(write_scopes(scopes)))] if scopes else []
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        try:
            raw = self._request("POST", realm, headers=headers, body=urlencode(fields).encode())
        except RegistryError as error:
            if error.status in (404, 405) or (found.password and error.status in (400, 401, 403)):
                return None
            raise
        return None if raw.lstrip()[:1] == b"<" else raw  # a page in the place of an answer

    def _by_password(
        self, realm: str, found: Credentials | None, service: list[tuple[str, str]], scopes: Scopes
    ) -> bytes:
        """Asks for a token as a user with a password, or as nobody."""
        headers, fields = {"Accept": "application/json"}, list(service)
        if found and found.identity_token and not found.password:
            # Where it must go this way, it stands in the password's place.
            found = Credentials(username=found.username, password=found.identity_token)
        if found and found.basic:
            headers["Authorization"] = found.basic
            fields += [("account", found.username)]
        if isinstance(self._keychain, Trade):
            fields += [("offline_token", "true"), ("client_id", _CLIENT_ID)]
        fields += [("scope", text) for text in write_scopes(scopes)]
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(fields)
        return self._request("GET", url, headers=headers, body=None)

    def _realm(self, challenge: Challenge) -> str:
        """The token server's address, where it may be given credentials at all."""
        realm = challenge.parameters.get("realm", "")
        own_host = urlsplit(f"//{self._registry}").hostname or ""
        try:
            scheme, host, _ = origin(realm)
        except ValueError:
            scheme, host, realm = "", "", ""
        near = (is_loopback(host) and is_loopback(own_host)) or (self._insecure and host == own_host.lower())
        plain_allowed = near or named(realm, self._options.plain_http) or is_insecure(realm, self._options)
        if host and (scheme == "https" or (scheme == "http" and plain_allowed)):
            return realm.partition("#")[0]
        if not host:
            raise RegistryError(f"{self._registry} wants a token, and does not say where one is to be had")
        raise RegistryError(
            f"{self._registry} names a token server that is not reached by TLS; nothing was sent to it",
            url=shown(realm),
            hint="name its host as insecure if you trust the network",
        )

    def _read(self, raw: bytes, realm: str, began: float) -> _Token:
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            data = None
        values = data if isinstance(data, dict) else {}
        text = values.get("token") or values.get("access_token")
        identity = values.get("refresh_token")
        if isinstance(self._keychain, Trade) and isinstance(identity, str):
            self._keychain.identity_token = identity
        if not isinstance(text, str) or not _VISIBLE.fullmatch(text):
            raise RegistryError(f"the token server of {self._registry} gave no token", url=shown(realm))
        given = values.get("expires_in")
        seconds = float(_USUAL_SECONDS)
        if isinstance(given, int | float) and given > 0:
            seconds = min(float(given), _MOST_SECONDS)
        age = _age(values.get("issued_at"))
        if age < seconds:  # otherwise the clocks of this machine and of the server differ
            seconds -= age
        return _Token(header=f"Bearer {text}", until=began + seconds - min(30.0, seconds * 0.2))


def _age(issued_at: object) -> float:
    """Seconds since a token was made, as one may come out of a cache; 0 where that is not said."""
    from datetime import datetime, timezone

    try:
        # Python 3.10 reads neither Z nor the nanoseconds that Go writes.
        when = datetime.strptime(str(issued_at)[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0.0
    if not _UTC.search(str(issued_at)):
        return 0.0
    return max(0.0, (datetime.now(timezone.utc) - when).total_seconds())
