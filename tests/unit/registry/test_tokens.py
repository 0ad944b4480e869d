"""Tokens: bought once a scope, kept until shortly before they expire."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest
from img.errors import RegistryError
from img.registry import Credentials, Options
from img.registry.challenge import scopes_for
from img.registry.tokens import Authorizer

CHALLENGE = 'Bearer realm="https://auth.example/token?of=r",service="r.example"'
PULL = scopes_for("a", "pull")
PUSH = scopes_for("a", "pull", "push")


class Desk:
    """A token server without a network: it notes what it was asked and sells `t0`, `t1`, …"""

    def __init__(self, **paper: object) -> None:
        self.paper = paper
        self.asked: list[tuple[str, str, Mapping[str, str], bytes | None]] = []
        self.now = 1000.0
        self.refuses: dict[str, int] = {}
        self.page = b""  # what a POST is answered with
        self.open = threading.Event()
        self.open.set()

    def __call__(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> bytes:
        self.asked.append((method, url, headers, body))
        if status := self.refuses.get(method):
            raise RegistryError("refused", status=status)
        self.open.wait(60)
        if self.page and method == "POST":
            return self.page
        return json.dumps({"token": f"t{len(self.asked) - 1}", **self.paper}).encode()


class Keys:
    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    def get(self, registry: str, repository: str) -> Credentials:
        return self.credentials


def authorizer(
    desk: Desk, credentials: Credentials | None = None, options: Options | None = None
) -> Authorizer:
    keychain = Keys(credentials) if credentials else None
    return Authorizer("r.example", keychain, options or Options(), desk, clock=lambda: desk.now)


def test_nothing_is_sent_before_it_is_asked_for() -> None:
    desk = Desk()
    assert authorizer(desk, Credentials(username="ali")).header("a", PULL) == ""
    assert not desk.asked


def test_a_token_serves_its_scope_and_what_is_within() -> None:
    desk = Desk(expires_in=300)
    known = authorizer(desk)
    assert known.answer(CHALLENGE, "a", PUSH, refused="") == "Bearer t0"
    assert known.header("a", PUSH) == known.header("a", PULL) == "Bearer t0"
    assert known.header("b", scopes_for("b", "pull")) == "Bearer t1"


@pytest.mark.parametrize(
    ("paper", "seconds"), [({"expires_in": 300}, 300), ({}, 60), ({"expires_in": "x"}, 60)]
)
def test_a_token_is_replaced_shortly_before_it_expires(paper: dict[str, object], seconds: int) -> None:
    desk = Desk(**paper)
    known = authorizer(desk)
    known.answer(CHALLENGE, "a", PULL, refused="")
    desk.now += seconds * 0.75
    assert known.header("a", PULL) == "Bearer t0"
    desk.now += seconds * 0.24
    assert known.header("a", PULL) == "Bearer t1"


@pytest.mark.parametrize(
    ("ago", "form", "seconds"),
    [
        (200, "%Y-%m-%dT%H:%M:%SZ", 100),
        (200, "%Y-%m-%dT%H:%M:%S.123456789Z", 100),
        (-500, "%Y-%m-%dT%H:%M:%SZ", 300),  # another clock is ahead
        (5000, "%Y-%m-%dT%H:%M:%SZ", 300),  # or behind
        (200, "%Y-%m-%dT%H:%M:%S+02:00", 300),
        (200, "yesterday", 300),
    ],
)
def test_a_token_out_of_a_cache_ages_from_when_it_was_made(ago: int, form: str, seconds: int) -> None:
    made = datetime.now(timezone.utc) - timedelta(seconds=ago)
    desk = Desk(expires_in=300, issued_at=made.strftime(form))
    known = authorizer(desk)
    known.answer(CHALLENGE, "a", PULL, refused="")
    desk.now += seconds * 0.7
    assert known.header("a", PULL) == "Bearer t0"
    desk.now += seconds * 0.3
    assert known.header("a", PULL) == "Bearer t1"


def test_threads_buy_a_token_once_and_do_not_wait_where_they_have_one() -> None:
    desk = Desk(expires_in=300)
    known = authorizer(desk)
    known.answer(CHALLENGE, "b", scopes_for("b", "pull"), refused="")
    desk.open.clear()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(known.header("a", PUSH))) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(desk.asked) < 2:
        threading.Event().wait(0.001)
    assert known.header("b", scopes_for("b", "pull")) == "Bearer t0"
    desk.open.set()
    for thread in threads:
        thread.join()
    assert found == ["Bearer t1"] * 6 and len(desk.asked) == 2


def test_a_refused_token_is_not_shown_again() -> None:
    desk = Desk(expires_in=300)
    known = authorizer(desk)
    first = known.answer(CHALLENGE, "a", PULL, refused="")
    assert known.answer(CHALLENGE, "a", PULL, refused=first) == "Bearer t1"


def test_a_password_goes_to_the_token_server_as_basic() -> None:
    desk = Desk()
    authorizer(desk, Credentials(username="ali", password="sesame")).answer(CHALLENGE, "a", PULL, refused="")
    ((method, url, headers, body),) = desk.asked
    assert (method, body) == ("GET", None)
    assert headers["Authorization"] == "Basic YWxpOnNlc2FtZQ=="
    assert parse_qs(urlsplit(url).query) == {
        "of": ["r"],
        "service": ["r.example"],
        "scope": ["repository:a:pull"],
        "account": ["ali"],
    }


def test_an_identity_token_buys_in_the_body_and_never_in_the_address() -> None:
    desk = Desk()
    authorizer(desk, Credentials(identity_token="id3ntity")).answer(CHALLENGE, "a", PUSH, refused="")
    ((method, url, headers, body),) = desk.asked
    assert method == "POST" and "id3ntity" not in url and "Authorization" not in headers
    assert parse_qs((body or b"").decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["id3ntity"],
        "service": ["r.example"],
        "client_id": ["img"],
        "scope": ["repository:a:pull,push"],
    }


@pytest.mark.parametrize(
    ("credentials", "basic"),
    [
        (Credentials(identity_token="id3ntity"), ":id3ntity"),
        (Credentials(username="ali", password="sesame", identity_token="id3ntity"), "ali:sesame"),
    ],
)
@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_takes_no_post_is_asked_the_older_way(
    credentials: Credentials, basic: str, status: int
) -> None:
    desk = Desk()
    desk.refuses["POST"] = status
    assert authorizer(desk, credentials).answer(CHALLENGE, "a", PULL, refused="") == "Bearer t1"
    method, url, headers, _ = desk.asked[1]
    assert method == "GET" and "id3ntity" not in url
    assert headers["Authorization"] == "Basic " + base64.b64encode(basic.encode()).decode()


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_identity_that_ran_out_leaves_the_password(status: int) -> None:
    desk = Desk()
    desk.refuses["POST"] = status
    both = Credentials(username="ali", password="sesame", identity_token="id3ntity")
    assert authorizer(desk, both).answer(CHALLENGE, "a", PULL, refused="") == "Bearer t1"
    assert desk.asked[1][0] == "GET"


def test_a_page_in_answer_to_a_post_leaves_the_older_way() -> None:
    desk = Desk()
    desk.page = b"<!DOCTYPE html>"
    known = authorizer(desk, Credentials(username="ali", identity_token="id3ntity"))
    assert known.answer(CHALLENGE, "a", PULL, refused="") == "Bearer t1"
    assert [method for method, *_ in desk.asked] == ["POST", "GET"]


def test_a_server_that_refuses_the_identity_is_not_asked_again() -> None:
    desk = Desk()
    desk.refuses["POST"] = 400
    with pytest.raises(RegistryError):
        authorizer(desk, Credentials(identity_token="x")).answer(CHALLENGE, "a", PULL, refused="")
    assert len(desk.asked) == 1


def test_basic_is_answered_once() -> None:
    desk = Desk()
    known = authorizer(desk, Credentials(username="ali", password="sesame"))
    header = known.answer('Basic realm="x"', "a", PULL, refused="")
    assert header == "Basic YWxpOnNlc2FtZQ==" == known.header("a", PULL)
    assert known.answer('Basic realm="x"', "a", PULL, refused=header) == ""
    assert not desk.asked


def test_basic_without_credentials_has_no_answer() -> None:
    assert authorizer(Desk()).answer('Basic realm="x"', "a", PULL, refused="") == ""


def test_a_way_in_that_is_not_known_has_no_answer() -> None:
    assert authorizer(Desk()).answer('Negotiate x="y"', "a", PULL, refused="") == ""


@pytest.mark.parametrize(
    "realm",
    ["http://auth.example/token", "http://127.0.0.1/token", "ftp://auth.example/", "token", "", "http://["],
)
def test_a_token_server_without_tls_is_sent_nothing(realm: str) -> None:
    desk = Desk()
    known = authorizer(desk, Credentials(username="ali", password="sesame"))
    with pytest.raises(RegistryError, match=r"nothing was sent|does not say where"):
        known.answer(f'Bearer realm="{realm}"', "a", PULL, refused="")
    assert not desk.asked


def test_a_token_server_told_to_be_plain_is_asked() -> None:
    desk = Desk()
    known = authorizer(desk, options=Options(plain_http=frozenset({"auth.example"})))
    assert known.answer('Bearer realm="http://auth.example/t"', "a", PULL, refused="") == "Bearer t0"
